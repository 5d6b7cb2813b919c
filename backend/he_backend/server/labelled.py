"""Rows of a model's test set and how many of them a network gets right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from he_backend.errors import InputError


class Batch(NamedTuple):
    """Consecutive rows of a test set."""

    start_row: int
    x: np.ndarray  # [rows, ...]
    y: np.ndarray  # [rows] or, where a row has several labels, [rows, ...]


class Score(NamedTuple):
    """How many labels were right."""

    correct: int
    labels: int

    @property
    def accuracy(self) -> float:
        """0 to 1."""
        return self.correct / self.labels


def batch_of(x: np.ndarray, y: np.ndarray, start_batch: int, batch_size: int) -> Batch:
    """`batch_size` rows from row start_batch · batch_size on; fewer at the end. Raises InputError beyond the end."""
    start = start_batch * batch_size
    if start >= len(x):
        last = (len(x) - 1) // batch_size
        raise InputError(f"start_batch: {start_batch}; the test set has {len(x)} rows, the last batch of {batch_size} is {last}")
    return Batch(start, x[start : start + batch_size], y[start : start + batch_size])


def score_of(scores: np.ndarray, labels: np.ndarray) -> Score:
    """How many labels have the highest score: scores [..., classes], labels [...]. Raises InputError when they do not belong together."""
    if scores.ndim < 2 or scores.shape[-1] < 2:
        raise InputError(f"the model gives {scores.shape[1:]} scores a row; accuracy needs one for each of two classes or more, last axis")
    if labels.dtype.kind not in "iub" or labels.shape != scores.shape[:-1]:
        raise InputError(
            f"the test set has labels {labels.dtype} of shape {labels.shape}, the model's scores ask for whole numbers of shape "
            f"{scores.shape[:-1]}"
        )
    return Score(int((scores.argmax(axis=-1) == labels).sum()), int(labels.size))
