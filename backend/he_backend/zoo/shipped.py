"""The trained networks that come with the package, each with its accuracy and its held-out rows. Nothing here needs torch."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from he_backend.errors import EngineError, NotFoundError
from he_backend.zoo import datasets
from he_backend.zoo.registry import ModelType, resolve

logger = logging.getLogger(__name__)

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
    embeddings: str = ""  # "public": its embedding tables travel to the data owner; '' without any

    def load_test(self) -> tuple[np.ndarray, np.ndarray]:
        """The held-out rows: x [rows, *input_shape], float32, or int64 where they are token ids; y int64 [rows].

        Raises:
            NotFoundError: the data set's files are missing; the message says which and where they are published.
            EngineError: its sentences or images need a package that is not installed.
        """
        data = datasets.load(self.dataset, train=False)
        return resolve(self.model_type).as_input(data.test_x), data.test_y

    def describe(self) -> dict[str, Any]:
        """What a registered copy records of it."""
        known: dict[str, Any] = {"dataset": self.dataset, "activation": self.activation, "input_shape": list(self.input_shape)}
        return {**known, "embeddings": self.embeddings} if self.embeddings else known


def shipped(model_type: str, dataset: str | None = None) -> Shipped:
    """The trained network of that type.

    Args:
        model_type: a name or alias of the zoo.
        dataset: what it was trained on; by default 'digits', whose rows install with scikit-learn, and for a network of text its own
            data set where that is at hand.

    Raises:
        NotFoundError: no such type, or none trained on that data set is shipped.
    """
    kind = resolve(model_type)
    chosen = dataset or _usual(kind)
    path = _path(kind, chosen)
    if not path.is_file():
        there = ", ".join(f"{network.model_type} on {network.dataset}" for network in all_shipped())
        raise NotFoundError(f"no {kind.name} trained on '{chosen}' is shipped (there are: {there}); make one with he-nn train")
    return _read(path)


def _usual(kind: ModelType) -> str:
    """The data set of the network that a type's name alone means; digits read as text are for machines without sentences."""
    for name in kind.auto if kind.text else ():
        if _path(kind, name).is_file():
            try:
                _read(_path(kind, name)).load_test()
                return name
            except (NotFoundError, EngineError) as missing:
                logger.warning("%s; taking the %s of digits instead", missing, kind.name)
    return "digits"


def _path(kind: ModelType, dataset: str) -> Path:
    return WEIGHTS / f"{kind.name.lower()}-{dataset}.onnx"


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
        embeddings=record.get("embeddings", ""),
    )
