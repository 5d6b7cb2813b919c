"""Rows of a model's test set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from he_backend.errors import InputError


class Batch(NamedTuple):
    """Consecutive rows of a test set."""

    start_row: int
    x: np.ndarray  # [rows, ...]
    y: np.ndarray  # [rows] or, where a row has several labels, [rows, ...]


def batch_of(x: np.ndarray, y: np.ndarray, start_batch: int, batch_size: int) -> Batch:
    """`batch_size` rows from row start_batch · batch_size on; fewer at the end. Raises InputError beyond the end."""
    start = start_batch * batch_size
    if start >= len(x):
        last = (len(x) - 1) // batch_size
        raise InputError(f"start_batch: {start_batch}; the test set has {len(x)} rows, the last batch of {batch_size} is {last}")
    return Batch(start, x[start : start + batch_size], y[start : start + batch_size])
