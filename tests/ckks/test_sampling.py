"""The samplers: exact maps from given bytes, and the right distributions on more than a million samples. Seeds are fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from he_backend.ckks import ring as ring_module
from he_backend.ckks import sampling
from he_backend.ckks.primes import largest_primes
from he_backend.ckks.ring import Ring
from he_backend.errors import ParameterError

pytestmark = pytest.mark.skipif(not ring_module.available(), reason="the native core is not built")
LEVELS = list(ring_module.core().cpu_levels()) if ring_module.available() else []
KEY = bytes(range(32))
SAMPLES = 1 << 20
# Fixed seeds make each test deterministic; the bounds are still those of a test that fails once in 10^4 fresh seeds.
LEAST_P = 1e-4


def test_the_stream_can_be_entered_anywhere():
    whole = sampling.key_stream(KEY, 1, 2, 0, 600_000)
    for offset, size in ((16, 1), (262_144, 300_000), (599_984, 16)):
        np.testing.assert_array_equal(sampling.key_stream(KEY, 1, 2, offset, size), whole[offset : offset + size])


def test_streams_of_other_keys_purposes_and_indices_differ():
    streams = [
        sampling.key_stream(key, purpose, index, 0, 64).tobytes() for key in (KEY, bytes(32)) for purpose in (1, 2) for index in (0, 1)
    ]
    assert len(set(streams)) == len(streams)


def test_the_stream_is_aes_256_in_counter_mode():
    # NIST SP 800-38A, F.5.5: the first block of the key stream is AES-256 of the counter block; here of zeros with purpose 0.
    stream = sampling.key_stream(bytes(32), 0, 0, 0, 16)
    assert stream.tobytes().hex() == "dc95c078a2408989ad48a21492842087"  # FIPS 197 / NIST GFSbox: AES-256 of zero under zero


@pytest.mark.parametrize("offset", [-16, 8])
def test_offsets_between_blocks_are_refused(offset):
    with pytest.raises(ParameterError):
        sampling.key_stream(KEY, 1, 0, offset, 16)


def test_keys_of_another_length_are_refused():
    with pytest.raises(ParameterError, match="32"):
        sampling.key_stream(KEY[:-1], 1, 0, 0, 16)


@pytest.mark.parametrize("bits", [22, 30, 45, 54, 61])
def test_residues_are_uniform(bits):
    (q,) = largest_primes(2048, bits, 1)
    residues = sampling.expand_masks(Ring(2048, [q]), KEY, 1, 0, SAMPLES // 2048).ravel()

    assert residues.max() < q
    cells = np.bincount((residues.astype(np.float64) / q * 256).astype(np.int64), minlength=256)
    assert stats.chisquare(cells).pvalue > LEAST_P
    low = np.bincount((residues & np.uint64(255)).astype(np.int64), minlength=256)
    assert stats.chisquare(low).pvalue > LEAST_P
    u = residues.astype(np.float64) / q
    assert abs(u.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / SAMPLES)
    assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / SAMPLES)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / math.sqrt(SAMPLES)


def test_rejection_is_exact_where_a_quarter_is_rejected():
    q = 12289  # of 16384
    residues = sampling.expand_masks(Ring(2048, [q]), KEY, 1, 0, 2 * SAMPLES // 2048).ravel()

    counts = np.bincount(residues.astype(np.int64), minlength=q)
    assert len(counts) == q
    assert stats.chisquare(counts).pvalue > LEAST_P


def test_residues_are_the_accepted_draws_in_order():
    q, degree = 12289, 1024
    ring = Ring(degree, [q])
    draw = sampling.uniform_draw(q, degree)
    stream = sampling.key_stream(KEY, 1, 0, 3 * draw.stride, draw.stride)
    drawn = np.frombuffer(stream[: 2 * draw.draws].tobytes(), "<u2") & (1 << 14) - 1
    main, spare = drawn[:degree].copy(), iter(drawn[degree:])
    for at in np.flatnonzero(main >= q):
        main[at] = next(value for value in spare if value < q)

    np.testing.assert_array_equal(sampling.expand_masks(ring, KEY, 1, 3, 4)[0, 0], main)


def test_a_polynomial_does_not_depend_on_its_neighbours():
    ring = Ring(2048, largest_primes(2048, 27, 2))
    whole = sampling.expand_masks(ring, KEY, 2, 0, 70)

    for start, stop, limbs in ((0, 1, 1), (17, 19, 2), (69, 70, 1), (5, 5, 2)):
        np.testing.assert_array_equal(sampling.expand_masks(ring, KEY, limbs, start, stop), whole[start:stop, :limbs])


@pytest.mark.parametrize("threads", [1, 3])
def test_masks_as_coefficients_are_the_same_masks(threads):
    ring = Ring(2048, largest_primes(2048, 27, 2))
    expected = ring.inverse(sampling.expand_masks(ring, KEY, 2, 0, 50))
    out = np.empty_like(expected)

    np.testing.assert_array_equal(sampling.coefficient_masks(ring, KEY, 2, 50, threads), expected)
    assert sampling.coefficient_masks(ring, KEY, 2, 50, threads, out) is out
    np.testing.assert_array_equal(out, expected)
    for count, limbs in ((49, 2), (50, 1), (50, 3)):
        with pytest.raises(ParameterError):
            sampling.coefficient_masks(ring, KEY, limbs, count, threads, out)


@pytest.mark.parametrize("modulus", [12289, largest_primes(2048, 30, 1)[0], largest_primes(2048, 54, 1)[0], 40961])
def test_replacements_run_out_less_than_once_in_2_to_the_128(modulus):
    draw = sampling.uniform_draw(modulus, 2048)
    bits = modulus.bit_length()
    rejected = 1 - modulus / 2**bits

    assert draw.draw_bytes * 8 >= bits and draw.stride >= draw.draws * draw.draw_bytes
    assert stats.binom.logsf(draw.draws - 2048, draw.draws, rejected) / math.log(2) < -128


def test_a_polynomial_whose_replacements_ran_out_is_drawn_again():
    q, degree = 12289, 1024
    few = sampling.UniformDraw(q, degree + 1, 2, 2 * degree + 16)
    out = np.full((5, 1, degree), 1 << 40, dtype=np.uint64)

    sampling.fill_uniform(out, 0, KEY, 7, few)

    assert out.max() < q
    assert len(np.unique(out[:, 0], axis=0)) == 5
    again = np.empty((1, 1, degree), dtype=np.uint64)
    sampling.fill_uniform(again, 0, KEY, 9, few)
    np.testing.assert_array_equal(again[0], out[2])


def test_secrets_are_uniform_ternary():
    secrets = sampling.ternary_secrets(KEY, SAMPLES // 2048, 2048)

    assert secrets.dtype == np.int8 and set(np.unique(secrets)) == {-1, 0, 1}
    counts = np.bincount(secrets.ravel().astype(np.int64) + 1)
    assert stats.chisquare(counts).pvalue > LEAST_P
    pairs = np.bincount(((secrets.ravel()[::2] + 1) * 3 + secrets.ravel()[1::2] + 1).astype(np.int64), minlength=9)
    assert stats.chisquare(pairs).pvalue > LEAST_P


@pytest.mark.parametrize("level", LEVELS)
def test_errors_have_seals_distribution(level):
    stream = sampling.error_bytes(KEY, SAMPLES // 2048, 2048)
    errors = sampling.binomial_errors(stream, level)

    assert len(errors) == SAMPLES and np.abs(errors).max() <= sampling.MAX_ERROR
    assert abs(errors.mean()) < 5 * math.sqrt(sampling.ERROR_VARIANCE / SAMPLES)
    kurtosis_of_binomial = 3 - 2 / 42
    assert abs(errors.var() - sampling.ERROR_VARIANCE) < 5 * sampling.ERROR_VARIANCE * math.sqrt((kurtosis_of_binomial - 1) / SAMPLES)
    expected = stats.binom.pmf(np.arange(43), 42, 0.5) * SAMPLES
    counts = np.bincount(errors + 21, minlength=43)
    tails = expected < 20
    merged = np.append(counts[~tails], counts[tails].sum()), np.append(expected[~tails], expected[tails].sum())
    assert stats.chisquare(*merged).pvalue > LEAST_P


@pytest.mark.parametrize("level", LEVELS)
def test_errors_are_the_counts_of_the_documented_bits(level):
    generator = np.random.default_rng(5)
    planes = generator.integers(0, 2, (3, 42, 512), dtype=np.uint8)
    planes[1], planes[2, :, ::2] = 1, 0
    stream = np.packbits(planes, axis=2, bitorder="little").ravel()

    np.testing.assert_array_equal(sampling.binomial_errors(stream, level), planes.sum(axis=1, dtype=np.int64).ravel() - 21)


def test_error_bytes_can_be_made_for_any_polynomials():
    whole = sampling.error_bytes(KEY, 9, 1000)
    each = sampling.noise_bytes(1000)

    assert each == 2 * 42 * 64
    np.testing.assert_array_equal(sampling.error_bytes(KEY, 2, 1000, start=4), whole[4 * each : 6 * each])
