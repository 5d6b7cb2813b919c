"""Secret-key encryption and decryption of columns under shared masks. Part of the client's secret half, like secret.py.

Element i of a tensor has one uniform mask a_i, the same in all columns; column j has a ternary secret s_j of its own and fresh errors:
body_ij = round(scale * x_ij) + e_ij - a_i * s_j. These are RLWE samples that share their uniform part and have independent secrets, as in
multi-secret LWE (Peikert, Vaikuntanathan and Waters, CRYPTO 2008): a hybrid over the columns reduces them to plain RLWE.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Union

import numpy as np

from he_backend.ckks import sampling
from he_backend.ckks.bits import packed_words
from he_backend.ckks.ring import Ring, core, cpu_level, refusal
from he_backend.errors import CapacityError, ParameterError

# Bytes of masks and errors that one step of the work keeps in the cache.
_TILE_BYTES = 1 << 21
_GROUP = 16  # elements that the core works on together
_MAX_SCALED = float(1 << 61)
_ALL = np.zeros((1, 1, 0), dtype=np.int32)

Scale = Union[float, np.ndarray]


def largest_magnitude(values: np.ndarray, threads: int = 1) -> float:
    """Largest |x| of contiguous float32 or float64 values, 0 of none; infinity or NaN if there is one."""
    try:
        return float(core().largest(values, cpu_level(), threads))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"values: {error}") from None


class ColumnSecrets:
    """Ternary secrets of some columns, ready for use under every prime of a ring. Their memory is wiped when they go.

    Values are float32 or float64 [count, rows], contiguous along either axis (the transpose of an array [rows, features] will do). Column j
    holds rows j * width to (j + 1) * width, zeros after the last; width is N, or the number of rows with a single column. Ciphertexts are
    uint64 arrays [columns, count, limbs, width] of coefficients, or the packed words of serial.py.
    """

    def __init__(self, ring: Ring, columns: int, ternary: np.ndarray | None = None) -> None:
        """Fresh secrets; tests may give ternary int8 [columns, N]."""
        if columns < 1:
            raise ParameterError(f"{columns} columns; at least one is needed")
        self.ring = ring
        self.columns = columns
        drawn = sampling.ternary_secrets(sampling.new_key(), columns, ring.degree) if ternary is None else ternary
        try:
            self._handle = core().Secrets(ring.handle, drawn)
        except (TypeError, ValueError) as error:
            raise refusal("ternary secrets", error) from None
        finally:
            if ternary is None:
                drawn.fill(0)

    def __repr__(self) -> str:
        return f"ColumnSecrets({self.columns} columns, {self.ring!r})"

    def under(self, ring: Ring) -> ColumnSecrets:
        """The same secrets under the primes of another ring of the same degree, for answers that were switched to them."""
        if ring.degree != self.ring.degree:
            raise ParameterError(f"the rings have degrees {self.ring.degree} and {ring.degree}")
        other = object.__new__(ColumnSecrets)
        other.ring, other.columns, other._handle = ring, self.columns, self._handle.under(ring.handle)
        return other

    def width(self, rows: int) -> int:
        """Coefficients in use of each polynomial; raises ParameterError unless the rows fill the columns."""
        most = self.columns * self.ring.degree
        if not most - self.ring.degree < rows <= most:
            raise ParameterError(f"{rows} rows do not make {self.columns} columns of {self.ring.degree}")
        return self.ring.degree if self.columns > 1 else rows

    def words(self, count: int, rows: int, limbs: int = 1) -> int:
        """Packed 64-bit words of `count` elements."""
        return count * self.columns * sum(packed_words(self.width(rows), q.bit_length()) for q in self.ring.moduli[:limbs])

    def encrypt(
        self,
        values: np.ndarray,
        scale: float,
        seed: bytes,
        limbs: int = 1,
        threads: int = 1,
        error_key: bytes | None = None,
        first: int = 0,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """body uint64 [columns, count, limbs, width] of round(scale * values) + errors under masks `first` and following of a seed.

        A mask of a seed must never be used twice with the same secrets; error_key is fresh unless a test gives it. Raises CapacityError if
        a scaled value is not finite or does not fit half the modulus.
        """
        count, rows = values.shape
        body = np.empty((self.columns, count, limbs, self.width(rows)), dtype=np.uint64) if out is None else out
        self._encrypt(values, scale, seed, limbs, first, body, False, threads, error_key)
        return body

    def encrypt_words(
        self,
        values: np.ndarray,
        scale: float,
        seed: bytes,
        limbs: int = 1,
        threads: int = 1,
        error_key: bytes | None = None,
        first: int = 0,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same as packed words uint64 [words(count, rows, limbs)]."""
        count, rows = values.shape
        words = np.empty(self.words(count, rows, limbs), dtype=np.uint64) if out is None else out
        self._encrypt(values, scale, seed, limbs, first, words, True, threads, error_key)
        return words

    def decrypt(
        self, body: np.ndarray, mask: np.ndarray, scale: Scale, rows: int, threads: int = 1, out: np.ndarray | None = None
    ) -> np.ndarray:
        """float64 [count, rows] (or `out`, float32 or float64): (body + mask * secret) centered, divided by scale.

        scale is one number or one for each element. body uint64 [columns, count, limbs, width] and mask uint64 [count, limbs, N] are
        reduced coefficients.
        """
        if body.ndim != 4:
            raise ParameterError(f"body has shape {body.shape}; [{self.columns}, count, limbs, width] is expected")
        values = np.empty((body.shape[1], rows)) if out is None else out
        self._decrypt(body, mask, False, scale, values, body.shape[2], threads)
        return values

    def decrypt_words(
        self,
        body: np.ndarray,
        mask: np.ndarray,
        scale: Scale,
        out: np.ndarray,
        limbs: int = 1,
        threads: int = 1,
        width: int = 0,
        index: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same from packed words of bodies and of masks (one column of width N) into out, float32 or float64 [count, rows].

        `width`: coefficients that a body has, where that is not as many as the rows tell; the columns must then be full.
        `index`: which coefficients these are, where they are not the first (int32 [columns or 1, count or 1, width], -1 for none).
        """
        self._decrypt(body, mask, True, scale, out, limbs, threads, width, index)
        return out

    def _encrypt(
        self,
        values: np.ndarray,
        scale: float,
        seed: bytes,
        limbs: int,
        first: int,
        body: np.ndarray,
        packed: bool,
        threads: int,
        error_key: bytes | None,
    ) -> None:
        count, rows = values.shape
        width = self._check(rows, limbs)
        half = math.prod(self.ring.moduli[:limbs]) // 2 - sampling.MAX_ERROR - 1
        limit = min(half * (1.0 - 2.0**-51) if half >> 53 else float(half), _MAX_SCALED)  # below it also where doubles are coarser
        key = sampling.new_key() if error_key is None else error_key

        def tile(start: int) -> bool:
            stop = min(count, start + step)
            mask = sampling.expand_masks(self.ring, seed, limbs, first + start, first + stop)
            noise = sampling.error_bytes(key, (stop - start) * self.columns, width, (first + start) * self.columns)
            try:
                return bool(self._handle.encrypt(values, scale, limit, mask, noise, body, packed, limbs, width, start, stop, 1))
            except (TypeError, ValueError) as error:
                raise refusal("encryption", error) from None

        per_element = self.columns * sampling.noise_bytes(width) + 8 * limbs * self.ring.degree
        step = max(1, _TILE_BYTES // per_element // _GROUP) * _GROUP
        starts = range(0, count, step)
        if threads > 1 and len(starts) > 1:
            with ThreadPoolExecutor(threads) as pool:
                fits = all(pool.map(tile, starts))
        else:
            fits = all(map(tile, starts))
        if not fits:
            raise CapacityError("a scaled value is not finite or does not fit half the modulus: take a smaller scale")

    def _decrypt(
        self,
        body: np.ndarray,
        mask: np.ndarray,
        packed: bool,
        scale: Scale,
        out: np.ndarray,
        limbs: int,
        threads: int,
        width: int = 0,
        index: np.ndarray | None = None,
    ) -> None:
        count, rows = out.shape
        if width and rows != width * self.columns:
            raise ParameterError(f"{rows} values are not {self.columns} columns of {width}")
        width = width or self._check(rows, limbs)
        scales = np.asarray(scale, dtype=np.float64)
        if scales.ndim and scales.shape != (count,):
            raise ParameterError(f"scales of shape {scales.shape} for {count} elements")
        factors = np.ascontiguousarray(np.broadcast_to(1.0 / scales, (count,)))
        try:
            kept = _ALL if index is None else index
            self._handle.decrypt(body, packed, mask, packed, factors, out, limbs, width, 0, count, threads, kept)
        except (TypeError, ValueError) as error:
            raise refusal("ciphertext arrays", error) from None

    def _check(self, rows: int, limbs: int) -> int:
        if not 1 <= limbs <= len(self.ring.moduli):
            raise ParameterError(f"{limbs} limbs; the ring has {len(self.ring.moduli)} primes")
        return self.width(rows)
