"""How good a network's outputs are, told by labels and by its card."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from he_backend.errors import InputError
from he_backend.graph.card import Card

NO_CARD = Card()


class Score(NamedTuple):
    """How many labels were right."""

    correct: int
    labels: int

    @property
    def accuracy(self) -> float:
        """0 to 1."""
        return self.correct / self.labels


def score_of(outputs: np.ndarray, labels: Any, card: Card = NO_CARD) -> Score:
    """How many labels [...] are those that outputs [..., classes] stand for by the card.

    Labels are numbers or words, as in the card; numbers where there is none. Raises InputError for a regression, and for labels that do not
    belong to the outputs.
    """
    predicted = card.labels_of(outputs)
    if predicted is None:
        raise InputError(
            f"the model gives {outputs.shape[1:]} values a row and is a regression; accuracy needs one for each of two classes or more, "
            "last axis, or a card that says binary"
        )
    due = np.asarray(labels)
    if due.ndim == 2 and due.shape[1] == 1 and predicted.ndim == 1:
        due = due.reshape(-1)
    if due.shape != predicted.shape or not _comparable(due):
        raise InputError(
            f"the labels are {due.dtype} of shape {due.shape}, the model's scores ask for whole numbers"
            f"{' or words' if card.classes else ''} of shape {predicted.shape}"
        )
    return Score(int(_equal(predicted, due).sum()), int(due.size))


def quality(outputs: np.ndarray, labels: Any, card: Card = NO_CARD) -> dict[str, float]:
    """How good outputs are: {"test_acc"} of a classifier; of a regression {"rmse", "r2"} (root mean squared error, variance explained).

    Raises InputError as score_of does, and for a regression's labels that are no numbers.
    """
    if card.task_of(outputs) != "regression":
        return {"test_acc": score_of(outputs, labels, card).accuracy}
    try:
        due = np.asarray(labels, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise InputError("the labels are words, and the model's prediction is a number; leave the label column out") from None
    got = np.asarray(outputs, np.float64).reshape(-1)
    if got.shape != due.shape:
        raise InputError(f"there are {due.size} labels and {got.size} predicted values")
    squared = float(((got - due) ** 2).mean())
    spread = float(due.var())
    return {"rmse": squared**0.5, **({"r2": 1.0 - squared / spread} if spread > 0 else {})}


def _equal(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where they are equal; tables give numbers as words, too."""
    if predicted.dtype.kind in "iub":
        try:
            return np.asarray(labels.astype(np.float64) == predicted)
        except (TypeError, ValueError):  # words, and a model that numbers its classes
            pass
    return np.asarray(labels.astype(str) == predicted.astype(str))


def _comparable(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "iubUSO" or (labels.dtype.kind == "f" and bool((labels == np.rint(labels)).all()))
