"""Packing: where the values of a round's rows lie in polynomials.

Batch: a polynomial holds one tensor element of many rows, so a ciphertext tensor is the transpose of the rows. Product: a column holds one
row, its elements where the round's layout says. Grid: a polynomial holds the positions of one channel.
"""

from __future__ import annotations

from typing import Sequence, Tuple, Union

import numpy as np

from he_backend.errors import InputError, ProtocolError
from he_backend.inference.boxes import copy_boxes, expand
from he_backend.inference.grid import GridLayout
from he_backend.inference.product import ProductLayout
from he_backend.inference.selection import Selection

# Scales of a value's elements in order, as (how many, scale): a convolution has one for each channel.
ScaleRuns = Tuple[Tuple[int, float], ...]


# One for all rows, or one for each; 0: there is none.
Constant = Union[float, np.ndarray]


def pack_batch(values: Sequence[np.ndarray], constant: Constant) -> np.ndarray:
    """[elements, rows] of tensors [rows, ...], one after the other; then the constant's row, unless it is 0.

    float32 where all tensors are, else float64. The array lies row by row in memory: it is the transpose of [rows, elements].
    """
    rows = len(values[0])
    flat = [np.asarray(value).reshape(rows, -1) for value in values]
    kind = np.float32 if all(part.dtype == np.float32 for part in flat) else np.float64
    has_constant = bool(np.any(constant))
    if len(flat) == 1 and not has_constant:
        return np.ascontiguousarray(flat[0], dtype=kind).T
    sizes = [part.shape[1] for part in flat]
    packed = np.empty((rows, sum(sizes) + (1 if has_constant else 0)), dtype=kind)
    start = 0
    for part, size in zip(flat, sizes):
        packed[:, start : start + size] = part
        start += size
    packed[:, start:] = np.reshape(constant, (-1, 1))
    return packed.T


