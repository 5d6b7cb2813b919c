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
    """The wanted coefficients of a round under grid or product packing. Calls may come from several threads."""

    def __init__(self, layout: GridLayout | ProductLayout, degree: int) -> None:
        self._layout, self._degree = layout, degree
        pitch = layout.positions if isinstance(layout, GridLayout) else degree
        _, places = expand(layout.targets)
        self._wanted = _rows(places // pitch, places % pitch, layout.out_count)
        self._indices: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()

    def index(self, columns: int, width: int) -> np.ndarray:
        """int32 [columns or 1, out_count or 1, kept]: positions in bodies of `width` coefficients, -1 beyond the last."""
        key = (columns, width)
        with self._lock:
            if key not in self._indices:
                if len(self._indices) == _KEPT:
                    del self._indices[next(iter(self._indices))]
                self._indices[key] = self._make(columns, width)
            return self._indices[key]

    def width(self, columns: int, width: int) -> int:
        """Coefficients that are sent of bodies of `width` coefficients."""
        return int(self.index(columns, width).shape[2])

    def pick(self, answer: CipherTensor | PackedTensor, threads: int = 1) -> CipherTensor | PackedTensor:
        """An answer without the coefficients that nobody reads."""
        index = self.index(answer.columns, answer.width)
        return answer if index.shape[2] == answer.width else pick.pick(answer, index, threads)

    def put_back(self, answer: CipherTensor | PackedTensor, width: int, threads: int = 1) -> CipherTensor | PackedTensor:
        """What was picked from bodies of `width` coefficients, each coefficient in its place. Raises ProtocolError for another size."""
        index = self.index(answer.columns, width)
        return answer if index.shape[2] == width == answer.width else pick.put_back(answer, index, width, threads)

    def _make(self, columns: int, width: int) -> np.ndarray:
        layout = self._layout
        if isinstance(layout, ProductLayout):
            return self._wanted[None]
        # Column j answers for places j * step to (j + 1) * step of the rows' positions, one row after the other.
        step = width if columns == 1 else self._degree - layout.reach
        rows = -(-columns * step // layout.positions)
        one = self._wanted[:, None, :] + np.arange(rows)[:, None] * layout.positions
        every = np.where(self._wanted[:, None, :] < 0, -1, one).reshape(len(self._wanted), -1)
        channel, at = np.nonzero((every >= 0) & (every < columns * step))
        place = every[channel, at]
        owners = len(self._wanted) * columns
        found = _rows(channel * columns + place // step, place % step, owners)
        by_channel = np.broadcast_to(found, (owners, found.shape[1])).reshape(len(self._wanted), columns, -1)
        return np.ascontiguousarray(by_channel.swapaxes(0, 1))


def _rows(owner: np.ndarray, position: np.ndarray, count: int) -> np.ndarray:
    """int32 [count, most]: the sorted positions of each owner, then -1; [1, most] where all owners have the same."""
    order = np.lexsort((position, owner))
    owner, position = owner[order], position[order]
    sizes = np.bincount(owner, minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    out = np.full((count, max(1, int(sizes.max(initial=0)))), -1, dtype=np.int32)
    out[owner, np.arange(len(owner)) - starts[owner]] = position
    return out[:1] if (out == out[:1]).all() else out
