"""What of an affine map product packing can use: channels, positions, and where each weight moves a position to.

A map has this structure when out[j, p] = sum over its terms of w[j, k] * x[channel_k, v_p + b_k]: a convolution (v_p the place of an
output, b_k that of a kernel weight, on a grid of positions large enough for the padding), a projection of many tokens (one b), a dense
layer (one position). Any map whose matrix is small is also a dense layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from he_backend.ckks.linear import LinearMap, apply_blocks
from he_backend.graph.affine import AffineMap, Block

MAX_DENSE = 1 << 22  # entries of a matrix that is made of a map without other structure
MAX_GATHERED = 1 << 22  # entries of a gather pattern that is looked through
MAX_PLACED = 1 << 23  # elements whose places are worked out


@dataclass(frozen=True)
class Structure:
    """One structured map with J = groups * outs output channels and P output positions."""

    positions: int  # S: all v, b and v + b are in [0, S)
    channels: int
    column_channel: np.ndarray  # int64 [groups, terms]; -1: reads padding only
    shift: np.ndarray  # int64 [groups, terms]: b
    place: np.ndarray  # int64 [P]: v
    elements: np.ndarray  # int64: input elements that are read
    element_channel: np.ndarray  # int64, of these
    element_position: np.ndarray  # int64, of these
    scatter: np.ndarray  # int64 [J, P]: output elements
    blocks: tuple[int, ...]  # of the map, side by side; empty: the map's matrix
    bias: bool
    uniform_bias: bool  # the same at all positions of an output channel

    @property
    def out_channels(self) -> int:
        """J."""
        return len(self.scatter)

    def weights(self, linear: LinearMap, values: int) -> np.ndarray:
        """int64 [groups, terms, outs] of an integer map made of the same affine map, which has `values` elements besides the constant."""
        if self.blocks:
            return np.concatenate([linear.blocks[b].weights for b in self.blocks], axis=2).astype(np.int64)
        plain = LinearMap(linear.in_count, linear.out_count, tuple(b for b in linear.blocks if not _is_bias(b.gather, values)))
        return _matrix(plain, self.elements)[None]

    def squares(self, affine: AffineMap, row_scales: np.ndarray, constant: float) -> np.ndarray:
        """float64 [J]: the squared L2 norms of each output channel's weights, times its row_scales; biases are divided by the constant."""
        if self.blocks:
            whole = np.concatenate([_used(affine)[b].weights for b in self.blocks], axis=2)
            own = (np.where(self.column_channel[:, :, None] >= 0, whole, 0.0) ** 2).sum(axis=1).reshape(-1)
        else:
            own = np.zeros(self.out_channels)
            for block in affine.blocks:
                used = (block.gather >= 0).astype(np.float64)
                np.add.at(own, block.scatter.ravel(), np.matmul(used, block.weights**2).ravel())
        scales = row_scales[self.scatter[:, 0]] ** 2
        biases = (affine.bias[self.scatter] / (constant or 1.0)) ** 2
        result: np.ndarray = (own + (biases.max(axis=1) if self.uniform_bias else biases.sum(axis=1))) * scales
        return result


def find_structure(affine: AffineMap, in_shapes: Sequence[tuple[int, ...]]) -> Structure | None:
    """The structure of a map over inputs of these shapes per row, or None when it has none that is known and its matrix is large."""
    blocks = _used(affine)
    placed = sum(affine.in_sizes) + sum(affine.out_sizes)
    if not blocks or placed > MAX_PLACED:
        return None
    found = _common(affine, in_shapes)
    if found is None and sum(affine.in_sizes) * sum(affine.out_sizes) <= MAX_DENSE:
        found = _dense(affine)
    return found


def _used(affine: AffineMap) -> list[Block]:
    """The blocks that quantisation keeps, in its order."""
    return [block for block in affine.blocks if block.gather.size and block.scatter.size]


def _is_bias(gather: np.ndarray, values: int) -> bool:
    return gather.size == 1 and int(gather.ravel()[0]) == values


