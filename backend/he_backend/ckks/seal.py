"""The SEAL engine's public half: affine maps on ciphertexts the he-transformer way, one scalar multiplication and addition at a time.

It is the reference that every other engine is tested against, and the fallback where the native core cannot be built. Values sit in
slots (the canonical embedding); with complex packing a polynomial of N coefficients holds N reals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from he_backend.ckks import seal_format
from he_backend.ckks.linear import LinearMap
from he_backend.ckks.params import Params
from he_backend.ckks.tensor import CipherTensor
from he_backend.errors import EngineError, ProtocolError


class SealContext:
    """SEAL's context of a parameter set and the identity of each level."""

    def __init__(self, params: Params) -> None:
        try:
            import tenseal.sealapi as api
        except ImportError as error:
            raise EngineError(
                f"the SEAL engine needs the package tenseal ({error}): pip install tenseal, or choose another engine"
            ) from None
        self.api = api
        self.params = params
        literal = api.EncryptionParameters(api.SCHEME_TYPE.CKKS)
        literal.set_poly_modulus_degree(params.ring_degree)
        literal.set_coeff_modulus(api.CoeffModulus.Create(params.ring_degree, list(params.coeff_bits)))
        # The security table was checked in params.py, from its source; SEAL's own check is the same table.
        level = api.SEC_LEVEL_TYPE.TC128 if params.security_level else api.SEC_LEVEL_TYPE.NONE
        self.context = api.SEALContext(literal, True, level)
        if not self.context.parameters_set():
            raise EngineError(f"SEAL refuses preset {params.name}: {self.context.parameters_error_message()}")
        self.encoder = api.CKKSEncoder(self.context)

    def parms_id(self, level: int) -> Any:
        """SEAL's identity of the parameters with the first `level` primes."""
        data = self.context.first_context_data()
        while data is not None and len(data.parms().coeff_modulus()) != level:
            data = data.next_context_data()
        if data is None:
            raise EngineError(f"preset {self.params.name} has no level {level}; it has {len(self.params.moduli)}")
        return data.parms_id()

    def ciphertext(self, tensor: CipherTensor, element: int, scale: float = 1.0) -> Any:
        """The SEAL Ciphertext of one element of the first column."""
        body = tensor.body[0, element]
        if tensor.seed:
            size = seal_format.SEED_BYTES
            mask: Any = tensor.seed[element * size : (element + 1) * size]
        else:
            assert tensor.mask is not None
            mask = tensor.mask[element]
        members = seal_format.ciphertext_members(self.parms_id(tensor.level), body, mask, scale)
        return seal_format.load(self.api.Ciphertext(), self.context, members)


class SealEvaluator:
    """Affine maps on SEAL ciphertexts; holds no key."""

    name = "seal"

    def __init__(self, params: Params) -> None:
        self._seal = SealContext(params)

    def affine(self, tensor: CipherTensor, linear: LinearMap) -> CipherTensor:
        """linear applied to a tensor of one column: [1, in_count] polynomials -> [1, out_count], at the same level.

        Raises ProtocolError when a ciphertext is not one of these parameters'.
        """
        if tensor.columns != 1 or not tensor.ntt or tensor.count != linear.in_count:
            raise ProtocolError(f"the SEAL engine computes one column of {linear.in_count} polynomials in NTT form, not {tensor!r}")
        try:
            inputs = [self._seal.ciphertext(tensor, element) for element in range(tensor.count)]
        except (ValueError, RuntimeError) as error:
            raise ProtocolError(f"SEAL refuses the ciphertexts: {error}; both sides must use the same preset") from None
        shape = (linear.out_count, tensor.level, tensor.ring_degree)
        body, mask = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)
        parms_id = self._seal.parms_id(tensor.level)
        for out, index, weights in linear.rows():
            if len(index):
                body[out], mask[out] = self._row(inputs, index, weights, parms_id)
        return tensor.with_parts(body[None], mask)

    def _row(self, inputs: list[Any], index: np.ndarray, weights: np.ndarray, parms_id: Any) -> tuple[np.ndarray, np.ndarray]:
        """Sum of weights times inputs[index]; weights are non-zero (SEAL refuses products that hide nothing)."""
        api = self._seal.api
        evaluator, plain, term = api.Evaluator(self._seal.context), api.Plaintext(), api.Ciphertext()
        total = api.Ciphertext()
        for position, (element, weight) in enumerate(zip(index, weights)):
            self._seal.encoder.encode(int(weight), parms_id, 1.0, plain)
            if position == 0:
                evaluator.multiply_plain(inputs[element], plain, total)
            else:
                evaluator.multiply_plain(inputs[element], plain, term)
                evaluator.add_inplace(total, term)
        body, mask = seal_format.ciphertext_parts(seal_format.dump(total))
        assert not isinstance(mask, bytes)
        return body, mask
