"""Batch packing: a polynomial holds one tensor element of many rows, so a ciphertext tensor is the transpose of the rows."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from he_backend.errors import InputError


def pack_batch(values: Sequence[np.ndarray], constant: float) -> np.ndarray:
    """float64 [elements, rows] of tensors [rows, ...], one after the other; then the constant's row, unless it is 0."""
    rows = len(values[0])
    flat = [np.asarray(value, dtype=np.float64).reshape(rows, -1).T for value in values]
    if constant:
        flat.append(np.full((1, rows), constant))
    return np.ascontiguousarray(np.concatenate(flat))


def unpack_batch(packed: np.ndarray, shapes: Sequence[tuple[int, ...]], scales: Sequence[float]) -> list[np.ndarray]:
    """The tensors [rows, *shape] in packed [elements, rows], each divided by its scale."""
    out, start = [], 0
    for shape, scale in zip(shapes, scales):
        size = int(np.prod(shape, dtype=np.int64))
        part = packed[start : start + size].T / scale
        out.append(np.ascontiguousarray(part).reshape((-1, *tuple(shape))))
        start += size
    if start != len(packed):
        raise InputError(f"{len(packed)} elements came back where the plan has {start}")
    return out
