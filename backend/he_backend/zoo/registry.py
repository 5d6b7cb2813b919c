"""The model types by name: what builds each one, what its rows look like and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Tuple

import numpy as np

from he_backend.errors import NotFoundError, ParameterError
from he_backend.zoo import alexnet, bert, cnn, mlp, rnn, tokens
from he_backend.zoo.activations import ACTIVATIONS
from he_backend.zoo.dataset import DataSet

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """How a type is trained: Adam with one learning-rate cycle (Smith and Topin, Super-convergence, 2017)."""

    epochs: int
    batch_rows: int
    peak_learning_rate: float
    shift_pixels: int = 0  # each training image is moved by up to so many pixels each way
    weight_decay: float = 0.0
    mirror: bool = False  # half of the training images are mirrored
    decoupled: bool = False  # weight decay apart from the gradient (Loshchilov and Hutter, ICLR 2019)
    hide_tokens: float = 0.0  # share of a training row's tokens that are replaced by [MASK]
    least_places: int = 1  # tokens in fewer places of the training rows share one entry of the table
    half: bool = False  # weights are stored as float16


@dataclass(frozen=True)
class ModelType:
    """One type of the zoo."""

    name: str
    aliases: tuple[str, ...]
    activations: tuple[str, ...]  # that it can be built with; the first unless another is asked for
    input_shape: Callable[[Shape], Shape]  # from the shape of a data set's row to that of one input row
    build: Callable[..., Any]  # shape of a data set's row, classes, activation (and for text the table's entries) -> torch module
    recipes: Mapping[str, Recipe]  # by data set
    auto: tuple[str, ...]  # the data set 'auto' means, where its files are; otherwise digits
    text: bool = False  # rows are token ids
    any_length: bool = False  # a row without its [PAD]s gives the same scores: rows may be cut while fine-tuning

    @property
    def activation(self) -> str:
        """What it is built with unless another is asked for."""
        return self.activations[0]

    def as_input(self, rows: np.ndarray) -> np.ndarray:
        """A data set's rows as the network takes them: [rows, *input_shape]; images become token ids where the network reads those."""
        if self.text:
            return rows if rows.ndim == 2 else tokens.image_tokens(rows)
        return rows.reshape(-1, *self.input_shape(rows.shape[1:]))

    def recipe(self, dataset: str) -> Recipe:
        """How it is trained on that data set; raises ParameterError when it is not made for it."""
        if dataset not in self.recipes:
            raise ParameterError(f"{self.name} cannot be trained on '{dataset}': take one of {', '.join(self.recipes)}")
        return self.recipes[dataset]

    def module(self, data: DataSet, activation: str) -> Any:
        """An untrained torch module for the rows of a data set; raises ParameterError for an activation that it cannot have."""
        if activation not in self.activations:
            raise ParameterError(f"activation '{activation}' is not known to {self.name}: take one of {', '.join(self.activations)}")
        if not self.text:
            return self.build(data.row_shape, data.classes, activation)
        shape = tokens.row_shape(data.row_shape)
        table = tokens.entries(self.as_input(data.train_x), data.ids or tokens.IMAGE_IDS, self.recipe(data.name).least_places)
        return self.build(shape, data.classes, activation, table)


TYPES = (
    ModelType(
        "MLP",
        (),
        ACTIVATIONS,
        mlp.input_shape,
        mlp.build,
        {"digits": Recipe(60, 32, 5e-3, 0, 1e-4), "mnist": Recipe(30, 128, 4e-3, 2)},
        ("mnist",),
    ),
    ModelType(
        "CNN",
        ("Cryptonets",),
        tuple(reversed(ACTIVATIONS)),
        cnn.input_shape,
        cnn.build,
        {"digits": Recipe(60, 32, 5e-3, 0, 1e-4), "mnist": Recipe(30, 128, 4e-3, 1)},
        ("mnist",),
    ),
    ModelType(
        "AlexNet",
        (),
        ACTIVATIONS,
        alexnet.input_shape,
        alexnet.build,
        {
            "digits": Recipe(40, 32, 3e-3, 0, 1e-4, half=True),
            "mnist": Recipe(8, 128, 4e-3, 2, half=True),
            "cifar10": Recipe(8, 64, 3e-3, 2, 1e-4, mirror=True, half=True),
        },
        ("mnist",),
    ),
    ModelType(
        "RNN",
        (),
        ("tanh",),
        tokens.row_shape,
        rnn.build,
        {
            "digits": Recipe(40, 32, 1e-2, weight_decay=0.01, decoupled=True, half=True),
            "trec": Recipe(6, 32, 5e-3, weight_decay=0.05, decoupled=True, hide_tokens=0.1, least_places=2, half=True),
            "sst2": Recipe(3, 64, 4e-3, weight_decay=0.05, decoupled=True, hide_tokens=0.2, least_places=10, half=True),
        },
        ("trec",),
        text=True,
    ),
    ModelType(
        "BERT",
        (),
        ("gelu",),
        tokens.row_shape,
        bert.build,
        {
            "digits": Recipe(40, 32, 3e-3, weight_decay=0.01, decoupled=True, half=True),
            "sst2": Recipe(4, 64, 6e-4, weight_decay=0.1, decoupled=True, hide_tokens=0.3, least_places=10, half=True),
        },
        ("sst2",),
        text=True,
        any_length=True,
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
