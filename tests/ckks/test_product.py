"""Sums of polynomial products by the core against Python integers, and encrypted against the derived noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from he_backend.ckks import bits as bits_module
from he_backend.ckks import engines, secret, serial
from he_backend.ckks import ring as ring_module
from he_backend.ckks.params import load_params
from he_backend.ckks.primes import largest_primes
from he_backend.ckks.product import NativeProduct, ProductMap, clear_product
from he_backend.ckks.ring import Ring
from he_backend.errors import EngineError, ParameterError, ProtocolError

native = pytest.mark.skipif(not ring_module.available(), reason="the native core is not built")
LEVELS = list(ring_module.core().cpu_levels()) if ring_module.available() else []
DEGREE = 1024


def product_map(rng, degree, in_count=3, out_count=4, width=50, terms=40, bits=16):
    """Random sparse weight polynomials for about half of the pairs, some coefficients given twice; the last output has none."""
    pairs = [(q, p) for q in range(out_count - 1) for p in range(in_count) if (q + p) % 2 == 0]
    starts = np.arange(len(pairs) + 1, dtype=np.int64) * terms
    index = rng.integers(0, degree, len(pairs) * terms).astype(np.int32)
    index[1::terms] = index[0::terms]
    weights = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), len(index)).astype(np.int32)
    outputs, inputs = (np.array([pair[i] for pair in pairs], np.int32) for i in (0, 1))
    return ProductMap(degree, in_count, out_count, width, outputs, inputs, starts, index, weights)


def oracle(product, values):
    """The exact sums of object values [columns, in_count, N]: object [columns, out_count, N]."""
    n = product.degree
    out = np.zeros((len(values), product.out_count, n), dtype=object)
    for q, p, weights in product.polynomials():
        for t in np.flatnonzero(weights):
            shifted = np.concatenate([-values[:, p, n - t :], values[:, p, : n - t]], axis=1)
            out[:, q] += shifted * int(weights[t])
    return out


def core_product(ring, product):
    parts = (product.outputs, product.inputs, product.starts, product.index, product.weights)
    storage = np.empty(product.pairs * len(ring.moduli) * ring.degree, dtype=np.uint64)
    return ring_module.core().Product(ring.handle, len(ring.moduli), product.in_count, product.out_count, *parts, storage, 2)


def packed(values, moduli):
    """object [columns, count, N] -> words as a tensor's body lies: by element, by prime, by column."""
    rows = [
        bits_module.pack(np.array(values[c, i] % q, dtype=np.uint64)[None], q.bit_length()).ravel()
        for i in range(values.shape[1])
        for q in moduli
        for c in range(len(values))
    ]
    return np.concatenate(rows)


@native
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [(20,), (30,), (45,), (54,), (61,), (30, 22), (30, 24, 24)], ids=str)
def test_products_are_exact_and_switched_within_their_bound(level, bits):
    rng = np.random.default_rng(1)
    ring = Ring(DEGREE, [largest_primes(DEGREE, b, bits.count(b))[bits[:i].count(b)] for i, b in enumerate(bits)], level)
    product, q = product_map(rng, DEGREE), math.prod(ring.moduli)
    values = np.array([int(v) for v in rng.integers(0, 1 << 62, 2 * 3 * DEGREE)], dtype=object).reshape(2, 3, DEGREE) * 12345678901 % q
    values[:, :, ::5] = q - 1
    (p,) = largest_primes(DEGREE, min(29, sum(bits) - 1), 1)
    words = np.empty(2 * 4 * bits_module.packed_words(50, p.bit_length()), dtype=np.uint64)

    core_product(ring, product).apply(packed(values, ring.moduli), False, words, 2, 50, p, 2)

    got = bits_module.unpack(words.reshape(8, -1), p.bit_length(), 50).reshape(4, 2, 50).transpose(1, 0, 2).astype(object)
    exact = oracle(product, values)[:, :, :50] % q
    error = (got * q - exact * p) % (p * q)
    error = np.minimum(error, p * q - error)
    assert got.max() < p
    assert error.max() <= 0.500001 * q
    assert not got[:, 3].any()


