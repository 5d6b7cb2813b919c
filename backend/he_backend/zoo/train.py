"""Training: a model type and a data set become an ONNX network with its measured accuracy and its curve."""

from __future__ import annotations

import inspect
import io
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

from he_backend.errors import EngineError, ParameterError
from he_backend.zoo import datasets
from he_backend.zoo.batches import batches, count
from he_backend.zoo.dataset import DataSet
from he_backend.zoo.evaluate import accuracy
from he_backend.zoo.registry import ModelType, Recipe, resolve
from he_backend.zoo.storage import with_embeddings, with_half_weights

OPSET = 17


@dataclass(frozen=True)
class Epoch:
    """One point of a training curve."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy over the training rows
    test_acc: float  # fraction of the held-out rows


@dataclass(frozen=True)
class TrainResult:
    """A trained network."""

    model_type: str
    dataset: str
    activation: str
    input_shape: tuple[int, ...]  # of one row
    classes: int
    seed: int
    test_acc: float  # of the exported network, in ONNX Runtime
    test_rows: int
    embeddings: str  # what its owner says of its tables; '' without any
    curve: tuple[Epoch, ...]
    seconds: float
    onnx: bytes = field(repr=False)  # input 'x' [rows, *input_shape], output 'scores' [rows, classes]
    module: Any = field(repr=False)  # the torch module, in evaluation mode


Progress = Callable[[Epoch, int], None]


def train(
    model_type: str,
    dataset: str = "auto",
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    threads: int = 1,
    activation: str | None = None,
) -> TrainResult:
    """A network of the zoo, trained. The same arguments on the same machine give the same network.

    Args:
        model_type: a name or alias of `registry.TYPES`.
        dataset: one of the type's recipes, or 'auto': the type's own data set where its files are, otherwise digits.
        epochs: passes over the training rows; by default the type's recipe.
        seed: of the initial weights, the order of rows and their shifts.
        progress: called after each epoch with its figures and the number of epochs.
        threads: that torch and ONNX Runtime may use.
        activation: another of those that the type can be built with.

    Raises:
        NotFoundError: unknown type, or a data file is missing.
        ParameterError: an argument is out of range.
        EngineError: torch is not installed.
    """
    kind = resolve(model_type)
    if epochs is not None and epochs < 1:
        raise ParameterError(f"epochs is {epochs}: it must be 1 or more")
    if threads < 1:
        raise ParameterError(f"threads is {threads}: it must be 1 or more")
    try:
        import torch
    except ImportError as missing:
        raise EngineError("training needs torch: pip install 'he-nn[torch]'") from missing

    if dataset in datasets.LOADERS:
        kind.recipe(dataset)  # refused before anything is read
    data = datasets.load(dataset, kind.auto)
    recipe = kind.recipe(data.name)
    started = time.perf_counter()
    with reproducible(torch, seed, threads):
        module = kind.module(data, activation or kind.activation)
        curve = tuple(_fit(module, kind, data, recipe, epochs or recipe.epochs, progress))
        model = stored(export(module, kind.input_shape(data.row_shape), kind.text), kind, recipe)
    return TrainResult(
        model_type=kind.name,
        dataset=data.name,
        activation=activation or kind.activation,
        input_shape=kind.input_shape(data.row_shape),
        classes=data.classes,
        seed=seed,
        test_acc=accuracy(model, kind.as_input(data.test_x), data.test_y, threads),
        test_rows=len(data.test_y),
        embeddings="public" if kind.text else "",
        curve=curve,
        seconds=time.perf_counter() - started,
        onnx=model,
        module=module,
    )


def stored(model: bytes, kind: ModelType, recipe: Recipe) -> bytes:
    """The network as it is kept: with float16 weights if the recipe says so, and embedding tables marked as public if it has any."""
    model = with_half_weights(model) if recipe.half else model
    return with_embeddings(model, "public") if kind.text else model


def export(module: Any, input_shape: tuple[int, ...], ids: bool = False) -> bytes:
    """ONNX of a torch module with one input: opset 17, input 'x' [rows, *input_shape], output 'scores', rows free; `ids`: x is int64."""
    import torch

    buffer: Any = io.BytesIO()
    # The tracing exporter needs no onnxscript and is the only one before torch 2.5; the keyword came with the other one.
    tracing: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself, and about recurrent layers and rows
        torch.onnx.export(
            module.eval(),
            (torch.ones(2, *input_shape, dtype=torch.int64 if ids else torch.float32),),
            buffer,
            input_names=["x"],
            output_names=["scores"],
            dynamic_axes={"x": {0: "rows"}, "scores": {0: "rows"}},
            opset_version=OPSET,
            **tracing,
        )
    return buffer.getvalue()


def _fit(module: Any, kind: ModelType, data: DataSet, recipe: Recipe, epochs: int, progress: Progress | None) -> Iterator[Epoch]:
    import torch
    from torch.nn import functional

    given = kind.as_input(data.train_x) if kind.text else data.train_x
    rows, labels = torch.from_numpy(given), torch.from_numpy(data.train_y)
    test_x, test_y = torch.from_numpy(kind.as_input(data.test_x)), torch.from_numpy(data.test_y)
    adam = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
    optimizer = adam(module.parameters(), weight_decay=recipe.weight_decay)
    steps = epochs * count(len(rows), recipe)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_learning_rate, total_steps=steps)
    for epoch in range(1, epochs + 1):
        module.train()
        total = 0.0
        for x, y in batches(kind, rows, labels, recipe):
            loss = functional.cross_entropy(module(x), y)
            optimizer.zero_grad()
            loss.backward()
            # Squares make early gradients as large as the fourth power of the activations.
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(y)
        module.eval()
        with torch.no_grad():
            found = torch.cat([module(part).argmax(1) for part in test_x.split(1000)])
        point = Epoch(epoch, total / len(rows), (found == test_y).float().mean().item())
        if progress is not None:
            progress(point, epochs)
        yield point


@contextmanager
def reproducible(torch: Any, seed: int, threads: int) -> Iterator[None]:
    """Seeds torch and limits its threads, then puts both back as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
