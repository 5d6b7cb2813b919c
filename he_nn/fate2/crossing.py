"""What crossed between two sites, read from the recordings: how much, how random, and whether rows of the data owner can be found in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Sequence

import numpy as np

WINDOW_BYTES = 1 << 16
RANDOM_BITS = 7.99  # entropy of a window by single bytes: random 64 KiB have 7.997, text at most 6, weights as float32 about 7


@dataclass(frozen=True)
class Crossing:
    """bytes: of all recordings. random_bytes: in windows that look random. found: how many of the needles occur in any recording."""

    bytes: int
    random_bytes: int
    needles: int
    found: int

    @property
    def random_share(self) -> float:
        """The share of what crossed that looks random."""
        return self.random_bytes / max(1, self.bytes)


def inspect(files: Iterable[Path], needles: Sequence[bytes]) -> Crossing:
    """The figures of the recordings in `files`."""
    total = random = 0
    found: set[bytes] = set()
    for path in files:
        data = path.read_bytes()
        total += len(data)
        for at in range(0, len(data) - WINDOW_BYTES + 1, WINDOW_BYTES):
            if entropy(data[at : at + WINDOW_BYTES]) >= RANDOM_BITS:
                random += WINDOW_BYTES
        found.update(needle for needle in needles if needle in data)
    return Crossing(total, random, len(needles), len(found))


def entropy(data: bytes) -> float:
    """Bits per byte by the frequency of single bytes."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    share = counts[counts > 0] / max(1, len(data))
    return float(-(share * np.log2(share)).sum())


def row_needles(rows: np.ndarray, values: int = 6) -> list[bytes]:
    """Pieces of rows [rows, ...] as they would be found in the clear: as binary numbers, as CSV and JSON text, and as hexadecimal of these.

    Of each row the stretch of `values` neighbours with the most different values is taken; rows without one are left out.
    """
    needles = []
    for row in np.asarray(rows, np.float64).reshape(len(rows), -1):
        pieces = [row[at : at + values] for at in range(len(row) - values + 1)]
        piece = max(pieces, key=lambda one: len(set(one.tolist())))
        if len(set(piece.tolist())) < min(4, values):
            continue
        binary = [piece.astype("<f4").tobytes(), piece.astype("<f8").tobytes()]
        texts = [",".join(map(repr, piece.tolist())).encode(), ", ".join(map(repr, piece.tolist())).encode()]
        needles += [*binary, *texts, *(one.hex().encode() for one in [*binary, *texts])]
    return needles
