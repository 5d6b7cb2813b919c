"""Room for transformed weights: in memory up to a bound, beyond it in files that are read through the page cache as they are needed."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np

from he_backend.errors import CapacityError

DEFAULT_WEIGHT_BYTES = 1 << 30


class WeightRoom:
    """Hands out arrays. What goes beyond `memory_bytes` lies in files without a name in `folder` (default: where temporary files go)."""

    def __init__(self, memory_bytes: int = DEFAULT_WEIGHT_BYTES, folder: Path | None = None) -> None:
        self._left, self._folder = memory_bytes, folder
        self._lock = threading.Lock()

    def take(self, words: int) -> np.ndarray:
        """uint64 [words], to be written. Its room is free again once nobody has the array. Raises CapacityError when the disk is full."""
        size = 8 * words
        with self._lock:
            fits = size <= self._left
            self._left -= size if fits else 0
        if not fits:
            return self._file(words)
        array = np.empty(words, dtype=np.uint64)
        weakref.finalize(array, self._give_back, size).atexit = False
        return array

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._left += size

    def _file(self, words: int) -> np.ndarray:
        folder = str(self._folder) if self._folder else tempfile.gettempdir()
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):  # a full disk is told here, where it is an error and not a fault
                    os.posix_fallocate(file.fileno(), 0, 8 * words)
                return np.memmap(file, dtype=np.uint64, mode="r+" if hasattr(os, "posix_fallocate") else "w+", shape=(words,))
        except OSError as problem:
            raise CapacityError(
                f"{8 * words} bytes of weights find no room in {folder} ({problem.strerror}): free some, or allow more memory for weights"
            ) from None
