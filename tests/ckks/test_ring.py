"""Transforms: against a naive product, against SEAL's residues, and every instruction set against the portable code."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.ckks import ring as ring_module
from he_backend.ckks import seal_format
from he_backend.ckks.params import load_params
from he_backend.ckks.primes import is_prime, largest_primes
from he_backend.ckks.ring import CPU_VARIABLE, Ring, cpu_level
from he_backend.ckks.seal import SealContext
from he_backend.errors import EngineError, ParameterError

pytestmark = pytest.mark.skipif(not ring_module.available(), reason="the native core is not built")
LEVELS = list(ring_module.core().cpu_levels()) if ring_module.available() else []
# Bits on both sides of every boundary between word sizes, and the largest.
BITS = (20, 29, 30, 31, 49, 50, 51, 54, 60, 61)


def random_polynomials(moduli, degree, count=2, seed=0):
    generator = np.random.default_rng(seed)
    return np.stack([np.stack([generator.integers(0, q, degree, dtype=np.uint64) for q in moduli]) for _ in range(count)])


def extreme_polynomials(moduli, degree):
    """All zero, all q - 1, and alternating between them."""
    top = np.array(moduli, dtype=np.uint64)[:, None] - np.uint64(1)
    full = np.broadcast_to(top, (len(moduli), degree))
    return np.stack([np.zeros_like(full), full, np.where(np.arange(degree) % 2, full, np.uint64(0))])


def negacyclic(a, b, q):
    """The product modulo X^N + 1 and q in Python integers."""
    n = len(a)
    full = np.append(np.convolve(a.astype(object), b.astype(object)), 0)
    return ((full[:n] - full[n:]) % q).astype(np.uint64)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [29, 30, 45, 54, 61])
def test_values_multiply_as_polynomials(level, bits):
    (q,) = largest_primes(1024, bits, 1)
    ring = Ring(1024, [q], level)
    a, b = random_polynomials([q], 1024)

    values = ring.forward(np.stack([a, b]))
    product = (values[0].astype(object) * values[1].astype(object) % q).astype(np.uint64)
    ring.inverse(product)

    np.testing.assert_array_equal(product[0], negacyclic(a[0], b[0], q))


@pytest.mark.parametrize("degree", [1024, 2048, 4096, 65536])
@pytest.mark.parametrize("bits", BITS)
def test_every_instruction_set_gives_the_same_residues(degree, bits):
    moduli = largest_primes(degree, bits, 1)
    polynomials = np.concatenate([random_polynomials(moduli, degree, 1, bits), extreme_polynomials(moduli, degree)])
    expected = Ring(degree, moduli, "scalar").forward(polynomials.copy())

    for level in LEVELS:
        ring = Ring(degree, moduli, level)
        values = ring.forward(polynomials.copy())
        np.testing.assert_array_equal(values, expected, level)
        np.testing.assert_array_equal(ring.inverse(values), polynomials, level)


@pytest.mark.parametrize("level", LEVELS)
def test_small_and_dense_primes_transform_too(level):
    for q in (12289, 40961, next(q for q in range((1 << 60) + 1, 1 << 61, 4096) if is_prime(q))):
        ring = Ring(2048, [q], level)
        polynomials = np.concatenate([random_polynomials([q], 2048), extreme_polynomials([q], 2048)])
        values = ring.forward(polynomials.copy())
        assert int(values.max()) < q
        np.testing.assert_array_equal(ring.inverse(values), polynomials)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("preset", ["N11_L1", "N11_L1_small", "N12_L4", "N13_L8"])
def test_residues_equal_seals_bit_for_bit(level, preset):
    params = load_params(preset)
    seal = SealContext(params)
    secret = seal.api.KeyGenerator(seal.context).secret_key()
    plain, coefficients = seal.api.Plaintext(), seal.api.Ciphertext()
    seal.encoder.encode(0.5, seal.parms_id(len(params.moduli)), 2.0**18, plain)
    cipher = encrypt_with_seal(seal, secret, plain)
    seal.api.Evaluator(seal.context).transform_from_ntt(cipher, coefficients)
    values, expected = polynomials_of(cipher), polynomials_of(coefficients)

    ring = Ring(params.ring_degree, params.moduli, level)

    np.testing.assert_array_equal(ring.inverse(values.copy()), expected)
    np.testing.assert_array_equal(ring.forward(expected.copy()), values)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [(20,), (27,), (28,), (30, 24), (54,), (55,), (61,)], ids=str)
@pytest.mark.parametrize("terms", [1, 7, 600])
def test_sums_of_products_are_exact(level, bits, terms):
    degree, outputs = 1024, 2
    moduli = [largest_primes(degree, b, 1)[0] for b in bits]
    ring = Ring(degree, moduli, level)
    a = random_polynomials(moduli, degree, outputs * terms).reshape(outputs, terms, len(bits), degree)
    b = random_polynomials(moduli, degree, terms, seed=1)
    top = np.array(moduli, dtype=np.uint64)[:, None] - np.uint64(1)
    a[:, :, :, :64], b[:, :, :64] = top, top
    start = random_polynomials(moduli, degree, outputs, seed=2)

    out = ring.add_products(start.copy(), a, b, threads=2)

    some = np.r_[0:70, 1000:1024]
    expected = start[..., some].astype(object) + (a[..., some].astype(object) * b[..., some].astype(object)).sum(axis=1)
    np.testing.assert_array_equal(out[..., some].astype(object), expected % (top.astype(object) + 1))


@pytest.mark.parametrize("power", [0, 1, 63, 1023, 1024, 1500, 2047, 2048, -1, -1024])
def test_shifting_multiplies_by_a_power_of_x(power):
    moduli = largest_primes(1024, 30, 2)
    ring = Ring(1024, moduli)
    polynomials = np.concatenate([random_polynomials(moduli, 1024), extreme_polynomials(moduli, 1024)])
    factor = np.zeros(1024, dtype=object)
    factor[power % 1024] = -1 if power // 1024 % 2 else 1

    shifted = ring.shift(polynomials, power, threads=2)

    for limb, q in enumerate(moduli):
        np.testing.assert_array_equal(shifted[0, limb], negacyclic(polynomials[0, limb], factor, q))
    np.testing.assert_array_equal(ring.shift(shifted, -power), polynomials)


@pytest.mark.parametrize("bits", [(30,), (54,), (61,), (30, 24), (30, 24, 24, 24)], ids=str)
@pytest.mark.parametrize("modulus", [2, 12289, (1 << 30) - 35, (1 << 31) - 1, 1 << 40, (1 << 61) - 1])
def test_switching_a_modulus_rounds(bits, modulus):
    moduli = [largest_primes(1024, b, 4)[i] for i, b in enumerate(bits)]
    ring = Ring(1024, moduli)
    product = int(np.prod(np.array(moduli, dtype=object)))
    polynomials = np.concatenate([random_polynomials(moduli, 1024), extreme_polynomials(moduli, 1024)])

    switched = ring.switch_modulus(polynomials, modulus, threads=2)

    whole = sum(polynomials[:, i].astype(object) * (product // q * pow(product // q, -1, q)) for i, q in enumerate(moduli)) % product
    error = (switched[:, 0].astype(object) * product - whole * modulus) % (modulus * product)
    error = np.minimum(error, modulus * product - error)
    assert int(switched.max()) < modulus
    assert error.max() << 64 <= product * ((1 << 63) + len(bits) * 2 * modulus)


def test_operands_that_do_not_fit_are_refused():
    moduli = largest_primes(1024, 30, 2)
    ring = Ring(1024, moduli)
    polynomial = random_polynomials(moduli, 1024)
    for call in (
        lambda: ring.add_products(polynomial, polynomial[None], polynomial),
        lambda: ring.add_products(polynomial, np.zeros((2, 3, 2, 1024), np.uint64), polynomial),
        lambda: ring.add_products(polynomial, np.zeros((2, 2, 2, 1024), np.int64), polynomial),
        lambda: ring.shift(polynomial[..., :512], 1),
        lambda: ring.switch_modulus(polynomial, 1),
        lambda: ring.switch_modulus(polynomial, 1 << 61),
        lambda: ring.switch_modulus(np.zeros((1, 3, 1024), np.uint64), 17),
    ):
        with pytest.raises(ParameterError):
            call()


def test_threads_do_not_change_residues():
    moduli = largest_primes(2048, 54, 1)
    polynomials = random_polynomials(moduli, 2048, 37)
    ring = Ring(2048, moduli)

    np.testing.assert_array_equal(ring.forward(polynomials.copy(), threads=3), ring.forward(polynomials.copy(), threads=1))


def test_what_no_ring_can_be_made_of_is_refused():
    (q,) = largest_primes(2048, 54, 1)
    for degree, moduli, message in (
        (2047, [q], "power of two"),
        (512, [q], "power of two"),
        (2048, [], "one or more primes"),
        (2048, [1 << 62], "at most 61 bits"),
        (2048, [q + 2], "1 modulo 4096"),
        (2048, [4097 * 8193], "primes"),
    ):
        with pytest.raises(ParameterError, match=message):
            Ring(degree, moduli)


def test_arrays_of_another_shape_or_kind_are_refused():
    moduli = largest_primes(2048, 30, 2)
    ring = Ring(2048, moduli)
    frozen = np.zeros((1, 2048), np.uint64)
    frozen.flags.writeable = False
    for wrong in (
        np.zeros((1, 1024), np.uint64),
        np.zeros((3, 2048), np.uint64),
        np.zeros(2048, np.uint64),
        np.zeros((1, 2048), np.int64),
        np.zeros((1, 4096), np.uint64)[:, ::2],
        frozen,
    ):
        with pytest.raises(ParameterError):
            ring.forward(wrong)


def test_the_environment_can_name_the_instruction_set(monkeypatch):
    monkeypatch.setenv(CPU_VARIABLE, "scalar")
    assert Ring(1024, largest_primes(1024, 30, 1)).cpu == "scalar"
    assert cpu_level(LEVELS[-1]) == LEVELS[-1]

    monkeypatch.setenv(CPU_VARIABLE, "mmx")
    with pytest.raises(ParameterError, match="HE_NN_CPU"):
        Ring(1024, largest_primes(1024, 30, 1))


def test_without_the_extension_one_error_says_so(monkeypatch):
    import sys

    ring_module.core.cache_clear()
    monkeypatch.setitem(sys.modules, "he_backend.ckks._native", None)
    monkeypatch.delattr("he_backend.ckks._native", raising=False)
    try:
        assert not ring_module.available()
        with pytest.raises(EngineError, match="native extension not built"):
            Ring(1024, largest_primes(1024, 30, 1))
    finally:
        ring_module.core.cache_clear()


def encrypt_with_seal(seal, secret, plain):
    """A ciphertext whose mask is written out (adding a copy of it to itself expands the seed)."""
    fresh = seal_format.load(
        seal.api.Ciphertext(), seal.context, seal_format.dump(seal.api.Encryptor(seal.context, secret).encrypt_symmetric(plain))
    )
    total = seal.api.Ciphertext()
    seal.api.Evaluator(seal.context).add(fresh, fresh, total)
    return total


def polynomials_of(cipher):
    """Both polynomials of a ciphertext, uint64 [2, limbs, N]."""
    return np.stack(seal_format.ciphertext_parts(seal_format.dump(cipher)))
