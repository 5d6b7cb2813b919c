"""The canonical embedding, against its definition and against SEAL's encoder."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.ckks import ring as ring_module
from he_backend.ckks import seal_format, slots
from he_backend.ckks.params import load_params
from he_backend.ckks.ring import Ring
from he_backend.ckks.seal import SealContext
from he_backend.errors import ParameterError


def test_slots_are_the_values_at_powers_of_the_root():
    degree = 16
    coefficients = np.random.default_rng(0).normal(size=degree)
    zeta = np.exp(1j * np.pi / degree)
    due = [sum(c * zeta ** (3**j * k) for k, c in enumerate(coefficients)) for j in range(degree // 2)]
    assert np.allclose(slots.to_slots(coefficients), due)


@pytest.mark.parametrize("degree", [4, 2048, 8192])
def test_both_ways_bring_values_back(degree):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, degree // 2)) + 1j * rng.normal(size=(3, degree // 2))
    coefficients = slots.to_coefficients(values)
    assert coefficients.dtype == np.float64
    assert np.allclose(slots.to_slots(coefficients), values)
    assert np.abs(coefficients).max() <= np.abs(values).max()  # what keeps slots from overflowing


@pytest.mark.skipif(not ring_module.available(), reason="the native core is not built")
@pytest.mark.parametrize("preset", ["N11_L1", "N12_L4", "N13_L8"])
def test_seal_encodes_the_same_polynomial(preset):
    params = load_params(preset)
    seal = SealContext(params)
    rng = np.random.default_rng(2)
    half, scale = params.ring_degree // 2, 2.0**20
    values = rng.uniform(-1, 1, half) + 1j * rng.uniform(-1, 1, half)
    plain = seal.api.Plaintext()
    seal.encoder.encode(values.tolist(), seal.parms_id(1), scale, plain)
    words = np.frombuffer(seal_format.dump(plain)[-8 * params.ring_degree :], "<u8").astype(np.uint64)
    residues = Ring(params.ring_degree, params.moduli[:1]).inverse(words.reshape(1, 1, -1).copy())[0, 0].astype(np.int64)
    theirs = np.where(residues > params.moduli[0] // 2, residues - params.moduli[0], residues)

    ours = np.rint(slots.to_coefficients(values) * scale)

    assert np.abs(ours - theirs).max() <= 1  # a half rounded either way


def test_odd_sizes_are_refused():
    with pytest.raises(ParameterError, match="power of two"):
        slots.to_slots(np.zeros(12))
