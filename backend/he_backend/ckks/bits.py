"""Rows of small integers <-> little-endian bit streams, by the C++ core. The format is that of serial.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from he_backend.ckks.ring import core, cpu_level, refusal
from he_backend.errors import ParameterError

MAX_BITS = 61


def packed_words(values: int, bits: int) -> int:
    """64-bit words that a row of `values` integers of `bits` bits takes."""
    return -(-values * bits // 64)


def pack(values: np.ndarray, bits: int, out: np.ndarray | None = None, threads: int = 1, cpu: str | None = None) -> np.ndarray:
    """uint64 [rows, n] of values below 2^bits -> uint64 words [rows, packed_words(n, bits)].

    Larger values spoil their row; `out` is written and returned if given.
    """
    _check(values, bits)
    words = np.empty((len(values), packed_words(values.shape[1], bits)), dtype=np.uint64) if out is None else out
    _run(core().pack, np.ascontiguousarray(values), bits, words, threads, cpu)
    return words


def unpack(words: np.ndarray, bits: int, n: int, out: np.ndarray | None = None, threads: int = 1, cpu: str | None = None) -> np.ndarray:
    """The inverse of pack: uint64 words [rows, packed_words(n, bits)] -> uint64 [rows, n]."""
    _check(words, bits)
    values = np.empty((len(words), n), dtype=np.uint64) if out is None else out
    _run(core().unpack, values, bits, np.ascontiguousarray(words), threads, cpu)
    return values


def _check(rows: np.ndarray, bits: int) -> None:
    if rows.ndim != 2 or rows.dtype != np.uint64:
        raise ParameterError(f"rows of uint64 are expected, not {rows.dtype} {rows.shape}")
    if not 1 <= bits <= MAX_BITS:
        raise ParameterError(f"{bits} bits; allowed: 1 to {MAX_BITS}")


def _run(kernel: Any, values: np.ndarray, bits: int, words: np.ndarray, threads: int, cpu: str | None) -> None:
    try:
        kernel(
            np.ascontiguousarray(values) if values.size and not values.flags.c_contiguous else values, bits, words, cpu_level(cpu), threads
        )
    except (TypeError, ValueError) as error:
        raise refusal("bit streams", error) from None
