"""Rows that a network's own type can hold: what is too large for it becomes infinite, and is no row."""

from __future__ import annotations

from typing import Any

import numpy as np

from he_backend.errors import InputError
from he_backend.graph.model import ValueSpec

_ROWS_AT_ONCE = 4096


def check_finite(source: Any, spec: ValueSpec) -> None:
    """Raises InputError when rows [rows, ...], given as an array or in slices, have NaN or infinity once they are of the input's type."""
    if source.dtype.kind != "f" and np.dtype(spec.dtype).kind != "f":
        return
    bad = 0
    for start in range(0, len(source), _ROWS_AT_ONCE):
        with np.errstate(over="ignore"):  # what the type cannot hold becomes infinite, and is counted
            part = np.asarray(source[start : start + _ROWS_AT_ONCE], dtype=spec.dtype)
        bad += int((~np.isfinite(part.reshape(len(part), -1)).all(axis=1)).sum())
    if bad:
        raise InputError(f"input {spec.name}: {bad} of {len(source)} rows have NaN or infinity; mend or leave out these rows")
