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
from he_backend.zoo.evaluate import accuracy
from he_backend.zoo.registry import ModelType, Recipe, resolve

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
        dataset: 'digits', 'mnist', or 'auto' (MNIST where its files are, otherwise digits).
        epochs: passes over the training rows; by default the type's recipe.
        seed: of the initial weights, the order of rows and their shifts.
        progress: called after each epoch with its figures and the number of epochs.
        threads: that torch and ONNX Runtime may use.
        activation: 'relu' or 'square' instead of the type's own.

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

    data = datasets.load(dataset)
    recipe = kind.recipes[data.name]
    count = epochs if epochs is not None else recipe.epochs
    started = time.perf_counter()
    with _reproducible(torch, seed, threads):
        module = kind.build(data.image_shape, data.classes, activation or kind.activation)
        curve = tuple(_fit(module, kind, data, recipe, count, progress))
        model = export(module, kind.input_shape(data.image_shape))
    return TrainResult(
        model_type=kind.name,
        dataset=data.name,
        activation=activation or kind.activation,
        input_shape=kind.input_shape(data.image_shape),
        classes=data.classes,
        seed=seed,
        test_acc=accuracy(model, kind.as_input(data.test_x), data.test_y, threads),
        test_rows=len(data.test_y),
        curve=curve,
        seconds=time.perf_counter() - started,
        onnx=model,
        module=module,
    )


def export(module: Any, input_shape: tuple[int, ...]) -> bytes:
    """ONNX of a torch module with one input: opset 17, input 'x' [rows, *input_shape], output 'scores', rows free."""
    import torch

    buffer: Any = io.BytesIO()
    # The tracing exporter needs no onnxscript and is the only one before torch 2.5; the keyword came with the other one.
    tracing: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module.eval(),
            (torch.zeros(2, *input_shape),),
            buffer,
            input_names=["x"],
            output_names=["scores"],
            dynamic_axes={"x": {0: "rows"}, "scores": {0: "rows"}},
            opset_version=OPSET,
            **tracing,
        )
    return buffer.getvalue()


def _fit(module: Any, kind: ModelType, data: datasets.DataSet, recipe: Recipe, epochs: int, progress: Progress | None) -> Iterator[Epoch]:
    import torch
    from torch.nn import functional

    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    test_x, test_y = torch.from_numpy(kind.as_input(data.test_x)), torch.from_numpy(data.test_y)
    shape = kind.input_shape(data.image_shape)
    optimizer = torch.optim.Adam(module.parameters(), weight_decay=recipe.weight_decay)
    batches = -(-len(images) // recipe.batch_rows)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_learning_rate, total_steps=epochs * batches)
    for epoch in range(1, epochs + 1):
        module.train()
        total = 0.0
        for rows in torch.randperm(len(images)).split(recipe.batch_rows):
            x = _shifted(images[rows], recipe.shift_pixels).reshape(-1, *shape)
            loss = functional.cross_entropy(module(x), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            # Squares make early gradients as large as the fourth power of the activations.
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        module.eval()
        with torch.no_grad():
            right = (module(test_x).argmax(1) == test_y).float().mean().item()
        point = Epoch(epoch, total / len(images), right)
        if progress is not None:
            progress(point, epochs)
        yield point


def _shifted(images: Any, pixels: int) -> Any:
    """Each image moved by up to `pixels` in both directions, zeros moving in; images [rows, channels, height, width]."""
    if pixels == 0:
        return images
    import torch
    from torch.nn import functional

    height, width = images.shape[2:]
    # windows [rows, channels, 2p+1, 2p+1, height, width]: every shift of every image, as a view
    windows = functional.pad(images, (pixels,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.randint(0, 2 * pixels + 1, (2, len(images)))
    return windows[torch.arange(len(images)), :, down, right]


@contextmanager
def _reproducible(torch: Any, seed: int, threads: int) -> Iterator[None]:
    """Seeds torch and limits its threads, then puts both back as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
