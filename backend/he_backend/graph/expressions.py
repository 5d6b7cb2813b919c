"""Affine expressions while a segment is lowered.

`Diagonal`: every element is a bias plus at most one scaled element of each term (scales, shifts, data movement of what the client sends).
`Mixed`: blocks, as a weighted operator makes them. Both are immutable; operations return new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence, Union

import numpy as np

from he_backend.graph import sparse
from he_backend.graph.affine import Block
from he_backend.graph.templates import Template


@dataclass(frozen=True)
class Term:
    """element i is scale[i] · x_source[index[i]]; index -1 is zero."""

    source: int
    index: np.ndarray  # int64 [elements]
    scale: np.ndarray  # float64 [elements]


@dataclass(frozen=True)
class Diagonal:
    """bias + the sum of the terms."""

    terms: tuple[Term, ...]
    bias: np.ndarray  # float64 [elements]


@dataclass(frozen=True)
class Mixed:
    """bias + the sum of the blocks; scatter numbers the elements of this value."""

    blocks: tuple[Block, ...]
    bias: np.ndarray  # float64 [elements]


Expression = Union[Diagonal, Mixed]


def leaf(source: int, size: int) -> Diagonal:
    """A segment input as it is."""
    return Diagonal((Term(source, np.arange(size, dtype=np.int64), np.ones(size)),), np.zeros(size))


def constant(values: np.ndarray) -> Diagonal:
    """A model constant."""
    return Diagonal((), values.astype(np.float64).ravel())


def _picked(values: np.ndarray, index: np.ndarray, missing: float) -> np.ndarray:
    if not len(values):
        return np.full(len(index), missing, values.dtype)
    return np.where(index >= 0, values[np.maximum(index, 0)], missing).astype(values.dtype)


def moved(value: Expression, index: np.ndarray, in_sizes: Sequence[int]) -> Expression:
    """The value whose element i is element index[i] (0 where that is -1). A Mixed value must not be repeated."""
    bias = _picked(value.bias, index, 0.0)
    if isinstance(value, Diagonal):
        terms = tuple(Term(t.source, _picked(t.index, index, -1), _picked(t.scale, index, 0.0)) for t in value.terms)
        return Diagonal(terms, bias)
    target = np.full(len(value.bias), -1, np.int64)
    present = np.flatnonzero(index >= 0)
    target[index[present]] = present
    assert np.array_equal(target[index[present]], present), "a weighted result is repeated by the client, not by the server"
    blocks: list[Block] = []
    for block in value.blocks:
        blocks += _rescattered(block, target[block.scatter], len(index), in_sizes)
    return Mixed(tuple(blocks), bias)


def _rescattered(block: Block, scatter: np.ndarray, size: int, in_sizes: Sequence[int]) -> list[Block]:
    """The block with its results at new places; -1 drops one."""
    kept = np.asarray(scatter >= 0)
    if kept.all():
        return [replace(block, scatter=scatter.astype(np.int32))]
    groups = kept.any(axis=(1, 2))
    if not groups.any():
        return []
    positions = kept[groups].any(axis=(0, 2))
    columns = np.asarray(kept[groups][:, positions].any(axis=1))  # [G, M]
    count = int(columns[0].sum())
    if np.all(columns.sum(axis=1) == count):
        order = np.argsort(~columns, axis=1, kind="stable")[:, :count]
        cut = np.take_along_axis(scatter[groups][:, positions], order[:, None, :], axis=2)
        if np.all(cut >= 0):
            weights = np.take_along_axis(block.weights[groups], order[:, None, :], axis=2)
            return [Block(block.source, block.gather[groups][:, positions], weights, cut.astype(np.int32))]
    matrix = sparse.matrix_of([replace(block, scatter=np.where(kept, scatter, size).astype(np.int32))], size + 1, in_sizes[block.source])
    return sparse.blocks_of(matrix[:size], block.source)


def scaled(value: Expression, factor: np.ndarray) -> Expression:
    """The value times factor [elements], element by element."""
    factor = np.asarray(factor, np.float64).ravel()
    bias = value.bias * factor
    if isinstance(value, Diagonal):
        return Diagonal(tuple(replace(t, scale=t.scale * factor) for t in value.terms), bias)
    return Mixed(tuple(_scaled_block(block, factor) for block in value.blocks), bias)


def _scaled_block(block: Block, factor: np.ndarray) -> Block:
    each = factor[block.scatter]  # [G, P, M]
    if np.all(each == each[:, :1]):
        return replace(block, weights=block.weights * each[:, 0][:, None, :])
    # Positions no longer share their weights: every position becomes a group of its own.
    groups, positions, depth = block.gather.shape
    width = block.weights.shape[2]
    sparse.check_size(groups * positions * depth * width, "a scale that differs from position to position")
    weights = block.weights[:, None] * each[:, :, None, :]
    return Block(
        block.source,
        block.gather.reshape(groups * positions, 1, depth),
        weights.reshape(groups * positions, depth, width),
        block.scatter.reshape(groups * positions, 1, width),
    )


def shifted(value: Expression, shift: np.ndarray) -> Expression:
    """The value plus shift [elements]."""
    return replace(value, bias=value.bias + np.asarray(shift, np.float64).ravel())


def added(values: Sequence[Expression]) -> Expression:
    """The sum of values of equal size."""
    bias = np.sum([value.bias for value in values], axis=0)
    if all(isinstance(value, Diagonal) for value in values):
        return Diagonal(tuple(term for value in values if isinstance(value, Diagonal) for term in value.terms), bias)
    return Mixed(tuple(block for value in values for block in as_blocks(value)), bias)


def applied(template: Template, value: Expression, in_sizes: Sequence[int]) -> Mixed:
    """The operator's template applied to a value instead of to a segment input."""
    bias = template.bias.copy()
    if np.any(value.bias):
        for block in template.blocks:
            padded = np.append(value.bias, 0.0)
            np.add.at(bias, block.scatter, np.matmul(padded[block.gather], block.weights))
    if isinstance(value, Diagonal):
        blocks = [made for term in value.terms for block in template.blocks for made in _through(block, term)]
    else:
        blocks = sparse.compose(template.blocks, value.blocks, len(value.bias), len(bias), in_sizes)
    return Mixed(tuple(blocks), bias)


