"""Boxes: which element of a round's values lies in which coefficient, as a few strided pieces that travel in a plan.

Places are numbered through all polynomials: coefficient c of polynomial p is place p * N + c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

MAX_AXES = 6


@dataclass(frozen=True)
class Box:
    """Elements first + sum(i_d * steps[d]) at places place + sum(i_d * strides[d]), for 0 <= i_d < sizes[d]."""

    first: int
    place: int
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    strides: tuple[int, ...]

    def elements(self) -> np.ndarray:
        """int64 [product of sizes]."""
        return _grid(self.first, self.sizes, self.steps)

    def places(self) -> np.ndarray:
        """int64 [product of sizes]."""
        return _grid(self.place, self.sizes, self.strides)


def find_boxes(elements: np.ndarray, places: np.ndarray) -> tuple[Box, ...]:
    """Boxes that together pair elements[i] with places[i], found greedily: runs with constant steps, then runs of equal runs."""
    boxes = [Box(int(e), int(p), (), (), ()) for e, p in zip(elements, places)]
    for _ in range(MAX_AXES):
        joined = _join(boxes)
        if len(joined) == len(boxes):
            break
        boxes = joined
    return tuple(boxes)


def expand(boxes: Sequence[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Elements and places int64 of all boxes, one after the other."""
    if not boxes:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([box.elements() for box in boxes]), np.concatenate([box.places() for box in boxes])


def _join(boxes: Sequence[Box]) -> list[Box]:
    """One more axis: maximal rows of boxes that differ by a constant step and stride. Lone boxes stay as they are."""
    out: list[Box] = []
    start = 0
    while start < len(boxes):
        box, stop = boxes[start], start + 1
        if _alike(boxes, start, stop):
            step, stride = boxes[stop].first - box.first, boxes[stop].place - box.place
            while (
                _alike(boxes, start, stop)
                and boxes[stop].first - boxes[stop - 1].first == step
                and boxes[stop].place - boxes[stop - 1].place == stride
            ):
                stop += 1
            box = Box(box.first, box.place, (stop - start, *box.sizes), (step, *box.steps), (stride, *box.strides))
        out.append(box)
        start = stop
    return out


def _alike(boxes: Sequence[Box], one: int, other: int) -> bool:
    a = boxes[one]
    return other < len(boxes) and (a.sizes, a.steps, a.strides) == (boxes[other].sizes, boxes[other].steps, boxes[other].strides)


def _grid(first: int, sizes: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    out = np.full(1, first, dtype=np.int64)
    for size, step in zip(sizes, steps):
        out = (out[:, None] + np.arange(size, dtype=np.int64) * step).reshape(-1)
    return out
