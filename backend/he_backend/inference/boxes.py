"""Boxes: which element of a round's values lies in which coefficient, as a few strided pieces that travel in a plan.

Places are numbered through all polynomials: coefficient c of polynomial p is place p * N + c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Sequence

import numpy as np

MAX_AXES = 6
MAX_BOXES = 1024  # of a layout


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
    level = _Level(elements.astype(np.int64), places.astype(np.int64), np.zeros(len(elements), np.int64), [((), (), ())])
    for _ in range(MAX_AXES):
        joined = _join(level)
        if len(joined.first) == len(level.first):
            break
        level = joined
    return tuple(Box(int(e), int(p), *level.shapes[kind]) for e, p, kind in zip(level.first, level.place, level.kind))


def copy_boxes(boxes: Sequence[Box], elements: np.ndarray, places: np.ndarray) -> None:
    """Copies elements [rows, ...] to places [rows, ...] as the boxes say; both contiguous in their last axis."""
    for box in boxes:
        _window(places, box.place, box.sizes, box.strides)[...] = _window(elements, box.first, box.sizes, box.steps)


def _window(array: np.ndarray, first: int, sizes: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """The entries first + sum(i_d * steps[d]) of each row, as a view [rows, *sizes]."""
    reached = [first + sum((size - 1) * step for size, step in zip(sizes, steps) if (step > 0) == up) for up in (True, False)]
    assert min(reached) >= 0 and max(reached) < array.shape[1], "a box leaves its array"
    item = array.strides[1]
    strides = (array.strides[0], *(step * item for step in steps))
    return np.lib.stride_tricks.as_strided(array[:, first:], (len(array), *sizes), strides, writeable=array.flags.writeable)


def expand(boxes: Sequence[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Elements and places int64 of all boxes, one after the other."""
    if not boxes:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([box.elements() for box in boxes]), np.concatenate([box.places() for box in boxes])


class _Level(NamedTuple):
    """Boxes as arrays; kind[i] is the index in shapes of box i's sizes, steps and strides."""

    first: np.ndarray
    place: np.ndarray
    kind: np.ndarray
    shapes: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


def _join(level: _Level) -> _Level:
    """One more axis: maximal runs of equal boxes that differ by a constant step and stride. Lone boxes stay as they are."""
    count = len(level.first)
    if count < 2:
        return level
    gaps = np.stack([np.diff(level.first), np.diff(level.place), np.where(level.kind[1:] == level.kind[:-1], level.kind[1:], -1)])
    changes = np.flatnonzero((gaps[:, 1:] != gaps[:, :-1]).any(axis=0)) + 1
    ends = np.append(changes, count - 1)  # of the runs of equal gaps
    shapes = list(level.shapes)
    numbers = {shape: i for i, shape in enumerate(shapes)}
    starts, kinds = [], []
    at, run = 0, 0
    while at < count:
        while run < len(ends) and ends[run] <= at:
            run += 1
        kind, stop = int(level.kind[at]), at + 1
        if run < len(ends) and gaps[2, at] >= 0:
            stop = int(ends[run]) + 1
            sizes, steps, strides = shapes[kind]
            shape = ((stop - at, *sizes), (int(gaps[0, at]), *steps), (int(gaps[1, at]), *strides))
            kind = numbers.setdefault(shape, len(shapes))
            if kind == len(shapes):
                shapes.append(shape)
        starts.append(at)
        kinds.append(kind)
        at = stop
    index = np.array(starts)
    return _Level(level.first[index], level.place[index], np.array(kinds), shapes)


def _grid(first: int, sizes: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    out = np.full(1, first, dtype=np.int64)
    for size, step in zip(sizes, steps):
        out = (out[:, None] + np.arange(size, dtype=np.int64) * step).reshape(-1)
    return out
