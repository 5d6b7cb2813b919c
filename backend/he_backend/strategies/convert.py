"""A network converted by a strategy, and what that changed: accuracy and rounds, before and after."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np

from he_backend import graph
from he_backend.errors import EngineError, InputError, ParameterError
from he_backend.graph.passes_embedding import FILE
from he_backend.strategies.catalog import EXACT, strategy
from he_backend.zoo import datasets, resolve, shipped
from he_backend.zoo.batches import batches, count
from he_backend.zoo.evaluate import accuracy
from he_backend.zoo.registry import ModelType
from he_backend.zoo.storage import is_half, with_embeddings, with_half_weights
from he_backend.zoo.train import reproducible

_BATCH_ROWS = 64
_EPOCHS, _STEPS, _LEARNING_RATE = 3, 2000, 1e-3  # of fine-tuning unless others are asked for: whichever of the first two is longer


@dataclass(frozen=True)
class Data:
    """Labelled rows as a network takes them: for training on, and held out to measure accuracy with."""

    train_x: np.ndarray = field(repr=False)
    train_y: np.ndarray = field(repr=False)
    test_x: np.ndarray = field(repr=False)
    test_y: np.ndarray = field(repr=False)
    kind: ModelType | None = None  # of the zoo: its rows are changed a little while training, as its recipe says
    dataset: str = ""


@dataclass(frozen=True)
class Conversion:
    """A converted network and what it costs."""

    model: bytes = field(repr=False)  # ONNX
    name: str
    strategy: str
    program: graph.Program = field(repr=False)
    replaced: tuple[str, ...]  # operators and what they became, one for each place
    accuracy_before: float | None  # of the original in ONNX Runtime, on the held-out rows; None without any
    accuracy_after: float | None  # of the converted network, split into rounds
    test_rows: int
    rounds_before: int
    rounds_after: int
    epochs: int
    seconds: float

    @property
    def loss_points(self) -> float | None:
        """Percentage points of accuracy lost; negative when some was gained."""
        if self.accuracy_before is None or self.accuracy_after is None:
            return None
        return 100 * (self.accuracy_before - self.accuracy_after)


def convert_by(
    name: str,
    model: bytes,
    data: Data | None = None,
    *,
    model_name: str = "model",
    embeddings: str = FILE,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, float], None] | None = None,
) -> Conversion:
    """A network converted by the strategy `name`. The same arguments on the same machine give the same network.

    Args:
        model: an ONNX file's bytes.
        data: training rows, which he-friendly needs, and held-out rows to measure with.
        embeddings: what becomes of its tables, as in he_backend.convert; it is written into the result.
        epochs: of the fine-tuning; by default 3, and more until it has had 2000 steps.
        learning_rate: its highest; by default 0.001.
        progress: called after each epoch with its number and mean loss.

    Raises:
        ParameterError: no such strategy, or a number out of range.
        ModelError: the network cannot run encrypted, or has operators that cannot be trained.
        InputError: he-friendly without training rows, or rows and labels that do not fit the network.
        EngineError: he-friendly without torch, or a fine-tuning that diverged.
    """
    chosen = strategy(name)
    started = time.perf_counter()
    before = graph.convert(model, name=model_name, embeddings=embeddings)
    _check_rows(before, data)
    replaced: tuple[str, ...] = ()
    result, after, trained = model, before, 0
    if chosen.name != EXACT:
        result, replaced, trained = _friendly(model, data, epochs, learning_rate, seed, threads, progress)
    if embeddings != FILE:
        result = with_embeddings(result, embeddings)
    if chosen.name != EXACT:
        after = graph.convert(result, name=model_name)
    measured = data is not None and len(data.test_x) > 0
    return Conversion(
        model=result,
        name=model_name,
        strategy=chosen.name,
        program=after,
        replaced=replaced,
        accuracy_before=accuracy(model, data.test_x, data.test_y, threads) if measured and data else None,
        accuracy_after=_program_accuracy(after, data) if measured and data else None,
        test_rows=len(data.test_x) if data else 0,
        rounds_before=before.rounds,
        rounds_after=after.rounds,
        epochs=trained,
        seconds=time.perf_counter() - started,
    )


def source_of(model_or_type: str, dataset: str | None = None) -> tuple[bytes, str, str, str]:
    """The bytes and the name of a network, and its type and data set where they are known ('' otherwise).

    model_or_type: the path of an ONNX file (beside a record of `he-nn train`, its type and data set are known), or a type of the zoo,
    whose shipped network it then is.
    """
    path = Path(model_or_type)
    if path.suffix == ".onnx" or path.is_file():
        try:
            model = path.read_bytes()
        except OSError as problem:
            raise InputError(f"the model file {str(path)!r} cannot be read: {problem.strerror}") from None
        record = path.with_suffix(".json")
        known: dict[str, Any] = {}
        if record.is_file():
            try:
                known = json.loads(record.read_text(encoding="utf-8"))
            except ValueError:
                known = {}
        known = known if isinstance(known, dict) else {}
        return model, path.stem, str(known.get("type", "")), dataset or str(known.get("dataset", ""))
    network = shipped(model_or_type, dataset)
    return network.onnx_path.read_bytes(), network.onnx_path.stem, network.model_type, network.dataset


def zoo_data(model_type: str, dataset: str, train: bool = True) -> Data:
    """A data set's rows as a type of the zoo takes them; without `train` the held-out ones only.

    Raises NotFoundError when its files are missing, EngineError when a package that reads them is.
    """
    kind = resolve(model_type)
    loaded = datasets.load(dataset, train=train)
    return Data(loaded.train_x, loaded.train_y, kind.as_input(loaded.test_x), loaded.test_y, kind, loaded.name)


def file_data(train: str | None, test: str | None) -> Data | None:
    """The rows of .npz files with arrays x and y; None without either. Raises InputError for another kind of file."""
    if train is None and test is None:
        return None
    pairs = []
    for path in (train, test):
        if path is None:
            pairs.append((np.zeros(0, np.float32), np.zeros(0, np.int64)))
            continue
        try:
            with np.load(path, allow_pickle=False) as arrays:
                x, y = arrays["x"], arrays["y"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path} is not an .npz file with arrays x and y: save it with numpy.savez(path, x=rows, y=labels)") from None
        if len(x) != len(y) or y.ndim != 1 or not len(x):
            raise InputError(f"{path}: x has shape {x.shape} and y {y.shape}; both need the same rows")
        pairs.append((x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int64), y.astype(np.int64)))
    return Data(*pairs[0], *pairs[1])


def _check_rows(program: graph.Program, data: Data | None) -> None:
    """Raises InputError for rows of another shape or kind than the network takes, or labels that are none of its classes."""
    if data is None:
        return
    spec, classes = program.inputs[0], program.outputs[0].shape[-1] if program.outputs[0].shape else 1
    train_x = data.kind.as_input(data.train_x) if data.kind and len(data.train_x) else data.train_x
    for name, x, y in (("training", train_x, data.train_y), ("test", data.test_x, data.test_y)):
        if not len(x):
            continue
        if len(program.inputs) != 1 or x.shape[1:] != tuple(spec.shape):
            raise InputError(f"the {name} rows have shape {x.shape[1:]}, the network takes {tuple(spec.shape)}")
        if (x.dtype.kind == "f") != (np.dtype(spec.dtype).kind == "f"):
            raise InputError(f"the {name} rows are {x.dtype}, the network takes {spec.dtype}")
        if y.min() < 0 or y.max() >= classes:
            raise InputError(f"the labels of the {name} rows must be whole numbers from 0 to {classes - 1}, one for each score")


def _friendly(
    model: bytes,
    data: Data | None,
    epochs: int | None,
    learning_rate: float | None,
    seed: int,
    threads: int,
    progress: Callable[[int, float], None] | None,
) -> tuple[bytes, tuple[str, ...], int]:
    """The network after the he-friendly strategy, what was replaced, and the epochs it was trained for."""
    if data is None or not len(data.train_x):
        raise InputError("he-friendly trains the network on: give it training rows (--data), or take the strategy 'exact'")
    if (epochs is not None and epochs < 1) or threads < 1:
        raise ParameterError(f"epochs is {epochs} and threads is {threads}: both must be 1 or more")
    if learning_rate is not None and not 0 < learning_rate <= 1:
        raise ParameterError(f"learning_rate is {learning_rate}: it must be above 0 and at most 1")
    try:
        import torch
    except ImportError as missing:
        raise EngineError("he-friendly needs torch: pip install 'he-nn[torch]'") from missing
    from he_backend.strategies import distil, friendly, network

    original = network.read(model)
    rows = data.kind.as_input(data.train_x) if data.kind else data.train_x
    with reproducible(torch, seed, threads):
        replaced = friendly.replacements(original, distil.samples(original, rows))
        if not replaced:
            return model, (), 0
        drawn, steps = _batches(data, rows)
        tuning = distil.Tuning(epochs or max(_EPOCHS, -(-_STEPS // steps)), learning_rate or _LEARNING_RATE)
        tuned = distil.fine_tune(original, replaced, drawn, steps, tuning, progress)
    result = network.write(tuned)
    return (with_half_weights(result) if is_half(model) else result), tuple(map(str, replaced.values())), tuning.epochs


def _batches(data: Data, rows: np.ndarray) -> tuple[Callable[[], Any], int]:
    """What draws one pass of batches, and how many batches that has."""
    import torch

    labels = torch.from_numpy(data.train_y)
    if data.kind is not None:
        recipe, kind = data.kind.recipe(data.dataset), data.kind
        given = torch.from_numpy(rows if kind.text else data.train_x)
        return lambda: batches(kind, given, labels, recipe, whole=not kind.any_length), count(len(given), recipe)
    given, step = torch.from_numpy(np.ascontiguousarray(rows)), _BATCH_ROWS
    return lambda: ((given[part], labels[part]) for part in torch.randperm(len(given)).split(step)), -(-len(given) // step)


def _program_accuracy(program: graph.Program, data: Data) -> float:
    right = 0
    for start in range(0, len(data.test_x), 256):
        outputs = graph.run_program(program, data.test_x[start : start + 256])
        right += int((outputs[program.outputs[0].name].argmax(axis=-1) == data.test_y[start : start + 256]).sum())
    return right / len(data.test_x)
