"""Which coefficients of a round's answers hold outputs. The others, sums of what does not belong together, are never sent."""

from __future__ import annotations

import threading

import numpy as np

from he_backend.ckks import pick
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.inference.boxes import expand
from he_backend.inference.grid import GridLayout
from he_backend.inference.product import ProductLayout

_KEPT = 8  # indices for different numbers of rows that are remembered


class Selection:
    """The wanted coefficients of a round under grid or product packing. Calls may come from several threads.

    wanted: the positions of a row (grid). polynomials: int32 [out_count or 1, most] the coefficients of each, then -1 (product).
    """

    def __init__(self, layout: GridLayout | ProductLayout, degree: int) -> None:
        self._layout, self._degree = layout, degree
        _, places = expand(layout.targets)
        if isinstance(layout, GridLayout):  # the same positions of all channels
            self.wanted = np.unique(places % layout.positions)
        else:
            self.polynomials = _rows(places // degree, places % degree, layout.out_count)
        self._indices: dict[tuple[int, int], np.ndarray | None] = {}
        self._lock = threading.Lock()

    def index(self, columns: int, width: int) -> np.ndarray | None:
        """int32 [columns or 1, out_count or 1, kept]: positions in bodies of `width` coefficients, -1 beyond the last; None: all."""
        key = (columns, width)
        with self._lock:
            if key not in self._indices:
                if len(self._indices) == _KEPT:
                    del self._indices[next(iter(self._indices))]
                index = self._make(columns, width)
                self._indices[key] = None if (index == np.arange(width)[: index.shape[2]]).all() and index.shape[2] == width else index
            return self._indices[key]

    def width(self, columns: int, width: int) -> int:
        """Coefficients that are sent of bodies of `width` coefficients."""
        index = self.index(columns, width)
        return width if index is None else int(index.shape[2])

    def pick(self, answer: CipherTensor | PackedTensor, threads: int = 1) -> CipherTensor | PackedTensor:
        """An answer without the coefficients that nobody reads."""
        index = self.index(answer.columns, answer.width)
        return answer if index is None else pick.pick(answer, index, threads)

    def ranks(self, places: np.ndarray) -> np.ndarray:
        """How many wanted coefficients of its polynomial (product) or positions (grid) come before each place of the layout's targets."""
        if isinstance(self._layout, GridLayout):
            return np.searchsorted(self.wanted, places % self._layout.positions)
        every = np.sort(places)
        return np.searchsorted(every, places) - np.searchsorted(every, places // self._degree * self._degree)

    def _make(self, columns: int, width: int) -> np.ndarray:
        layout = self._layout
        if isinstance(layout, ProductLayout):
            return self.polynomials[None]
        # Column j answers for places j * step to (j + 1) * step of the rows' positions, one row after the other.
        step = width if columns == 1 else self._degree - layout.reach
        rows = -(-columns * step // layout.positions)
        place = (np.arange(rows)[:, None] * layout.positions + self.wanted).reshape(-1)
        place = place[place < columns * step]
        found = _rows(place // step, place % step, columns)
        return found[:, None]


def _rows(owner: np.ndarray, position: np.ndarray, count: int) -> np.ndarray:
    """int32 [count, most]: the sorted positions of each owner, then -1; [1, most] where all owners have the same."""
    order = np.lexsort((position, owner))
    owner, position = owner[order], position[order]
    sizes = np.bincount(owner, minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    out = np.full((count, max(1, int(sizes.max(initial=0)))), -1, dtype=np.int32)
    out[owner, np.arange(len(owner)) - starts[owner]] = position
    return out[:1] if (out == out[:1]).all() else out