class BatchPacker:
    """A polynomial for each element; rows side by side in it."""

    by_rows = True  # in which order decrypted values are best written

    def __init__(self, scales: Sequence[ScaleRuns]) -> None:
        self.scales = factors_of(scales)  # of each polynomial of the answer

    def pack(self, values: Sequence[np.ndarray], constant: Constant) -> np.ndarray:
        """[elements, rows] of the tensors [rows, ...], one after the other, and the constant."""
        return pack_batch(values, constant)

    def index(self, rows: int) -> np.ndarray | None:
        """Which coefficients of an answer's bodies are sent (ckks.pick); None: all."""
        return None

    def count(self, rows: int, columns: int, width: int) -> int:
        """Values of an answer's polynomial that are decrypted, over all columns."""
        return rows

    def unpack(self, packed: np.ndarray, rows: int, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """The tensors float32 [rows, *shape] in packed float32 [elements, rows]."""
        return _split(packed.T, shapes)


class ProductPacker:
    """Puts rows into the coefficients of polynomials of one degree, a column for each, and takes answers out of them."""

    by_rows = False

    def __init__(self, layout: ProductLayout, degree: int, scales: Sequence[ScaleRuns]) -> None:
        self._degree, self._in_count, self._computed = degree, layout.in_count, layout.width
        self._selection = Selection(layout, degree)
        self._width = self._selection.width(1, layout.width)
        elements, places = expand(layout.sources)
        order = np.argsort(places)
        self._elements, self._places = elements[order], places[order]
        elements, places = expand(layout.targets)
        places = places[np.argsort(elements)]
        self._polynomial, self._rank = places // degree, self._selection.ranks(places)
        self._inverses = (1.0 / factors_of(scales)).astype(np.float32)
        self.scales = np.ones(layout.out_count)

    def pack(self, values: Sequence[np.ndarray], constant: Constant) -> np.ndarray:
        """[in_count, rows * N]: row r of the tensors [rows, ...], and the constant, in r * N to (r + 1) * N; zeros elsewhere."""
        flat = pack_batch(values, constant).T  # [rows, elements]
        out = np.zeros((self._in_count, len(flat), self._degree), dtype=flat.dtype)
        out[self._places // self._degree, :, self._places % self._degree] = flat[:, self._elements].T
        return out.reshape(self._in_count, -1)

    def index(self, rows: int) -> np.ndarray | None:
        """Which coefficients of an answer's bodies are sent (ckks.pick); None: all."""
        return self._selection.index(rows, self._computed)

    def count(self, rows: int, columns: int, width: int) -> int:
        """A column for each row. Raises ProtocolError for an answer of another width."""
        _check_width(width, self._width)
        return columns * width

    def unpack(self, packed: np.ndarray, rows: int, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """The tensors float32 [rows, *shape] in packed float32 [out_count, rows * kept]."""
        blocks = packed.reshape(len(packed), rows, self._width)
        found = blocks[self._polynomial, :, self._rank]  # [elements, rows]
        return _split(found.T * self._inverses, shapes)


class GridPacker:
    """Lays rows out by channel and position, and cuts the positions into columns."""

    by_rows = False

    def __init__(self, layout: GridLayout, degree: int, scales: Sequence[ScaleRuns]) -> None:
        """Raises ProtocolError if outputs of one channel have different scales."""
        self._layout, self._degree, self._step = layout, degree, degree - layout.reach
        self._selection = Selection(layout, degree)
        elements, places = expand(layout.targets)
        places = places[np.argsort(elements)]
        factors, channel = factors_of(scales), places // layout.positions
        self.scales = np.ones(layout.out_count)
        self.scales[channel] = factors
        if not np.array_equal(self.scales[channel], factors):
            raise ProtocolError("the plan has outputs of one channel at different scales")
        order = channel * len(self._selection.wanted) + self._selection.ranks(places)
        self._order = None if np.array_equal(order, np.arange(len(order))) else order

    def pack(self, values: Sequence[np.ndarray], constant: Constant) -> np.ndarray:
        """[in_count, columns * width] of the tensors [rows, ...] and the constant; zeros where nothing lies."""
        layout, flat = self._layout, pack_batch(values, constant).T
        rows, columns = len(flat), self._layout.columns(len(flat), self._degree)
        flat = np.ascontiguousarray(flat)
        canvas = np.zeros((rows, layout.in_count * layout.positions), dtype=flat.dtype)
        copy_boxes(layout.sources, flat, canvas)
        line = canvas.reshape(rows, layout.in_count, layout.positions).transpose(1, 0, 2).reshape(layout.in_count, -1)
        if columns == 1:
            return line
        out = np.zeros((layout.in_count, columns, self._degree), dtype=flat.dtype)
        for column in range(columns):
            part = line[:, column * self._step : column * self._step + self._degree]
            out[:, column, : part.shape[1]] = part
        return out.reshape(layout.in_count, -1)

    def index(self, rows: int) -> np.ndarray | None:
        """Which coefficients of an answer's bodies are sent (ckks.pick); None: all."""
        return self._selection.index(self._layout.columns(rows, self._degree), self._layout.width(rows, self._degree))

    def count(self, rows: int, columns: int, width: int) -> int:
        """All columns whole. Raises ProtocolError for an answer of another width."""
        _check_width(width, self._selection.width(columns, self._layout.width(rows, self._degree)))
        return columns * width

    def unpack(self, packed: np.ndarray, rows: int, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """The tensors float32 [rows, *shape] in packed float32 [out_count, columns * kept]."""
        index, wanted = self.index(rows), len(self._selection.wanted)
        if index is not None and (index < 0).any():
            filled = np.broadcast_to(index[:, 0] >= 0, (self._layout.columns(rows, self._degree), index.shape[2])).reshape(-1)
            packed = packed[:, filled]
        by_row = packed[:, : rows * wanted].reshape(len(packed), rows, wanted).transpose(1, 0, 2).reshape(rows, -1)
        return _split(by_row if self._order is None else by_row[:, self._order], shapes)


Packer = Union[BatchPacker, ProductPacker, GridPacker]


def make_packer(layout: ProductLayout | GridLayout | None, degree: int, scales: Sequence[ScaleRuns]) -> Packer:
    """What packs the rows of a round and unpacks its answers; without a layout, batch packing."""
    if layout is None:
        return BatchPacker(scales)
    return GridPacker(layout, degree, scales) if isinstance(layout, GridLayout) else ProductPacker(layout, degree, scales)


def _check_width(came: int, due: int) -> None:
    if came != due:
        raise ProtocolError(f"the answer has {came} coefficients where the plan has {due}")


def factors_of(scales: Sequence[ScaleRuns]) -> np.ndarray:
    """float64 [elements]: runs of (how many, scale) of all outputs, one after the other."""
    runs = [run for one in scales for run in one]
    return np.repeat([scale for _, scale in runs], [count for count, _ in runs])


def _split(flat: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """[rows, elements] as tensors [rows, *shape], float32."""
    ends = np.cumsum([int(np.prod(shape, dtype=np.int64)) for shape in shapes])
    if ends[-1] != flat.shape[1]:
        raise InputError(f"{flat.shape[1]} elements came back where the plan has {ends[-1]}")
    parts = np.split(flat, ends[:-1], axis=1)
    return [np.ascontiguousarray(part, dtype=np.float32).reshape((-1, *shape)) for part, shape in zip(parts, shapes)]
