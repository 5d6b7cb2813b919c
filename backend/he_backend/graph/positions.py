"""Two maps with shared weights become one with shared weights, where the outer one works position by position."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from he_backend.graph.affine import Block


def compose(outer: Sequence[Block], inner: Sequence[Block], middle: int) -> list[Block] | None:
    """outer ∘ inner as blocks; None when positions do not match, so that elements have to be composed one by one.

    They match when each position of an outer block reads results of one position of each inner block, the same columns everywhere: a 1×1
    convolution after a convolution, a layer after a layer on the same tokens. `middle` is the number of elements between.
    """
    made = []
    for second in outer:
        for first in inner:
            pair = _pair(second, first, middle)
            if pair is None:
                return None
            made.append(pair)
    return made


def _pair(second: Block, first: Block, middle: int) -> Block | None:
    if len(second.gather) != 1 or len(first.gather) != 1 or np.any(second.gather < 0):
        return None
    written = first.scatter[0]  # [positions, columns]
    if len(np.unique(written)) != written.size:
        return None
    position, column = np.full(middle, -1, np.int64), np.full(middle, -1, np.int64)
    position[written] = np.arange(len(written))[:, None]
    column[written] = np.arange(written.shape[1])[None]
    places, columns = position[second.gather[0]], column[second.gather[0]]
    if np.any(places < 0) or np.any(places != places[:, :1]) or np.any(columns != columns[:1]):
        return None
    weights = first.weights[0][:, columns[0]] @ second.weights[0]
    return Block(first.source, first.gather[:, places[:, 0]], weights[None], second.scatter)
