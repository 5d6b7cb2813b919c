"""The model types by name: what builds each one, what its rows look like and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Tuple

import numpy as np

from he_backend.errors import NotFoundError
from he_backend.zoo import cnn, mlp

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """How a type is trained: Adam with one learning-rate cycle (Smith and Topin, Super-convergence, 2017)."""

    epochs: int
    batch_rows: int
    peak_learning_rate: float
    shift_pixels: int  # each training image is moved by up to so many pixels each way
    weight_decay: float = 0.0


@dataclass(frozen=True)
class ModelType:
    """One type of the zoo."""

    name: str
    aliases: tuple[str, ...]
    activation: str  # what it is built with unless another is asked for
    input_shape: Callable[[Shape], Shape]  # from an image's shape to the shape of one input row
    build: Callable[[Shape, int, str], Any]  # image shape, classes, activation -> torch module
    recipes: Mapping[str, Recipe]  # by data set

    def as_input(self, images: np.ndarray) -> np.ndarray:
        """Images [rows, channels, height, width] as the network takes them: [rows, *input_shape]."""
        return images.reshape(-1, *self.input_shape(images.shape[1:]))


TYPES = (
    ModelType(
        "MLP",
        (),
        "relu",
        mlp.input_shape,
        mlp.build,
        {"digits": Recipe(60, 32, 5e-3, 0, 1e-4), "mnist": Recipe(30, 128, 4e-3, 2)},
    ),
    ModelType(
        "CNN",
        ("Cryptonets",),
        "square",
        cnn.input_shape,
        cnn.build,
        {"digits": Recipe(60, 32, 5e-3, 0, 1e-4), "mnist": Recipe(30, 128, 4e-3, 1)},
    ),
)


def model_types() -> tuple[ModelType, ...]:
    """Every type of the zoo."""
    return TYPES


def resolve(name: str) -> ModelType:
    """The type with that name or alias; capitals do not matter.

    Raises:
        NotFoundError: no type has that name; the message lists those there are.
    """
    for model_type in TYPES:
        if name.lower() in (known.lower() for known in (model_type.name, *model_type.aliases)):
            return model_type
    known = ", ".join(f"{t.name} ({', '.join(t.aliases)})" if t.aliases else t.name for t in TYPES)
    raise NotFoundError(f"model type '{name}' is not in the zoo: it has {known}")
