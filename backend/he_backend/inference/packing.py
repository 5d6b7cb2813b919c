"""Packing: where the values of a round's rows lie in polynomials.

Batch: a polynomial holds one tensor element of many rows, so a ciphertext tensor is the transpose of the rows. Product: a column holds one
row, its elements where the round's layout says.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from he_backend.errors import InputError
from he_backend.inference.boxes import Box, expand


def pack_batch(values: Sequence[np.ndarray], constant: float) -> np.ndarray:
    """[elements, rows] of tensors [rows, ...], one after the other; then the constant's row, unless it is 0.

    float32 where all tensors are, else float64. The array lies row by row in memory: it is the transpose of [rows, elements].
    """
    rows = len(values[0])
    flat = [np.asarray(value).reshape(rows, -1) for value in values]
    kind = np.float32 if all(part.dtype == np.float32 for part in flat) else np.float64
    if len(flat) == 1 and not constant:
        return np.ascontiguousarray(flat[0], dtype=kind).T
    sizes = [part.shape[1] for part in flat]
    packed = np.empty((rows, sum(sizes) + (1 if constant else 0)), dtype=kind)
    start = 0
    for part, size in zip(flat, sizes):
        packed[:, start : start + size] = part
        start += size
    packed[:, start:] = constant
    return packed.T


def unpack_batch(packed: np.ndarray, shapes: Sequence[tuple[int, ...]], scales: Sequence[Sequence[tuple[int, float]]]) -> list[np.ndarray]:
    """The tensors float32 [rows, *shape] in packed [elements, rows], each element divided by its scale (runs of equal ones)."""
    out, start = [], 0
    for shape, scale in zip(shapes, scales):
        size = int(np.prod(shape, dtype=np.int64))
        factors = np.repeat([1.0 / one for _, one in scale], [count for count, _ in scale])
        part = np.multiply(packed[start : start + size].T, factors, dtype=np.float64).astype(np.float32)
        out.append(part.reshape((-1, *shape)))
        start += size
    if start != len(packed):
        raise InputError(f"{len(packed)} elements came back where the plan has {start}")
    return out


class ProductPacker:
    """Puts rows into the coefficients of polynomials of one degree, and takes answers out of them."""

    def __init__(self, degree: int, in_count: int, width: int, sources: Sequence[Box], targets: Sequence[Box]) -> None:
        self._degree, self._in_count, self._width = degree, in_count, width
        elements, places = expand(sources)
        order = np.argsort(places)
        self._elements, self._places = elements[order], places[order]
        elements, places = expand(targets)
        self._answers = places[np.argsort(elements)]

    def pack(self, values: Sequence[np.ndarray], constant: float) -> np.ndarray:
        """float64 [in_count, rows * N]: row r of the tensors [rows, ...], and the constant, in r * N to (r + 1) * N; zeros elsewhere."""
        flat = pack_batch(values, constant).T  # [rows, elements]
        rows = len(flat)
        out = np.zeros((self._in_count, rows, self._degree))
        out[self._places // self._degree, :, self._places % self._degree] = flat[:, self._elements].T
        return out.reshape(self._in_count, -1)

    def unpack(
        self, packed: np.ndarray, shapes: Sequence[tuple[int, ...]], scales: Sequence[Sequence[tuple[int, float]]]
    ) -> list[np.ndarray]:
        """The tensors float32 [rows, *shape] in packed [out_count, rows * width], each element divided by its scale (runs of equals)."""
        blocks = packed.reshape(len(packed), -1, self._width)
        return unpack_batch(blocks[self._answers // self._degree, :, self._answers % self._degree], shapes, scales)
