"""A small network for a table of numbers (CSV with a header), trained by the model owner on its own rows, as ONNX with its card.

Columns are standardised, and that is folded into the first layer, so that a data owner's rows go in as they are in its table.
"""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from he_backend.errors import InputError, ParameterError
from he_backend.graph.card import TASKS, Card
from he_backend.graph.quality import quality
from he_backend.version import VERSION

OPSET = 13
_MOST_NAMED = 5
_ENOUGH_TO_STOP_EARLY = 5000


@dataclass(frozen=True)
class Table:
    """Feature columns [rows, columns] as float64, and the label column (numbers, or words)."""

    features: tuple[str, ...]
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class TableModel:
    """A trained network: ONNX bytes with the card inside, its held-out rows, and how good it is on them."""

    onnx: bytes = field(repr=False)
    card: Card
    test_x: np.ndarray = field(repr=False)  # float32 [rows, columns]
    test_y: np.ndarray = field(repr=False)
    figures: dict[str, float]  # test_acc, or rmse and r2
    train_rows: int


def read_table(path: str | Path, label: str, ids: Sequence[str] = ("id", "sid")) -> Table:
    """The table in a CSV file; columns named in `ids` are left out. Raises InputError naming columns that do not serve, never a value."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path} cannot be read: {getattr(problem, 'strerror', None) or 'it is not text'}") from None
    if label not in header:
        raise InputError(f"label: {path} has no column {label!r}; its columns are {', '.join(header[:20])}")
    if not rows or any(len(row) != len(header) for row in rows):
        raise InputError(f"{path} has no rows, or rows of another length than its header")
    names = [name for name in header if name != label and name not in ids]
    if not names:
        raise InputError(f"{path} has no columns beside its label and ids")
    columns, bad = [], []
    for name in names:
        values, is_good = _numbers([row[header.index(name)] for row in rows])
        columns.append(values)
        if not is_good:
            bad.append(name)
    if bad:
        raise InputError(f"{path}: column {', '.join(bad[:_MOST_NAMED])} has missing values or what is no number; fill or drop it")
    texts = [row[header.index(label)] for row in rows]
    y, is_good = _numbers(texts)
    return Table(tuple(names), np.stack(columns, axis=1), y if is_good else np.asarray(texts))


def train_table(
    table: Table, task: str = "", hidden: Sequence[int] = (32, 16), seed: int = 0, test_share: float = 0.2, epochs: int = 200
) -> TableModel:
    """A multi-layer perceptron (ReLU) for the table, by scikit-learn; the same arguments give the same network.

    task: binary, multi or regression; '' tells it by the labels (fractions: regression; two labels: binary). A binary network ends in
    Sigmoid (the probability of the second class), one of several classes in Softmax. Raises ParameterError, InputError.
    """
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    if task not in ("", *TASKS):
        raise ParameterError(f"task: {task[:40]!r}; allowed: {', '.join(TASKS)}")
    if not hidden or min(hidden) < 1:
        raise ParameterError("hidden: one or more sizes of 1 and up are allowed")
    if not 0.0 < test_share < 1.0:
        raise ParameterError(f"test_share: {test_share}; allowed: between 0 and 1")
    task = task or _task_of(table.y)
    classes = () if task == "regression" else _classes(table.y, task)
    y = table.y.astype(np.float64) if task == "regression" else np.searchsorted(np.asarray(sorted(set(table.y.tolist()))), table.y)
    try:
        train_x, test_x, train_y, test_y = train_test_split(
            table.x, y, test_size=test_share, random_state=seed, stratify=None if task == "regression" else y
        )
    except ValueError:
        raise InputError(f"{len(table.x)} rows are too few to hold {test_share:.0%} back for each class") from None
    mean, scale = train_x.mean(axis=0), train_x.std(axis=0)
    scale[scale == 0] = 1.0
    # A tenth of a small table says too little about when to stop.
    options: dict[str, Any] = {"hidden_layer_sizes": tuple(hidden), "random_state": seed, "max_iter": epochs, "alpha": 1e-3}
    options["early_stopping"] = len(train_x) >= _ENOUGH_TO_STOP_EARLY
    centre, spread = (float(train_y.mean()), float(train_y.std()) or 1.0) if task == "regression" else (0.0, 1.0)
    network = MLPRegressor(**options) if task == "regression" else MLPClassifier(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopping at `epochs` is what was asked for
        network.fit((train_x - mean) / scale, (train_y - centre) / spread if task == "regression" else train_y)
    weights = [matrix.astype(np.float64) for matrix in network.coefs_]
    biases = [vector.astype(np.float64) for vector in network.intercepts_]
    biases[0] = biases[0] - (mean / scale) @ weights[0]
    weights[0] = weights[0] / scale[:, None]
    weights[-1], biases[-1] = weights[-1] * spread, biases[-1] * spread + centre
    card = Card(table.features, task, classes)
    end = {"binary": "Sigmoid", "multi": "Softmax", "regression": ""}[task]
    model = _onnx(weights, biases, end, card)
    labels = test_y if task == "regression" else np.asarray(classes)[test_y]
    figures = quality(_run(model, test_x), labels, card)
    return TableModel(model, card, test_x.astype(np.float32), labels, figures, len(train_x))


def save_table_model(model: TableModel, folder: Path, name: str) -> Path:
    """The path of NAME.onnx; beside it is NAME.npz with the held-out rows x and y, which `he-nn model add --test` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.onnx)
    np.savez_compressed(folder / f"{name}.npz", x=model.test_x, y=model.test_y)
    return path


def _onnx(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], end: str, card: Card) -> bytes:
    """Gemm and ReLU in turn; input 'x' [rows, columns], output 'scores' [rows, outputs]."""
    nodes, constants, value = [], [], "x"
    for index, (weight, bias) in enumerate(zip(weights, biases)):
        last = index == len(weights) - 1
        constants += [numpy_helper.from_array(array.astype(np.float32), f"{kind}{index}") for kind, array in (("w", weight), ("b", bias))]
        out = "scores" if last and not end else f"h{index}"
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [out], name=f"dense{index}"))
        value = out
        if not last:
            value = f"a{index}"
            nodes.append(helper.make_node("Relu", [out], [value], name=f"relu{index}"))
        elif end:
            nodes.append(helper.make_node(end, [out], ["scores"], name=end.lower()))  # Softmax: over the last axis
    rows = "rows"
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, weights[0].shape[0]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, weights[-1].shape[1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="he-nn", producer_version=VERSION)
    model.ir_version = 8
    card.write(model)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _run(model: bytes, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x.astype(np.float32)})[0])


def _numbers(texts: Sequence[str]) -> tuple[np.ndarray, bool]:
    try:
        values = np.asarray(texts, dtype=np.float64)
    except ValueError:
        return np.zeros(len(texts)), False
    return values, bool(np.isfinite(values).all())


def _task_of(y: np.ndarray) -> str:
    if y.dtype.kind == "f" and not np.array_equal(y, np.rint(y)):
        return "regression"
    return "binary" if len(set(y.tolist())) == 2 else "multi"


def _classes(y: np.ndarray, task: str) -> tuple[Any, ...]:
    labels = sorted(set(y.tolist()))
    if len(labels) < 2 or (task == "binary" and len(labels) != 2):
        raise InputError(f"task {task}: the label column has {len(labels)} different labels")
    if y.dtype.kind != "f":
        return tuple(labels)
    if any(label != int(label) for label in labels):
        raise InputError(f"task {task}: the labels have fractions; a regression takes them")
    return tuple(int(label) for label in labels)
