"""Secret-key encryption and decryption of columns under shared masks. Part of the client's secret half, like secret.py.

Element i of a tensor has one uniform mask a_i, the same in all columns; column j has a ternary secret s_j of its own and fresh errors:
body_ij = round(scale * x_ij) + e_ij - a_i * s_j. These are RLWE samples that share their uniform part and have independent secrets, as in
multi-secret LWE (Peikert, Vaikuntanathan and Waters, CRYPTO 2008, section 7): a hybrid over the columns reduces them to plain RLWE.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from he_backend.ckks import sampling
from he_backend.ckks.ring import Ring, core
from he_backend.errors import CapacityError, ParameterError

# Bytes of values, masks and errors that one step of the work keeps in the cache.
_TILE_BYTES = 1 << 19
_MAX_SCALED = float(1 << 61)


class ColumnSecrets:
    """Ternary secrets of some columns, ready for use under every prime of a ring. Their memory is wiped when they go."""

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
            raise ParameterError(f"ternary secrets: {error}") from None
        finally:
            if ternary is None:
                drawn.fill(0)

    def __repr__(self) -> str:
        return f"ColumnSecrets({self.columns} columns, {self.ring!r})"

    def encrypt(
        self, values: np.ndarray, scale: float, seed: bytes, limbs: int = 1, threads: int = 1, error_key: bytes | None = None
    ) -> np.ndarray:
        """body uint64 [columns, count, limbs, width], coefficients, of values float64 [count, rows] under the masks of a seed.

        Column j holds rows j * width to (j + 1) * width, zeros after the last. Width is N, or the number of rows with a single column.
        A seed must never be used twice with the same secrets; error_key is fresh unless a test gives it. Raises CapacityError if a scaled
        value is not finite or does not fit half the modulus.
        """
        count, rows = values.shape
        width = self.ring.degree if self.columns > 1 else rows
        self._check_rows(rows, limbs)
        values = np.ascontiguousarray(values, dtype=np.float64)
        limit = min(math.prod(self.ring.moduli[:limbs]) // 2 - sampling.MAX_ERROR - 1, _MAX_SCALED)
        body = np.empty((self.columns, count, limbs, width), dtype=np.uint64)
        key = sampling.new_key() if error_key is None else error_key

        def tile(start: int, stop: int) -> bool:
            mask = sampling.expand_masks(self.ring, seed, limbs, start, stop)
            noise = sampling.error_bytes(key, (stop - start) * self.columns, width, start * self.columns)
            return bool(self._handle.encrypt(values, scale, limit, mask, noise, body, start, stop, 1))

        per_element = self.columns * sampling.noise_bytes(width) + 8 * limbs * self.ring.degree
        step = max(1, _TILE_BYTES // per_element)
        starts = range(0, count, step)
        if threads > 1 and len(starts) > 1:
            with ThreadPoolExecutor(threads) as pool:
                fits = all(pool.map(lambda start: tile(start, min(count, start + step)), starts))
        else:
            fits = all(tile(start, min(count, start + step)) for start in starts)
        if not fits:
            raise CapacityError("a scaled value is not finite or does not fit half the modulus: take a smaller scale")
        return body

    def decrypt(self, body: np.ndarray, mask: np.ndarray, scale: float, rows: int, threads: int = 1) -> np.ndarray:
        """float64 [count, rows]: (body + mask * secret) centered, divided by scale.

        body uint64 [columns, count, limbs, width] and mask uint64 [count, limbs, N] are reduced coefficients.
        """
        if body.ndim != 4 or body.shape[0] != self.columns:
            raise ParameterError(f"body has shape {body.shape}; [{self.columns}, count, limbs, width] is expected")
        self._check_rows(rows, body.shape[2])
        values = np.empty((body.shape[1], rows), dtype=np.float64)
        try:
            self._handle.decrypt(body, mask, 1.0 / scale, values, 0, body.shape[1], threads)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"ciphertext arrays: {error}") from None
        return values

    def _check_rows(self, rows: int, limbs: int) -> None:
        most = self.columns * self.ring.degree
        if not most - self.ring.degree < rows <= most:
            raise ParameterError(f"{rows} rows do not make {self.columns} columns of {self.ring.degree}")
        if not 1 <= limbs <= len(self.ring.moduli):
            raise ParameterError(f"{limbs} limbs; the ring has {len(self.ring.moduli)} primes")
