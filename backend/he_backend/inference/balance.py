"""Columns of a round's matrix brought nearer to one size, so that inputs of very different size share one scale without loss.

A network that standardises its columns itself has weights of 1/size for an input of that size. Encryption errs alike in all elements, so
what a small element loses, its large weight makes large. The client multiplies each element by a factor, of at most 1, and the weights
that meet it are divided by the same: the product stays, and the errors meet weights of about one size.

Sizes of inputs are the data owner's and never travel; factors are made from the weights alone, and are powers of two, so exact. Where
inputs are of one size after all, larger weights for small columns only add noise: they are raised no further than _COST allows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from he_backend.graph.affine import AffineMap, Block

_COST = 1.2  # times the noise's variance if all inputs were of one size: 0.13 bits
_SPREAD = 8.0  # largest over smallest column from which it is looked at
_LEAST = 0.25  # of a factor that is worth a pass over the data
_SMALLEST = 2.0**-100  # of a factor, which float32 holds


def balance(affine: AffineMap) -> tuple[AffineMap, tuple[np.ndarray, ...]]:
    """The map of the inputs times their factors, and float64 [in_size] factors of each input; the map itself and () for like columns."""
    sizes = _column_sizes(affine)
    if sizes is None or not sizes.any():  # what weights read may be padding alone
        return affine, ()
    factors = _factors(sizes)
    if factors[sizes > 0.0].min() > _LEAST:
        return affine, ()
    starts = np.cumsum((0, *affine.in_sizes))
    blocks = tuple(_divided(block, factors[starts[block.source] : starts[block.source + 1]]) for block in affine.blocks)
    return replace(affine, blocks=blocks), tuple(factors[a:b] for a, b in zip(starts[:-1], starts[1:]))


def _column_sizes(affine: AffineMap) -> np.ndarray | None:
    """float64 [inputs]: L2 norms of the columns, the largest of those that share weights; None where they are plainly alike."""
    norms = [np.sqrt((block.weights**2).sum(axis=2)) for block in affine.blocks]  # [groups, terms]
    every = np.concatenate([norm.ravel() for norm in norms]) if norms else np.zeros(0)
    every = every[every > 0.0]
    if not len(every) or every.max() < _SPREAD * every.min():
        return None
    # As the weights of a kernel serve many positions, all elements that meet one of them have one factor. Index -1, padding, is the last.
    sizes = [np.zeros(size + 1) for size in affine.in_sizes]
    for block, norm in zip(affine.blocks, norms):
        _raise(sizes[block.source], block, norm)
    changed = True
    while changed:
        changed = False
        for index, block in enumerate(affine.blocks):
            shared = np.maximum(sizes[block.source][block.gather].max(axis=1, initial=0.0), norms[index])
            if (shared > norms[index]).any():
                norms[index], changed = shared, True
                _raise(sizes[block.source], block, shared)
    return np.concatenate([size[:-1] for size in sizes])


def _raise(sizes: np.ndarray, block: Block, norms: np.ndarray) -> None:
    """Raises the size of each element that a block reads to that of the weights that it meets."""
    for group, of_group in zip(block.gather, norms):
        for term, norm in zip(group.T, of_group):
            sizes[term] = np.maximum(sizes[term], norm)  # an element that comes twice gets the same value twice
    sizes[-1] = 0.0


def _factors(sizes: np.ndarray) -> np.ndarray:
    """float64 [inputs], powers of two up to 1; 0 for what no weight meets."""
    used = np.sort(sizes[sizes > 0.0])
    squares = np.concatenate([[0.0], np.cumsum(used**2)])
    # With the k smallest raised to the size of the k-th, the variance is k * used[k-1]^2 + the rest.
    raised = np.arange(1, len(used) + 1) * used**2 + squares[-1] - squares[1:]
    within = int(np.searchsorted(raised, _COST * squares[-1], side="right"))
    smaller = min(max(within, 1), len(used))
    # The floor lies between two columns: where raising `smaller` of them takes all that may be added.
    floor = np.sqrt((_COST * squares[-1] - (squares[-1] - squares[smaller])) / smaller)
    factors = np.zeros(len(sizes))
    some = sizes > 0.0
    factors[some] = np.maximum(_SMALLEST, 2.0 ** np.ceil(np.log2(np.minimum(1.0, sizes[some] / floor))))
    return factors


def _divided(block: Block, factors: np.ndarray) -> Block:
    """The block for inputs times their factors."""
    first = block.gather.max(axis=1)  # [groups, terms]: an element that each weight meets, as all of them have one factor; -1: none
    by = np.where(first >= 0, factors[np.maximum(first, 0)], 1.0)
    return replace(block, weights=np.divide(block.weights, by[:, :, None], out=np.zeros_like(block.weights), where=by[:, :, None] > 0.0))
