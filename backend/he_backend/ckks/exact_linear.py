"""Integer linear maps on residues, exactly, by the C++ core; the result can be switched to a smaller modulus in the same pass.

Residues are cut into digits of at most 15 bits, so that sums of products with 16-bit weights are exact in 32-bit dot products; weights of
more than 16 bits are cut in two. The core reads and writes plain arrays or the bit-packed payload of serial.py.
"""

from __future__ import annotations

import math

import numpy as np

from he_backend.ckks.bits import packed_words
from he_backend.ckks.linear import LinearMap, ShiftedMap
from he_backend.ckks.ring import Ring, core, refusal
from he_backend.errors import ParameterError

MAX_WEIGHT_BITS = 24
MAX_ANSWER_BITS = 31
_NONE = np.zeros(0, dtype=np.int32)


class ExactLinear:
    """A LinearMap or ShiftedMap made ready for residues under the first `limbs` primes of a ring."""

    def __init__(self, ring: Ring, limbs: int, given: LinearMap | ShiftedMap) -> None:
        """Raises ParameterError for indices or shifts out of range or weights of more than 24 bits."""
        self.ring, self.limbs = ring, limbs
        self.in_count, self.out_count = given.in_count, given.out_count
        self.moduli = ring.moduli[:limbs]
        linear = given.linear if isinstance(given, ShiftedMap) else given
        sources = [_NONE, _NONE]
        if isinstance(given, ShiftedMap):
            sources = [np.ascontiguousarray(part, dtype=np.int32) for part in (given.elements, given.shifts)]
        blocks = [
            tuple(np.ascontiguousarray(part, dtype=np.int32) for part in (block.gather, block.weights, block.scatter))
            for block in linear.blocks
        ]
        try:
            self._handle = core().Linear(ring.handle, limbs, self.in_count, self.out_count, blocks, *sources)
        except (TypeError, ValueError) as error:
            raise refusal("linear map", error) from None
        self._largest_norm = int(linear.norms((linear.in_count,)).max()) if linear.out_count and linear.in_count else 0

    @property
    def digit_bits(self) -> int:
        """Bits of a digit."""
        return int(self._handle.digit_bits)

    @property
    def digits(self) -> int:
        """Digits of a residue vector, all limbs together: 16-bit products per multiplication."""
        return int(self._handle.digits)

    def residues(self, body: np.ndarray, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
        """body uint64 [columns, in_count, limbs, width] -> uint64 [columns, out_count, limbs, width], exact modulo each prime."""
        return self._arrays(body, 0, self.limbs, out, threads)

    def switched(self, body: np.ndarray, modulus: int, out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
        """body uint64 [columns, in_count, limbs, width], coefficients -> uint64 [columns, out_count, 1, width] modulo `modulus` < 2^31.

        The result is (modulus / Q) times the exact one, Q being the product of the primes, to within switch_error(modulus).
        """
        self._check_modulus(modulus)
        return self._arrays(body, modulus, 1, out, threads)

    def switched_words(
        self, words: np.ndarray, columns: int, width: int, modulus: int, out: np.ndarray | None = None, threads: int = 1
    ) -> np.ndarray:
        """As `switched`, from packed words to packed words: element by element, in it limb by limb, in it column by column (serial.py)."""
        self._check_modulus(modulus)
        size = columns * self.out_count * packed_words(width, modulus.bit_length())
        answer = np.empty(size, dtype=np.uint64) if out is None else out
        self._apply(words, True, answer, columns, width, modulus, threads)
        return answer

    def switch_error(self, modulus: int) -> float:
        """Bound of the error of `switched` in a coefficient: rounding, and 64-bit fractions of Q in the core."""
        sums = self.digits * float(self._largest_norm) * 2.0 ** (self.digit_bits - 1)
        return 0.5 + modulus * (2.0**-32 + (sums + self.limbs) * 2.0**-65)

    def _arrays(self, body: np.ndarray, modulus: int, limbs: int, out: np.ndarray | None, threads: int) -> np.ndarray:
        if body.ndim != 4 or body.shape[1:3] != (self.in_count, self.limbs):
            raise ParameterError(f"body has shape {body.shape}; [columns, {self.in_count}, {self.limbs}, width] is expected")
        columns, _, _, width = body.shape
        answer = np.empty((columns, self.out_count, limbs, width), dtype=np.uint64) if out is None else out
        self._apply(np.ascontiguousarray(body), False, answer, columns, width, modulus, threads)
        return answer

    def _apply(self, source: np.ndarray, packed: bool, out: np.ndarray, columns: int, width: int, modulus: int, threads: int) -> None:
        try:
            self._handle.apply(source, packed, out, packed, columns, width, modulus, threads)
        except (TypeError, ValueError) as error:
            raise refusal("ciphertext arrays", error) from None

    def _check_modulus(self, modulus: int) -> None:
        if not 2 <= modulus < 1 << MAX_ANSWER_BITS or modulus > math.prod(self.moduli):
            raise ParameterError(f"answer modulus {modulus}; allowed: 2 to 2^{MAX_ANSWER_BITS} - 1, and no more than the ciphertexts' own")