def _common(affine: AffineMap, in_shapes: Sequence[tuple[int, ...]]) -> Structure | None:
    """All blocks side by side, if they read the same elements in the same way and every output element is written once."""
    blocks = _used(affine)
    first = blocks[0]
    groups, places, terms = first.gather.shape
    shape = in_shapes[first.source]
    if any(
        b.source != first.source or b.gather.shape != first.gather.shape or not np.array_equal(b.gather, first.gather) for b in blocks[1:]
    ):
        return None
    scatter = np.concatenate([b.scatter for b in blocks], axis=2)  # [G, P, M]
    if scatter.size != sum(affine.out_sizes) or np.bincount(scatter.ravel(), minlength=scatter.size).max() > 1:
        return None
    steps = _group_steps(first.gather, shape) if places > 1 else None
    pattern = first.gather[0] if steps is not None else first.gather.transpose(1, 0, 2).reshape(places, groups * terms)
    if pattern.size > MAX_GATHERED:
        return None
    found = _positions(pattern, shape)
    if found is None:
        return None
    start = sum(affine.in_sizes[: first.source])
    elements, at = np.unique(pattern, return_index=True)
    elements, at = (elements[1:], at[1:]) if elements[0] < 0 else (elements, at)
    element_channel, element_position = found.column_channel[at % pattern.shape[1]], found.position.reshape(-1)[at]
    column_channel, shift = found.column_channel, found.shift
    if steps is not None:  # the other groups do the same with channels further on
        ahead = np.arange(groups) * found.phases * steps
        column_channel = np.where(column_channel >= 0, column_channel + ahead[:, None], -1).reshape(-1)
        shift = np.tile(shift, groups)
        elements = (elements.astype(np.int64) + np.arange(groups)[:, None] * steps * _after(shape, 0)).reshape(-1)
        element_channel, element_position = (element_channel + ahead[:, None]).reshape(-1), np.tile(element_position, groups)
    rows = scatter.transpose(0, 2, 1).reshape(-1, places).astype(np.int64)
    ids, numbered = np.unique(np.append(column_channel, element_channel), return_inverse=True)
    padding = 1 if ids[0] < 0 else 0
    numbered = numbered.reshape(-1) - padding
    order = np.lexsort((element_position, numbered[groups * terms :]))
    return Structure(
        int(found.place.max() + shift.max()) + 1,
        len(ids) - padding,
        numbered[: groups * terms].reshape(groups, terms),
        shift.reshape(groups, terms),
        found.place,
        elements.astype(np.int64)[order] + start,
        numbered[groups * terms :][order],
        element_position[order],
        rows,
        tuple(range(len(blocks))),
        bool(affine.bias.any()),
        bool((affine.bias[rows] == affine.bias[rows[:, :1]]).all()),
    )


def _group_steps(gather: np.ndarray, shape: tuple[int, ...]) -> int | None:
    """By how many channels (along the first axis) each group reads further on than the one before it, if that is all they differ by."""
    groups = len(gather)
    if groups == 1 or len(shape) < 2:
        return None
    read = gather[0] >= 0
    if not read.any():
        return None
    one = gather[:, read]
    ahead = int(one[1, 0]) - int(one[0, 0])
    channel = one[0].astype(np.int64) // _after(shape, 0)
    if ahead <= int(channel.max() - channel.min()) * _after(shape, 0) or ahead % _after(shape, 0):
        return None  # groups that share channels are looked at whole
    moved = one[:1] + np.arange(groups, dtype=one.dtype)[:, None] * one.dtype.type(ahead)
    same = (gather[:, ~read] < 0).all() and np.array_equal(one, moved)
    return ahead // _after(shape, 0) if same else None


@dataclass(frozen=True)
class _Positions:
    """Of a gather pattern [P, columns] over a tensor: what its rows and columns stand for."""

    column_channel: np.ndarray  # int64 [columns]: channel * phases + phase; -1: reads padding only
    shift: np.ndarray  # int64 [columns]
    place: np.ndarray  # int64 [P]
    position: np.ndarray  # int64 [P, columns]
    phases: int


