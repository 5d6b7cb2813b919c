"""The trained networks that come with the package, each with its accuracy and its held-out rows. Nothing here needs torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from he_backend.errors import NotFoundError
from he_backend.zoo import datasets
from he_backend.zoo.registry import resolve

WEIGHTS = Path(__file__).resolve().parent / "weights"


@dataclass(frozen=True)
class Shipped:
    """A trained network of the zoo."""

    model_type: str
    dataset: str
    activation: str
    input_shape: tuple[int, ...]  # of one row
    classes: int
    test_acc: float  # fraction of all held-out rows, in ONNX Runtime
    onnx_path: Path

    def load_test(self) -> tuple[np.ndarray, np.ndarray]:
        """The held-out rows: x float32 [rows, *input_shape], y int64 [rows].

        Raises:
            NotFoundError: the data set's files are missing; the message says which and where they are published.
        """
        data = datasets.load(self.dataset)
        return data.test_x.reshape(-1, *self.input_shape), data.test_y


def shipped(model_type: str, dataset: str | None = None) -> Shipped:
    """The trained network of that type.

    Args:
        model_type: a name or alias of the zoo.
        dataset: what it was trained on; by default 'digits', whose rows install with scikit-learn.

    Raises:
        NotFoundError: no such type, or none trained on that data set is shipped.
    """
    kind = resolve(model_type)
    path = WEIGHTS / f"{kind.name.lower()}-{dataset or 'digits'}.onnx"
    if not path.is_file():
        there = ", ".join(f"{network.model_type} on {network.dataset}" for network in all_shipped())
        raise NotFoundError(f"no {kind.name} trained on '{dataset or 'digits'}' is shipped (there are: {there}); make one with he-nn train")
    return _read(path)


def all_shipped() -> tuple[Shipped, ...]:
    """Every trained network that comes with the package, by type and data set."""
    return tuple(_read(path) for path in sorted(WEIGHTS.glob("*.onnx")))


def _read(path: Path) -> Shipped:
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return Shipped(
        model_type=record["type"],
        dataset=record["dataset"],
        activation=record["activation"],
        input_shape=tuple(record["input_shape"]),
        classes=record["classes"],
        test_acc=record["test_acc"],
        onnx_path=path,
    )