def _through(block: Block, term: Term) -> list[Block]:
    """The block reading through one diagonal term: other elements, and the term's scales folded into the weights."""
    if np.all(term.scale == 1.0) and np.array_equal(term.index, np.arange(len(term.index))):
        return [replace(block, source=term.source)]
    gather = np.where(block.gather >= 0, _lookup(term.index, block.gather), -1)
    scale = np.where(gather >= 0, _lookup(term.scale, block.gather), 0.0)
    live = gather >= 0
    positions = live.any(axis=(0, 2))
    columns = live.any(axis=1)  # [G, K]
    if not positions.any():
        return []
    width = int(columns.sum(axis=1).max())
    order = np.argsort(~columns, axis=1, kind="stable")[:, :width]
    if width < block.gather.shape[2] or not positions.all():  # concatenation: this term feeds some channels or positions only
        gather = np.take_along_axis(gather[:, positions], order[:, None, :], axis=2)
        scale = np.take_along_axis(scale[:, positions], order[:, None, :], axis=2)
        weights = np.take_along_axis(block.weights, order[:, :, None], axis=1)
        block = Block(block.source, gather.astype(np.int32), weights, block.scatter[:, positions])
        live = gather >= 0
    largest = np.where(live, scale, -np.inf).max(axis=1)
    smallest = np.where(live, scale, np.inf).min(axis=1)
    plain = np.where(np.isfinite(largest), largest, 1.0)
    if np.all((largest == smallest) | ~np.isfinite(largest)):
        return [Block(term.source, gather.astype(np.int32), block.weights * plain[:, :, None], block.scatter)]
    groups, count, depth = gather.shape
    sparse.check_size(groups * count * depth * block.weights.shape[2], "a scale that differs from position to position")
    weights = block.weights[:, None] * np.where(live, scale, 0.0)[..., None]
    return [
        Block(
            term.source,
            gather.reshape(groups * count, 1, depth).astype(np.int32),
            weights.reshape(groups * count, depth, -1),
            block.scatter.reshape(groups * count, 1, -1),
        )
    ]


def _lookup(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return values[np.maximum(index, 0)]


def as_blocks(value: Expression) -> tuple[Block, ...]:
    """The value's blocks; a diagonal term becomes one block per number of elements that share a scale."""
    if isinstance(value, Mixed):
        return value.blocks
    return tuple(block for term in value.terms for block in _diagonal_blocks(term))


def _diagonal_blocks(term: Term) -> list[Block]:
    elements = np.flatnonzero(term.index >= 0)
    if not len(elements):
        return []
    scales, member = np.unique(term.scale[elements], return_inverse=True)
    member = np.asarray(member).ravel()
    shared = np.bincount(member)
    counts = np.unique(shared)
    if len(counts) > _MOST_DIAGONAL_BLOCKS:
        member, shared, counts, scales = np.arange(len(elements)), np.ones(len(elements), int), np.array([1]), term.scale[elements]
    order = np.argsort(member, kind="stable")
    starts = np.concatenate([[0], np.cumsum(shared)[:-1]])
    blocks = []
    for count in counts:
        chosen = np.flatnonzero(shared == count)
        places = elements[order[starts[chosen][:, None] + np.arange(count)[None]]]  # [G, P]
        blocks.append(
            Block(
                term.source,
                term.index[places][..., None].astype(np.int32),
                scales[chosen].reshape(-1, 1, 1).astype(np.float64),
                places[..., None].astype(np.int32),
            )
        )
    return blocks


_MOST_DIAGONAL_BLOCKS = 8
