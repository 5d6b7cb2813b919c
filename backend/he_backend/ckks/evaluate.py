"""The native engine's public half: affine maps on packed ciphertext arrays, exact, with the answer switched to a small modulus.

The columns of a tensor share their mask, so the map is applied to the mask once and to the bodies column by column: cost and bytes per
value tend to half of those of ordinary ciphertexts as columns are added.
"""

from __future__ import annotations

from he_backend.ckks import sampling
from he_backend.ckks.bits import pack
from he_backend.ckks.exact_linear import ExactLinear
from he_backend.ckks.linear import LinearMap, ShiftedMap
from he_backend.ckks.params import Params
from he_backend.ckks.ring import shared_ring
from he_backend.ckks.tensor import PackedTensor
from he_backend.errors import ProtocolError


class NativeMap:
    """One linear map, ready for ciphertexts of one level; the answer is modulo answer_modulus."""

    def __init__(self, params: Params, linear: LinearMap | ShiftedMap, level: int, answer_modulus: int, threads: int) -> None:
        self._ring = shared_ring(params.ring_degree, params.moduli[:level])
        self._map = ExactLinear(self._ring, level, linear)
        self._answer_modulus, self._threads = answer_modulus, threads

    def __call__(self, tensor: PackedTensor) -> PackedTensor:
        """The map of every column: body and mask words modulo answer_modulus."""
        if tensor.count != self._map.in_count or tensor.ntt or tensor.moduli != self._ring.moduli:
            raise ProtocolError(f"this round computes on {self._map.in_count} polynomials in coefficient form, not on {tensor!r}")
        modulus = self._answer_modulus
        body = self._map.switched_words(tensor.body, tensor.columns, tensor.width, modulus, threads=self._threads)
        if tensor.mask is not None:
            mask = self._map.switched_words(tensor.mask, 1, tensor.ring_degree, modulus, threads=self._threads)
        else:
            fresh = sampling.expand_masks(self._ring, tensor.seed, len(self._ring.moduli), 0, tensor.count)
            switched = self._map.switched(self._ring.inverse(fresh, self._threads)[None], modulus, threads=self._threads)
            mask = pack(switched.reshape(self._map.out_count, -1), modulus.bit_length(), threads=self._threads).reshape(-1)
        return PackedTensor(
            tensor.engine, tensor.ring_degree, (modulus,), False, tensor.columns, self._map.out_count, tensor.width, body, mask
        )