def _positions(pattern: np.ndarray, shape: tuple[int, ...]) -> _Positions | None:
    """A strided map is one without strides over more channels: those of each phase (position modulo stride) are apart."""
    if len(pattern) == 1:
        channel = pattern.astype(np.int64)
        nothing = np.zeros(channel.shape, np.int64)
        return _Positions(channel[0], nothing[0], np.zeros(1, np.int64), nothing, 1)
    for axis in dict.fromkeys((0, len(shape) - 1)) if len(shape) > 1 else ():
        channel = np.where(pattern >= 0, _coordinate(pattern, shape, axis), -1)
        column_channel = channel.max(axis=0)
        if not ((channel == column_channel) | (channel < 0)).all():
            continue
        rest = [d for d in range(len(shape)) if d != axis]
        sums = [_potentials(pattern, _coordinate(pattern, shape, d)) for d in rest]
        if any(found is None for found in sums):
            continue
        place, shift = np.zeros(len(pattern), np.int64), np.zeros(pattern.shape[1], np.int64)
        phase, phases = np.zeros(pattern.shape[1], np.int64), 1
        outside = np.zeros(pattern.shape, bool)
        for d, found in zip(rest, sums):
            assert found is not None
            of_row, of_column = found
            total = of_row[:, None] + of_column
            outside |= (total < 0) | (total >= shape[d])
            of_row, of_column = of_row - of_row.min(), of_column - of_column.min()
            stride = int(np.gcd.reduce(of_row)) or 1
            extent = int(of_row.max() // stride + of_column.max() // stride) + 1
            place = place * extent + of_row // stride
            shift = shift * extent + of_column // stride
            phase, phases = phase * stride + of_column % stride, phases * stride
        used = column_channel >= 0
        if not np.array_equal(outside[:, used], pattern[:, used] < 0):
            continue  # a hole that is not padding
        shift = np.where(used, shift, 0)
        return _Positions(np.where(used, column_channel * phases + phase, -1), shift, place, place[:, None] + shift, phases)
    return None


def _after(shape: tuple[int, ...], axis: int) -> int:
    """Elements from one index along an axis to the next."""
    return int(np.prod(shape[axis + 1 :], dtype=np.int64))


def _coordinate(pattern: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    result: np.ndarray = pattern.astype(np.int64) // _after(shape, axis) % shape[axis]
    return result


def _potentials(pattern: np.ndarray, coordinate: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """r, c with coordinate[i, j] = r[i] + c[j] wherever pattern reads an element, or None; columns that read none get some c."""
    valid = pattern >= 0
    columns_used = valid.any(axis=0)
    row, column = np.zeros(len(pattern), np.int64), np.zeros(pattern.shape[1], np.int64)
    row_known, column_known = np.zeros(len(pattern), bool), ~columns_used
    start = int(valid.sum(axis=1).argmax())
    row_known[start] = True
    while True:
        fresh = ~column_known & (valid & row_known[:, None]).any(axis=0)
        at = (valid & row_known[:, None])[:, fresh].argmax(axis=0)
        column[fresh] = coordinate[at, np.flatnonzero(fresh)] - row[at]
        column_known |= fresh
        reached = valid & (column_known & columns_used)
        more = ~row_known & reached.any(axis=1)
        by = reached[more].argmax(axis=1)
        row[more] = coordinate[np.flatnonzero(more), by] - column[by]
        row_known |= more
        if not fresh.any() and not more.any():
            break
    if not (row_known.all() and column_known.all()) or not columns_used.any():
        return None
    column[~columns_used] = column[np.flatnonzero(columns_used)[0]]
    return (row, column) if (row[:, None] + column == coordinate)[valid].all() else None


def _dense(affine: AffineMap) -> Structure:
    """The map as one matrix."""
    starts = np.cumsum((0, *affine.in_sizes))
    read = [np.unique(b.gather[b.gather >= 0]).astype(np.int64) + starts[b.source] for b in _used(affine)]
    elements = np.unique(np.concatenate(read))
    count, outs = len(elements), sum(affine.out_sizes)
    zeros = np.zeros(count, np.int64)
    return Structure(
        1,
        count,
        np.arange(count, dtype=np.int64)[None],
        zeros[None],
        np.zeros(1, np.int64),
        elements,
        np.arange(count, dtype=np.int64),
        zeros,
        np.arange(outs, dtype=np.int64)[:, None],
        (),
        bool(affine.bias.any()),
        True,
    )


def _matrix(linear: LinearMap, elements: np.ndarray) -> np.ndarray:
    """int64 [elements, out_count]."""
    step = max(1, MAX_DENSE // max(1, linear.in_count))
    parts = []
    for start in range(0, len(elements), step):
        some = elements[start : start + step]
        unit = np.zeros((linear.in_count, len(some)))
        unit[some, np.arange(len(some))] = 1.0
        parts.append(np.rint(apply_blocks(linear, unit)).astype(np.int64).T)
    return np.concatenate(parts) if parts else np.zeros((0, linear.out_count), np.int64)


def linear_bias(linear: LinearMap, values: int) -> np.ndarray:
    """int64 [out_count]: the weights on the constant, element `values`."""
    out = np.zeros(linear.out_count, np.int64)
    for block in linear.blocks:
        if block.gather.size == 1 and int(block.gather.ravel()[0]) == values:
            np.add.at(out, block.scatter.reshape(-1), block.weights.reshape(-1).astype(np.int64))
    return out
