"""Linear maps against Python integers, on random and on adversarial inputs; modulus switching within its bound; bit packing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.ckks import ring as ring_module
from he_backend.ckks.linear import LinearBlock, LinearMap
from he_backend.ckks.primes import largest_primes
from he_backend.ckks.ring import Ring
from he_backend.errors import ParameterError

pytestmark = pytest.mark.skipif(not ring_module.available(), reason="the native core is not built")
bits_module = pytest.importorskip("he_backend.ckks.bits")
exact_linear = pytest.importorskip("he_backend.ckks.exact_linear")
LEVELS = list(ring_module.core().cpu_levels()) if ring_module.available() else []
DEGREE = 1024


def ring_of(bits, level=None):
    return Ring(DEGREE, [largest_primes(DEGREE, b, bits.count(b))[bits[:i].count(b)] for i, b in enumerate(bits)], level)


def dense(weights):
    """A LinearMap of one matrix int [in, out]."""
    k, m = weights.shape
    gather, scatter = np.arange(k, dtype=np.int32).reshape(1, 1, k), np.arange(m, dtype=np.int32).reshape(1, 1, m)
    return LinearMap(k, m, (LinearBlock(gather, weights.astype(np.int32)[None], scatter),))


def random_map(generator, in_count, out_count, weight_bits, shapes):
    top = 1 << (weight_bits - 1)
    blocks = []
    for groups, places, terms, outs in shapes:
        gather = generator.integers(-1, in_count, (groups, places, terms)).astype(np.int32)
        weights = generator.integers(-top, top, (groups, terms, outs)).astype(np.int32)
        scatter = generator.integers(0, out_count, (groups, places, outs)).astype(np.int32)
        blocks.append(LinearBlock(gather, weights, scatter))
    return LinearMap(in_count, out_count, tuple(blocks))


def oracle(linear, body, moduli):
    """The exact result in Python integers, object [columns, out_count, limbs, width]."""
    columns, _, limbs, width = body.shape
    padded = np.concatenate([body.astype(object), np.zeros((columns, 1, limbs, width), dtype=object)], axis=1)
    out = np.zeros((columns, linear.out_count, limbs, width), dtype=object)
    for block in linear.blocks:
        for g, p in np.ndindex(*block.gather.shape[:2]):
            terms = padded[:, block.gather[g, p]]
            for m in range(block.weights.shape[2]):
                out[:, block.scatter[g, p, m]] += np.tensordot(terms, block.weights[g, :, m].astype(object), axes=(1, 0))
    for limb, q in enumerate(moduli):
        out[:, :, limb] %= q
    return out


def random_body(generator, moduli, columns, count, width):
    """Residues, a third of them at the extremes 0 and q - 1."""
    parts = []
    for q in moduli:
        part = generator.integers(0, q, (columns, count, width), dtype=np.uint64)
        part[:, :, ::6], part[:, :, 1::6] = 0, q - 1
        parts.append(part)
    return np.stack(parts, axis=2)


def bit_stream(row, bits):
    """Values of `bits` bits as a little-endian bit stream of whole 64-bit words."""
    whole = sum(int(value) << (bits * i) for i, value in enumerate(row))
    return whole.to_bytes(-(-len(row) * bits // 64) * 8, "little")


def wire_bytes(body, moduli):
    """body [columns, count, limbs, width] element by element, in it limb by limb, in it column by column."""
    columns, count, limbs, _ = body.shape
    order = [(c, e, limb) for e in range(count) for limb in range(limbs) for c in range(columns)]
    return b"".join(bit_stream(body[c, e, limb], moduli[limb].bit_length()) for c, e, limb in order)


def combined(residues, moduli):
    """The integers in [0, Q) that residues object [..., limbs, width] stand for."""
    product = math.prod(moduli)
    total = sum(residues[..., limb, :] * (product // q * pow(product // q, -1, q)) for limb, q in enumerate(moduli))
    return total % product


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [(20,), (30,), (31,), (45,), (54,), (61,), (30, 22), (30, 24, 24)], ids=str)
@pytest.mark.parametrize("weight_bits", [2, 8, 13, 16, 17, 24])
def test_results_are_exact(level, bits, weight_bits):
    generator = np.random.default_rng(weight_bits)
    ring = ring_of(bits, level)
    linear = random_map(generator, 12, 11, weight_bits, [(2, 2, 5, 4), (1, 1, 12, 7), (1, 3, 1, 1), (1, 1, 4, 0)])
    body = random_body(generator, ring.moduli, 2, 12, 67)

    out = exact_linear.ExactLinear(ring, len(bits), linear).residues(body)

    np.testing.assert_array_equal(out.astype(object), oracle(linear, body, ring.moduli))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weight", [-(1 << 15), (1 << 15) - 1, -(1 << 23), (1 << 23) - 1, 127, -128])
@pytest.mark.parametrize("residue", ["zero", "largest", "alternating", "digits"])
@pytest.mark.parametrize("bits", [30, 54, 61])
def test_extreme_weights_and_residues_are_exact(level, weight, residue, bits):
    terms = 301
    ring = ring_of((bits,), level)
    (q,) = ring.moduli
    body = np.zeros((1, terms, 1, 64), dtype=np.uint64)
    if residue == "largest":
        body[...] = q - 1
    elif residue == "alternating":
        body[:, ::2] = q - 1
    elif residue == "digits":  # the largest and smallest digit of every width
        body[...] = np.array([(1 << b) - 1 for b in range(bits)] * 3, dtype=np.uint64)[:64] % np.uint64(q)
    signs = np.array([np.ones(terms), (-1.0) ** np.arange(terms), -np.ones(terms)]).T
    weights = np.clip(weight * signs, -(1 << 23), (1 << 23) - 1).astype(np.int64)
    linear = dense(weights)

    out = exact_linear.ExactLinear(ring, 1, linear).residues(body)

    expected = np.tensordot(body[0, :, 0].astype(object), weights.astype(object), axes=(0, 0)).T % q
    np.testing.assert_array_equal(out[0, :, 0].astype(object), expected)


def test_every_instruction_set_and_number_of_threads_switches_to_the_same_bits():
    generator = np.random.default_rng(8)
    linear = random_map(generator, 40, 30, 12, [(2, 4, 9, 13), (1, 1, 40, 8)])
    body = random_body(generator, ring_of((30, 24)).moduli, 2, 40, 150)
    (p,) = largest_primes(DEGREE, 22, 1)
    expected = exact_linear.ExactLinear(ring_of((30, 24), "scalar"), 2, linear).switched(body, p)

    for level in LEVELS:
        np.testing.assert_array_equal(exact_linear.ExactLinear(ring_of((30, 24), level), 2, linear).switched(body, p, threads=3), expected)


@pytest.mark.parametrize("bits", [(30,), (54,), (61,), (30, 24), (30, 24, 24, 24)], ids=str)
@pytest.mark.parametrize("answer_bits", [12, 20, 29, 31])
def test_switching_stays_within_its_bound(bits, answer_bits):
    generator = np.random.default_rng(9)
    ring = ring_of(bits)
    linear = random_map(generator, 30, 20, 14, [(1, 2, 30, 20)])
    ready = exact_linear.ExactLinear(ring, len(bits), linear)
    p = (1 << answer_bits) - 3 if answer_bits < 30 or len(bits) > 1 or bits[0] > 31 else ring.moduli[0]
    body = random_body(generator, ring.moduli, 1, 30, 200)
    product = math.prod(ring.moduli)

    switched = ready.switched(body, p)

    exact = combined(oracle(linear, body, ring.moduli), ring.moduli)
    assert switched.max() < p
    error = (switched[:, :, 0].astype(object) * product - exact * p) % (p * product)
    error = np.minimum(error, p * product - error)
    bound = ready.switch_error(p)
    assert error.max() <= bound * product
    assert error.max() > 0.4 * product or p == product  # the bound is not idle
    assert bound < (1 if answer_bits < 29 else 8)


@pytest.mark.parametrize("in_count", [300, 5000])
def test_many_inputs_are_worked_through_in_stages(in_count):
    generator = np.random.default_rng(10)
    ring = ring_of((54,))
    wide = random_map(generator, in_count, 40, 10, [(1, 1, in_count, 5), (3, 20, 50, 2), (in_count // 10, 1, 10, 1)])
    linear = LinearMap(in_count, 45, wide.blocks)  # outputs 40 to 44 have no weights
    ready = exact_linear.ExactLinear(ring, 1, linear)
    body = random_body(generator, ring.moduli, 1, in_count, 3)
    out = np.full((1, 45, 1, 3), 12345, dtype=np.uint64)

    ready.residues(body, out=out)

    assert (ready._handle.stages > 1) == (in_count > 4000)
    np.testing.assert_array_equal(out.astype(object), oracle(linear, body, ring.moduli))
    assert not out[:, 40:].any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits, columns, width", [((54,), 3, 130), ((30,), 1, 1), ((30, 22), 2, 64), ((30, 24, 24), 2, 1024)])
def test_packed_words_in_and_out_equal_arrays(level, bits, columns, width):
    generator = np.random.default_rng(11)
    ring = ring_of(bits, level)
    ready = exact_linear.ExactLinear(ring, len(bits), random_map(generator, 6, 5, 8, [(1, 2, 6, 3)]))
    body = random_body(generator, ring.moduli, columns, 6, width)
    (p,) = largest_primes(DEGREE, 19, 1)
    words = np.frombuffer(wire_bytes(body, ring.moduli), "<u8")

    answer = ready.switched_words(words, columns, width, p)

    assert answer.tobytes() == wire_bytes(ready.switched(body, p), (p,))


def test_maps_and_arrays_that_do_not_fit_are_refused():
    ring = ring_of((30,))
    good = dense(np.ones((3, 2)))
    block = good.blocks[0]
    for wrong, message in (
        (LinearMap(2, 2, good.blocks), "gather"),
        (LinearMap(3, 1, good.blocks), "scatter"),
        (LinearMap(3, 2, (LinearBlock(block.gather - 2, block.weights, block.scatter),)), "gather"),
        (LinearMap(3, 2, (LinearBlock(block.gather, block.weights << 23, block.scatter),)), "24 bits"),
        (LinearMap(3, 2, (LinearBlock(block.gather, block.weights[:, :2], block.scatter),)), "terms"),
        (LinearMap(3, 2, (LinearBlock(block.gather, block.weights, block.scatter[:, :, :1]),)), "outs"),
    ):
        with pytest.raises((ParameterError, IndexError), match=message if "gather" not in message else None):
            exact_linear.ExactLinear(ring, 1, wrong)
    ready = exact_linear.ExactLinear(ring, 1, good)
    body = np.zeros((1, 3, 1, 64), dtype=np.uint64)
    for call in (
        lambda: ready.residues(body[:, :2]),
        lambda: ready.residues(body.astype(np.int64)),
        lambda: ready.residues(body, out=np.zeros((1, 2, 1, 63), np.uint64)),
        lambda: ready.switched(body, 1 << 31),
        lambda: ready.switched(body, 1),
        lambda: ready.switched(body, ring.moduli[0] + 2),
        lambda: ready.switched_words(np.zeros(3, np.uint64), 1, 64, 1 << 20),
        lambda: ready.residues(np.zeros((1, 3, 1, 2048), np.uint64)),
        lambda: exact_linear.ExactLinear(ring, 2, good),
    ):
        with pytest.raises(ParameterError):
            call()


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 61),
    n=st.integers(1, 300),
    rows=st.integers(1, 4),
    seed=st.integers(0, 1 << 32),
    level=st.sampled_from(LEVELS or [""]),
)
def test_packing_is_undone_by_unpacking(bits, n, rows, seed, level):
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 1 << bits, (rows, n), dtype=np.uint64)
    values[:, ::5] = (1 << bits) - 1

    words = bits_module.pack(values, bits, cpu=level, threads=2)

    assert words.tobytes() == b"".join(bit_stream(row, bits) for row in values)
    np.testing.assert_array_equal(bits_module.unpack(words, bits, n, cpu=level, threads=2), values)


def test_rows_that_cannot_be_packed_are_refused():
    values = np.zeros((2, 100), dtype=np.uint64)
    for call in (
        lambda: bits_module.pack(values, 0),
        lambda: bits_module.pack(values, 62),
        lambda: bits_module.pack(values.astype(np.int64), 8),
        lambda: bits_module.pack(values[0], 8),
        lambda: bits_module.pack(values, 8, out=np.zeros((2, 12), np.uint64)),
        lambda: bits_module.unpack(np.zeros((2, 13), np.uint64), 8, 105),
    ):
        with pytest.raises(ParameterError):
            call()
