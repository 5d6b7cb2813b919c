"""The clear engine: the same interface and the same scaled integers without any encryption.

It is exact, so packing, plans and protocol can be tested without noise; it protects nothing, and says so wherever it is chosen.
"""

from __future__ import annotations

import numpy as np

from he_backend.ckks.linear import LinearMap, ShiftedMap, apply_blocks
from he_backend.ckks.tensor import CipherTensor
from he_backend.errors import CapacityError, ProtocolError

_EXACT_FLOAT = 1 << 53


class ClearEvaluator:
    """Affine maps on unencrypted tensors: residues modulo the one product of the primes."""

    name = "clear"

    def affine(self, tensor: CipherTensor, given: LinearMap | ShiftedMap) -> CipherTensor:
        """The map applied to every column, exactly, modulo tensor.moduli[0]."""
        if len(tensor.moduli) != 1 or tensor.count != given.in_count:
            raise ProtocolError(f"the clear engine computes {given.in_count} elements modulo one number, not {tensor!r}")
        linear = given.linear if isinstance(given, ShiftedMap) else given
        modulus = tensor.moduli[0]
        signed = centered(tensor.body, modulus)
        largest = int(np.abs(signed).max()) if signed.size else 0
        norm = int(linear.norms((linear.in_count,)).max()) if linear.out_count else 0
        if largest * norm >= 1 << 63:
            raise CapacityError(f"sums of up to {(largest * norm).bit_length()} bits leave 64-bit integers: the scale is too large")
        columns = signed.transpose(1, 0, 2, 3)
        if isinstance(given, ShiftedMap):
            columns = given.expanded(columns, tensor.ring_degree)
        if largest * norm < _EXACT_FLOAT:
            out = apply_blocks(linear, columns.astype(np.float64)).astype(np.int64)
        else:
            out = apply_blocks(linear, columns)
        body = np.mod(out, np.int64(modulus)).astype(np.uint64).transpose(1, 0, 2, 3)
        return tensor.with_parts(np.ascontiguousarray(body), None)


def centered(residues: np.ndarray, modulus: int) -> np.ndarray:
    """int64 representatives in (-modulus/2, modulus/2] of residues below modulus < 2^63."""
    signed = residues.astype(np.int64)
    return np.where(signed > modulus // 2, signed - modulus, signed)
