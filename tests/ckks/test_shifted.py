"""Linear maps of shifted polynomials: by the core and by the clear engine, against multiplication by powers of X modulo X^N + 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.ckks import ring as ring_module
from he_backend.ckks.clear import ClearEvaluator
from he_backend.ckks.linear import ShiftedMap
from he_backend.ckks.primes import largest_primes
from he_backend.ckks.tensor import CipherTensor
from he_backend.errors import ParameterError
from tests.ckks.test_native_exact import DEGREE, LEVELS, dense, oracle, random_body, ring_of

native = pytest.mark.skipif(not ring_module.available(), reason="the native core is not built")
if ring_module.available():
    from he_backend.ckks import exact_linear
    from he_backend.ckks.bits import pack, packed_words


def random_shifted(generator, elements, inputs, outs):
    linear = dense(generator.integers(-(1 << 9), 1 << 9, (inputs, outs)))
    chosen = generator.integers(0, elements, inputs).astype(np.int32)
    shifts = generator.choice([0, 0, 1, 63, 64, 65, 130, DEGREE - 1, int(generator.integers(DEGREE))], inputs).astype(np.int32)
    return ShiftedMap(elements, chosen, shifts, linear)


def wrapped(body, shifted, moduli):
    """body [columns, elements, limbs, width] -> what the map's inputs are, negacyclic if the width is N, object."""
    signed = shifted.expanded(body.astype(object).transpose(1, 0, 2, 3), DEGREE).transpose(1, 0, 2, 3)
    for limb, q in enumerate(moduli):
        signed[:, :, limb] %= q
    return signed


@native
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [(30,), (54,), (30, 24)], ids=str)
@pytest.mark.parametrize("width", [40, 64, 200, DEGREE])
def test_the_core_shifts_exactly(level, bits, width):
    generator = np.random.default_rng(width)
    ring = ring_of(bits, level)
    shifted = random_shifted(generator, 7, 40, 9)
    body = random_body(generator, ring.moduli, 2, 7, width)

    out = exact_linear.ExactLinear(ring, len(bits), shifted).residues(body)

    np.testing.assert_array_equal(out.astype(object), oracle(shifted.linear, wrapped(body, shifted, ring.moduli), ring.moduli))


@native
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.one_of(st.just(DEGREE), st.integers(1, DEGREE)), columns=st.integers(1, 3))
def test_packed_words_give_the_same_as_arrays(seed, width, columns):
    generator = np.random.default_rng(seed)
    ring = ring_of((54,))
    (p,) = largest_primes(DEGREE, 27, 1)
    ready = exact_linear.ExactLinear(ring, 1, random_shifted(generator, 5, 30, 4))
    body = random_body(generator, ring.moduli, columns, 5, width)
    words = pack(np.ascontiguousarray(body.transpose(1, 2, 0, 3)).reshape(-1, width), 54).reshape(-1)

    answer = ready.switched_words(words, columns, width, p)

    expected = ready.switched(body, p)
    again = pack(np.ascontiguousarray(expected.transpose(1, 2, 0, 3)).reshape(-1, width), 27).reshape(-1)
    assert len(answer) == columns * 4 * packed_words(width, 27)
    np.testing.assert_array_equal(answer, again)


@pytest.mark.parametrize("width", [50, DEGREE])
def test_the_clear_engine_shifts_exactly(width):
    generator = np.random.default_rng(1)
    modulus = largest_primes(DEGREE, 54, 1)[0]
    shifted = random_shifted(generator, 6, 20, 5)
    values = generator.integers(-(1 << 20), 1 << 20, (2, 6, 1, width))
    tensor = CipherTensor("clear", DEGREE, (modulus,), False, np.mod(values, modulus).astype(np.uint64))

    answer = ClearEvaluator().affine(tensor, shifted)

    expected = oracle(shifted.linear, wrapped(tensor.body, shifted, (modulus,)), (modulus,))
    np.testing.assert_array_equal(answer.body.astype(object), expected)


@native
@pytest.mark.parametrize("element, shift", [(-1, 0), (3, 0), (0, -1), (0, DEGREE)])
def test_elements_and_shifts_out_of_range_are_refused(element, shift):
    shifted = ShiftedMap(3, np.array([element], np.int32), np.array([shift], np.int32), dense(np.ones((1, 1), int)))

    with pytest.raises(ParameterError, match="out of range"):
        exact_linear.ExactLinear(ring_of((30,)), 1, shifted)
