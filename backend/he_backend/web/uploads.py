"""Uploaded arrays, in memory only: under generated names, bounded in bytes and in time, gone when the process ends."""

from __future__ import annotations

import ast
import io
import math
import re
import secrets
import threading
import time
from collections import OrderedDict
from typing import Callable

import numpy as np

from he_backend.errors import InputError, NotFoundError
from he_backend.web.answers import TooLarge

KEEP_S = 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\.npy")
_MOST_HEADER_BYTES = 10_000


class Uploads:
    """Arrays by name, each for who uploaded it: `owner` tells who asks.

    The oldest make room for new ones beyond `most_bytes`; none is kept longer than `keep_s` seconds.
    """

    def __init__(
        self,
        most_bytes: int,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
        owner: Callable[[], str] = lambda: "",
    ) -> None:
        self.most_bytes, self._keep_s, self._clock, self._owner = most_bytes, keep_s, clock, owner
        self._arrays: OrderedDict[str, tuple[float, str, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, file_name: str, data: bytes) -> str:
        """The name under which the array of an .npy file is kept: six random characters and the given name.

        Raises InputError for a name or bytes that are not those of an .npy file with numbers.
        """
        if not _NAME.fullmatch(file_name):
            raise InputError("file_name: allowed are letters, digits, '.', '-' and '_', at most 84 characters, ending in .npy")
        array = read_npy(data)
        if array.nbytes > self.most_bytes:
            raise TooLarge(f"the array has {array.nbytes} bytes, this service keeps at most {self.most_bytes}")
        name = secrets.token_hex(3) + file_name
        with self._lock:
            self._arrays[name] = (self._clock(), self._owner(), array)
            while sum(kept.nbytes for _, _, kept in self._arrays.values()) > self.most_bytes:
                self._arrays.popitem(last=False)
        self.expire()
        return name

    def get(self, name: str) -> np.ndarray:
        """The array of that name; raises NotFoundError."""
        self.expire()
        with self._lock:
            found = self._arrays.get(name)
            if found is None or found[1] != self._owner():
                raise NotFoundError(
                    "inf_file_name: no such file is here; upload it first (/model/uploadfile) and use the name that the answer gives. "
                    "Files are kept in memory for an hour, less when there are many, and not over a restart"
                )
            return found[2]

    def remove(self, name: str) -> None:
        """Forgets an array; raises NotFoundError."""
        self.get(name)
        with self._lock:
            self._arrays.pop(name, None)

    def expire(self) -> None:
        """Forgets what is older than it may be."""
        with self._lock:
            oldest = self._clock() - self._keep_s
            for name in [name for name, (since, _, _) in self._arrays.items() if since < oldest]:
                del self._arrays[name]


def read_npy(data: bytes) -> np.ndarray:
    """The array [rows, ...] of real numbers in the bytes of an .npy file. Raises InputError; nothing is allocated on the file's word."""
    stream = io.BytesIO(data)
    try:
        major = np.lib.format.read_magic(stream)[0]
        width = {1: 2, 2: 4, 3: 4}[major]
        size = int.from_bytes(stream.read(width), "little")
        if size > _MOST_HEADER_BYTES:
            raise ValueError
        header = ast.literal_eval(stream.read(size).decode("utf-8"))
        shape, fortran = tuple(header["shape"]), header["fortran_order"]
        dtype = np.dtype(header["descr"]) if isinstance(header["descr"], str) else None
    except (ValueError, KeyError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise InputError("the file is not an .npy file: write it with numpy.save") from None
    if dtype is None or dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise InputError("the file holds something else than real numbers; Python objects are never read")
    if not shape or len(shape) > 16 or not all(type(length) is int and length > 0 for length in shape):
        raise InputError("the array has no rows; the first axis is that of rows")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise InputError("the file's size does not fit its header: it was cut off or damaged")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape[::-1]).T if fortran is True else flat.reshape(shape)
