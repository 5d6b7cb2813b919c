"""Rows that a network's own type can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from he_backend.errors import InputError
from he_backend.graph.model import ValueSpec

_ROWS_AT_ONCE = 4096


def check_fitting(source: Any, spec: ValueSpec) -> None:
    """Raises InputError when rows [rows, ...], given as an array or in slices, hold NaN, infinity or what the input's type cannot hold."""
    if spec.dtype == "bool":
        says = "have numbers other than 0 and 1"
    else:
        says = "have NaN or infinity" if source.dtype.kind == "f" else f"have numbers that {spec.dtype} cannot hold"
    bad = 0
    for start in range(0, len(source), _ROWS_AT_ONCE):
        fits = _fitting(source[start : start + _ROWS_AT_ONCE], np.dtype(spec.dtype))
        bad += int((~fits.reshape(len(fits), -1).all(axis=1)).sum())
    if bad:
        raise InputError(f"input {spec.name}: {bad} of {len(source)} rows {says}; mend or leave out these rows")


def _fitting(part: np.ndarray, wanted: np.dtype[Any]) -> np.ndarray:
    """bool [rows, …]: which numbers are finite, and stay what they are, up to rounding, in the wanted type."""
    if wanted.kind == "b":
        return np.asarray((part == 0) | (part == 1))
    if wanted.kind == "f":
        with np.errstate(over="ignore"):  # what the type cannot hold becomes infinite
            return np.isfinite(np.asarray(part, dtype=wanted))
    if part.dtype.kind == "b":
        return np.ones(part.shape, bool)
    held, given = np.iinfo(wanted), np.iinfo(part.dtype)
    return np.asarray((part >= max(held.min, given.min)) & (part <= min(held.max, given.max)))