@native
def test_sums_of_many_large_terms_are_reduced_in_time():
    count = 300
    (q,) = largest_primes(DEGREE, 61, 1)
    ring = Ring(DEGREE, [q])
    starts = np.arange(count + 1, dtype=np.int64)
    zeros = np.zeros(count, np.int32)
    product = ProductMap(DEGREE, count, 1, DEGREE, zeros, np.arange(count, dtype=np.int32), starts, zeros, zeros - 1)
    values = np.full((count, 1, DEGREE), q - 1, dtype=np.uint64)  # values of the transform, not coefficients
    (p,) = largest_primes(DEGREE, 30, 1)
    words = np.empty(bits_module.packed_words(DEGREE, 30), dtype=np.uint64)

    core_product(ring, product).apply(values, True, words, 1, DEGREE, p, 1)

    got = bits_module.unpack(words[None], 30, DEGREE)[0]
    assert abs(int(got[0]) - round(count * p / q)) <= 1 and not got[1:].any()  # (q - 1)(q - 1) * 300 = 300 at every point


@native
@pytest.mark.parametrize("preset, level", [("N11_L1", 1), ("N11_L1_small", 1), ("N12_L4", 2), ("N13_L8", 2)])
@pytest.mark.parametrize("columns", [1, 3])
def test_encrypted_products_are_within_the_derived_noise(preset, level, columns):
    rng = np.random.default_rng(2)
    params = load_params(preset)
    n, q = params.ring_degree, math.prod(params.moduli[:level])
    product = product_map(rng, n, bits=8)
    key = secret.generate("native", params)
    values = rng.integers(-20, 21, (3, columns * n)).astype(np.float64)
    scale = float(max(1, q >> 24))
    tensor = key.encrypt(values, scale, level)
    arrived = engines.read_tensor(serial.header_of(tensor), serial.to_pieces(tensor))

    answer = engines.ready_map("native", params, product, level, min(31, q.bit_length() - 1), threads=2)(arrived)
    back = engines.read_tensor(serial.header_of(answer), serial.to_pieces(answer))
    switched = back.moduli[0] / q
    got = key.decrypt(back, scale * switched, columns * 50)

    exact = oracle(product, values.reshape(3, columns, n).transpose(1, 0, 2).astype(np.int64).astype(object))[:, :, :50]
    due = exact.astype(np.float64).transpose(1, 0, 2).reshape(4, -1)
    sigma = math.sqrt(10.6 * product.error_norms()[1].max() + (1 + n * 2 / 3) / 12 / switched**2)
    assert np.abs(got - due).max() <= 8 * sigma / scale
    assert (back.width, back.count, back.columns) == (50, 4, columns)
    clear = secret.generate("clear", params).encrypt(values, 1.0, level)
    plain = clear_product(clear, product)
    assert np.array_equal(secret.generate("clear", params).decrypt(plain, 1.0, columns * 50), due)


@native
def test_tensors_and_maps_that_do_not_fit_are_refused():
    rng = np.random.default_rng(3)
    params = load_params("N11_L1")
    ready = NativeProduct(params, product_map(rng, 2048), 1, engines.answer_modulus(2048, 24, params.moduli[0]), 1)
    key = secret.generate("native", params)
    for shape in ((2, 2048), (3, 2047)):
        with pytest.raises(ProtocolError, match="3 fresh, whole polynomials"):
            ready(key.encrypt(np.ones(shape), 2.0**20, 1))
    with pytest.raises(EngineError, match="take packing 'batch'"):
        engines.ready_map("seal", params, product_map(rng, 2048), 1, 0)
    good = product_map(rng, 2048)
    for field, value in (
        ("outputs", good.outputs + 4),
        ("inputs", good.inputs - 3),
        ("index", good.index + 2048),
        ("starts", good.starts[::-1].copy()),
    ):
        with pytest.raises(ParameterError, match="weight polynomials"):
            NativeProduct(params, ProductMap(**{**good.__dict__, field: value}), 1, engines.answer_modulus(2048, 24, params.moduli[0]), 1)


def test_clear_tensors_that_do_not_fit_are_refused():
    params = load_params("N11_L1")
    product = product_map(np.random.default_rng(4), 2048)
    for shape in ((2, 2048), (3, 100)):
        with pytest.raises(ProtocolError, match="3 whole polynomials"):
            clear_product(secret.generate("clear", params).encrypt(np.ones(shape), 1.0, 1), product)
