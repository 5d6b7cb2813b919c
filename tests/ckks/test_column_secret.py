"""Encryption under shared masks: SEAL decrypts what we encrypt and the other way round, and what cannot be encrypted is refused."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.ckks import ring as ring_module
from he_backend.ckks import sampling, seal_format
from he_backend.ckks.exact_linear import ExactLinear
from he_backend.ckks.linear import LinearBlock, LinearMap
from he_backend.ckks.params import load_params
from he_backend.ckks.primes import largest_primes
from he_backend.ckks.ring import Ring
from he_backend.ckks.seal import SealContext
from he_backend.errors import CapacityError, ParameterError

pytestmark = pytest.mark.skipif(not ring_module.available(), reason="the native core is not built")
column_secret = pytest.importorskip("he_backend.ckks.column_secret")
LEVELS = list(ring_module.core().cpu_levels()) if ring_module.available() else []
SEED, KEY = bytes(range(32)), bytes(range(1, 33))
PRESET_LEVELS = [("N11_L1", 1), ("N11_L1_small", 1), ("N12_L4", 2), ("N13_L8", 2), ("N13_L8", 7)]


def bit_stream(row, bits):
    whole = sum(int(value) << (bits * i) for i, value in enumerate(row))
    return whole.to_bytes(-(-len(row) * bits // 64) * 8, "little")


def wire_bytes(body, moduli):
    """body [columns, count, limbs, width] element by element, in it limb by limb, in it column by column."""
    columns, count, limbs, _ = body.shape
    order = [(c, e, limb) for e in range(count) for limb in range(limbs) for c in range(columns)]
    return b"".join(bit_stream(body[c, e, limb], moduli[limb].bit_length()) for c, e, limb in order)


def secrets_of(ring, columns, seed=1):
    ternary = np.random.default_rng(seed).integers(-1, 2, (columns, ring.degree)).astype(np.int8)
    return column_secret.ColumnSecrets(ring, columns, ternary), ternary


def coefficient_masks(ring, limbs, count):
    return ring.inverse(sampling.expand_masks(ring, SEED, limbs, 0, count))


class SealParty:
    """SEAL under a preset, with a known secret key."""

    def __init__(self, preset):
        self.params = load_params(preset)
        self.seal = SealContext(self.params)
        self.ring = Ring(self.params.ring_degree, self.params.all_moduli)
        self.secret = self.seal.api.KeyGenerator(self.seal.context).secret_key()
        words = seal_format.dump(self.secret.data())
        key = np.frombuffer(words[-8 * self.params.ring_degree * len(self.params.all_moduli) :], "<u8")
        residues = self.ring.inverse(key.reshape(1, -1, self.params.ring_degree).astype(np.uint64))[0, 0]
        self.ternary = np.where(residues == self.params.all_moduli[0] - 1, -1, residues.astype(np.int64)).astype(np.int8)

    def decrypt(self, body, mask, level):
        """Coefficient residues [limbs, N] of what SEAL decrypts; body and mask in NTT form."""
        members = seal_format.ciphertext_members(self.seal.parms_id(level), body, mask, 1.0)
        cipher = seal_format.load(self.seal.api.Ciphertext(), self.seal.context, members)
        plain = self.seal.api.Plaintext()
        self.seal.api.Decryptor(self.seal.context, self.secret).decrypt(cipher, plain)
        words = np.frombuffer(seal_format.dump(plain)[-8 * level * self.params.ring_degree :], "<u8")
        return self.ring.inverse(words.reshape(1, level, -1).astype(np.uint64))[0]


@pytest.mark.parametrize("preset, level", PRESET_LEVELS)
def test_seal_decrypts_what_we_encrypt(preset, level):
    party = SealParty(preset)
    degree = party.params.ring_degree
    values = np.random.default_rng(2).uniform(-1, 1, (3, degree))
    scale = 2.0**18
    secrets = column_secret.ColumnSecrets(party.ring, 1, party.ternary[None])

    body = secrets.encrypt(values, scale, SEED, level)

    values_form = party.ring.forward(body.copy())
    mask = sampling.expand_masks(party.ring, SEED, level, 0, 3)
    for element in range(3):
        residues = party.decrypt(values_form[0, element], mask[element], level)
        for limb, q in enumerate(party.params.moduli[:level]):
            signed = np.where(residues[limb] > q // 2, residues[limb].astype(np.int64) - q, residues[limb].astype(np.int64))
            error = signed - np.rint(values[element] * scale)
            assert np.abs(error).max() <= sampling.MAX_ERROR
            assert 2.5 < error.std() < 4


@pytest.mark.parametrize("preset, level", PRESET_LEVELS)
def test_we_decrypt_what_seal_encrypts(preset, level):
    party = SealParty(preset)
    degree = party.params.ring_degree
    api, plain, total = party.seal.api, party.seal.api.Plaintext(), party.seal.api.Ciphertext()
    party.seal.encoder.encode(0.5, party.seal.parms_id(level), 2.0**18, plain)
    encryptor, evaluator = api.Encryptor(party.seal.context, party.secret), api.Evaluator(party.seal.context)
    fresh = [seal_format.load(api.Ciphertext(), party.seal.context, seal_format.dump(encryptor.encrypt_symmetric(plain))) for _ in range(2)]
    evaluator.add(fresh[0], fresh[1], total)
    body, mask = seal_format.ciphertext_parts(seal_format.dump(total))
    party.ring.inverse(body := body[None, None].copy())
    party.ring.inverse(mask := mask[None].copy())

    values = column_secret.ColumnSecrets(party.ring, 1, party.ternary[None]).decrypt(body, mask, 1.0, degree)

    assert abs(values[0, 0] - 2**18) <= 2 * sampling.MAX_ERROR  # the constant 0.5, added to itself
    assert np.abs(values[0, 1:]).max() <= 2 * sampling.MAX_ERROR


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "degree, bits, limbs", [(2048, (54,), 1), (1024, (20,), 1), (1024, (45,), 1), (4096, (30, 24), 2), (1024, (61, 60, 25), 3)]
)
def test_every_instruction_set_encrypts_to_the_same_bits(level, degree, bits, limbs):
    moduli = [largest_primes(degree, b, 1)[0] for b in bits]
    values = np.random.default_rng(3).normal(size=(5, 3 * degree - 77))
    scale = 2.0**12 if limbs == 1 else 2.0**40
    portable, ring = Ring(degree, moduli, "scalar"), Ring(degree, moduli, level)
    expected = secrets_of(portable, 3)[0].encrypt(values, scale, SEED, limbs, error_key=KEY)

    secrets, _ = secrets_of(ring, 3)
    body = secrets.encrypt(values, scale, SEED, limbs, threads=2, error_key=KEY)

    np.testing.assert_array_equal(body, expected)
    mask = coefficient_masks(ring, limbs, 5)
    decrypted = secrets.decrypt(body, mask, scale, values.shape[1])
    assert np.abs(decrypted - values).max() <= (sampling.MAX_ERROR + 0.5) / scale
    np.testing.assert_array_equal(decrypted, secrets_of(portable, 3)[0].decrypt(body, mask, scale, values.shape[1], threads=3))


def test_the_formula_holds_coefficient_by_coefficient():
    degree, (q,) = 1024, largest_primes(1024, 54, 1)
    ring = Ring(degree, [q])
    secrets, ternary = secrets_of(ring, 2)
    values = np.random.default_rng(4).normal(size=(2, 2 * degree))

    body = secrets.encrypt(values, 1000.0, SEED, error_key=KEY)

    mask = coefficient_masks(ring, 1, 2)
    errors = sampling.binomial_errors(sampling.error_bytes(KEY, 4, degree), "scalar").reshape(2, 2, degree)
    for element in range(2):
        for column in range(2):
            product = np.append(np.convolve(mask[element, 0].astype(object), ternary[column].astype(object)), 0)
            message = np.rint(values[element, column * degree : (column + 1) * degree] * 1000.0).astype(np.int64)
            expected = (message + errors[element, column] - (product[:degree] - product[degree:])) % q
            np.testing.assert_array_equal(body[column, element, 0].astype(object), expected)


def test_few_rows_are_sent_as_few_coefficients():
    ring = Ring(2048, largest_primes(2048, 54, 1))
    secrets, _ = secrets_of(ring, 1)
    values = np.random.default_rng(5).normal(size=(4, 100))

    body = secrets.encrypt(values, 2.0**20, SEED)

    assert body.shape == (1, 4, 1, 100)
    assert np.abs(secrets.decrypt(body, coefficient_masks(ring, 1, 4), 2.0**20, 100) - values).max() < 22 / 2**20


def test_tiles_and_threads_do_not_change_the_bits(monkeypatch):
    ring = Ring(2048, largest_primes(2048, 30, 1))
    values = np.random.default_rng(6).normal(size=(23, 3000))
    secrets, _ = secrets_of(ring, 2)
    expected = secrets.encrypt(values, 2.0**10, SEED, error_key=KEY)

    monkeypatch.setattr(column_secret, "_TILE_BYTES", 1)

    np.testing.assert_array_equal(secrets.encrypt(values, 2.0**10, SEED, threads=3, error_key=KEY), expected)


def test_large_values_use_all_primes():
    ring = Ring(4096, [largest_primes(4096, bits, 1)[0] for bits in (30, 22, 27)])
    secrets, _ = secrets_of(ring, 1)
    values = np.array([[2.0**60, -(2.0**60), 1.0, 0.0, -(2.0**31)] * 800])

    body = secrets.encrypt(values, 1.0, SEED, 3)

    decrypted = secrets.decrypt(body, coefficient_masks(ring, 3, 1), 1.0, 4000)
    np.testing.assert_allclose(decrypted, values, rtol=1e-15, atol=21)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**29])
def test_values_that_do_not_fit_are_refused(bad):
    ring = Ring(1024, largest_primes(1024, 30, 1))
    secrets, _ = secrets_of(ring, 1)
    for position in (0, 500, 1000):
        values = np.zeros((3, 1001))
        values[1, position] = bad
        with pytest.raises(CapacityError, match="smaller scale"):
            secrets.encrypt(values, 1.0, SEED)


def test_the_largest_value_that_fits_survives():
    (q,) = largest_primes(1024, 30, 1)
    ring = Ring(1024, [q])
    secrets, _ = secrets_of(ring, 1)
    most = q // 2 - sampling.MAX_ERROR - 1
    values = np.tile([float(most), float(-most)], (4, 512))

    decrypted = secrets.decrypt(secrets.encrypt(values, 1.0, SEED), coefficient_masks(ring, 1, 4), 1.0, 1024)

    assert np.abs(decrypted - values).max() <= sampling.MAX_ERROR
    with pytest.raises(CapacityError):
        secrets.encrypt(values + np.sign(values), 1.0, SEED)


def test_arrays_that_do_not_fit_are_refused():
    ring = Ring(1024, largest_primes(1024, 30, 1))
    secrets, ternary = secrets_of(ring, 2)
    body, mask = secrets.encrypt(np.zeros((2, 2000)), 1.0, SEED), coefficient_masks(ring, 1, 2)
    for wrong in (
        lambda: secrets.encrypt(np.zeros((2, 1000)), 1.0, SEED),
        lambda: secrets.encrypt(np.zeros((2, 2049)), 1.0, SEED),
        lambda: secrets.encrypt(np.zeros((2, 2000)), 1.0, SEED, limbs=2),
        lambda: secrets.encrypt(np.zeros((2, 2000)), 1.0, SEED[:5]),
        lambda: secrets.decrypt(body[:1], mask, 1.0, 2000),
        lambda: secrets.decrypt(body, mask[:1], 1.0, 2000),
        lambda: secrets.decrypt(body, mask.astype(np.int64), 1.0, 2000),
        lambda: secrets.decrypt(body, mask, 1.0, 3000),
        lambda: secrets.encrypt(np.zeros((2, 2000), np.float16), 1.0, SEED),
        lambda: secrets.encrypt(np.zeros((4, 4000))[::2, ::2], 1.0, SEED),
        lambda: secrets.encrypt_words(np.zeros((2, 2000)), 1.0, SEED, out=np.zeros(5, np.uint64)),
        lambda: secrets.decrypt_words(body.ravel(), mask.ravel(), 1.0, np.zeros((2, 2000))),
        lambda: secrets.under(Ring(2048, largest_primes(2048, 30, 1))),
        lambda: column_secret.ColumnSecrets(ring, 0),
        lambda: column_secret.ColumnSecrets(ring, 2, ternary[:, :-1].copy()),
        lambda: column_secret.ColumnSecrets(ring, 2, ternary * np.int8(2)),
    ):
        with pytest.raises(ParameterError):
            wrong()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "degree, bits, columns, rows, count", [(2048, (54,), 2, 3000, 19), (1024, (29,), 1, 333, 33), (1024, (30, 24), 3, 2100, 5)]
)
def test_values_may_lie_either_way_and_ciphertexts_may_be_packed(level, dtype, degree, bits, columns, rows, count):
    moduli = [largest_primes(degree, b, 1)[0] for b in bits]
    ring = Ring(degree, moduli, level)
    secrets, _ = secrets_of(ring, columns)
    features = np.random.default_rng(7).normal(size=(rows, count + 3)).astype(dtype)
    scale, limbs = 2.0**11, len(bits)
    values = np.ascontiguousarray(features[:, 2 : count + 2].T)
    expected = secrets.encrypt(values.astype(np.float64), scale, SEED, limbs, error_key=KEY)
    expected_words = np.frombuffer(wire_bytes(expected, moduli), "<u8")

    np.testing.assert_array_equal(secrets.encrypt(values, scale, SEED, limbs, error_key=KEY), expected)
    np.testing.assert_array_equal(secrets.encrypt(features[:, 2 : count + 2].T, scale, SEED, limbs, error_key=KEY), expected)
    words = secrets.encrypt_words(features[:, 2 : count + 2].T, scale, SEED, limbs, threads=2, error_key=KEY)
    np.testing.assert_array_equal(words, expected_words)

    mask = coefficient_masks(ring, limbs, count)
    mask_words = np.frombuffer(wire_bytes(mask[None], moduli), "<u8")
    decrypted = secrets.decrypt(expected, mask, scale, rows)
    answer = np.full((rows, count + 1), 99, dtype=dtype)
    secrets.decrypt_words(words, mask_words, scale, answer[:, :count].T, limbs, threads=2)
    np.testing.assert_array_equal(answer[:, :count].T, decrypted.astype(dtype))
    assert (answer[:, count] == 99).all()
    straight = secrets.decrypt_words(words, mask_words, scale, np.empty((count, rows), dtype=dtype), limbs)
    np.testing.assert_array_equal(straight, decrypted.astype(dtype))


@pytest.mark.parametrize("limbs", [1, 2])
def test_each_element_may_have_a_scale_of_its_own(limbs):
    ring = Ring(1024, largest_primes(1024, 30, 2))
    secrets, _ = secrets_of(ring, 2)
    body = secrets.encrypt(np.random.default_rng(10).normal(size=(20, 2000)), 2.0**12, SEED, limbs)
    mask = coefficient_masks(ring, limbs, 20)
    scales = 2.0 ** np.arange(20)

    np.testing.assert_array_equal(secrets.decrypt(body, mask, scales, 2000), secrets.decrypt(body, mask, 1.0, 2000) / scales[:, None])
    with pytest.raises(ParameterError, match="20 elements"):
        secrets.decrypt(body, mask, scales[:7], 2000)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_magnitude_is_found_wherever_it_is(level, dtype, monkeypatch):
    monkeypatch.setenv(ring_module.CPU_VARIABLE, level)
    values = np.random.default_rng(11).normal(size=(700, 801)).astype(dtype)
    for place in ((0, 0), (3, 7), (699, 800)):
        for big in (-9.5, 11.25, np.inf, -np.inf):
            spoiled = values.copy()
            spoiled[place] = big
            assert column_secret.largest_magnitude(spoiled, threads=2) == abs(big)
            assert column_secret.largest_magnitude(spoiled.T) == abs(big)
        spoiled[place] = np.nan
        assert np.isnan(column_secret.largest_magnitude(spoiled))
    assert column_secret.largest_magnitude(values) == np.abs(values).max()
    assert column_secret.largest_magnitude(values[:0]) == 0
    for wrong in (values[::2, ::2], values.astype(np.int64)):
        with pytest.raises(ParameterError):
            column_secret.largest_magnitude(wrong)


def test_a_stream_of_tiles_equals_the_whole():
    ring = Ring(1024, largest_primes(1024, 30, 1))
    secrets, _ = secrets_of(ring, 2)
    values = np.random.default_rng(8).normal(size=(40, 2000))
    expected = secrets.encrypt_words(values, 2.0**10, SEED, error_key=KEY)
    each = secrets.words(1, 2000)

    for start, stop in ((0, 1), (1, 20), (20, 40)):
        words = secrets.encrypt_words(values[start:stop], 2.0**10, SEED, error_key=KEY, first=start)
        np.testing.assert_array_equal(words, expected[start * each : stop * each])


@pytest.mark.parametrize("answer_bits", [20, 24, 30])
def test_switched_answers_decrypt_under_the_answer_modulus(answer_bits):
    ring, (p,) = Ring(2048, largest_primes(2048, 54, 1)), largest_primes(2048, answer_bits, 1)
    secrets, _ = secrets_of(ring, 2)
    answers = secrets.under(Ring(2048, [p]))
    generator = np.random.default_rng(9)
    values = generator.uniform(-1, 1, (50, 4000))
    weights = generator.integers(-127, 128, (50, 7)).astype(np.int32)
    gather, scatter = np.arange(50, dtype=np.int32).reshape(1, 1, 50), np.arange(7, dtype=np.int32).reshape(1, 1, 7)
    linear = ExactLinear(ring, 1, LinearMap(50, 7, (LinearBlock(gather, weights[None], scatter),)))
    scale = 2.0**38
    factor = p / ring.moduli[0]

    words = secrets.encrypt_words(values, scale, SEED)
    body = linear.switched_words(words, 2, 2048, p)
    mask_words = np.frombuffer(wire_bytes(coefficient_masks(ring, 1, 50)[None], ring.moduli), "<u8")
    mask = linear.switched_words(mask_words, 1, 2048, p)
    decrypted = answers.decrypt_words(body, mask, scale * factor, np.empty((7, 4000)))

    error = (decrypted - weights.T.astype(np.float64) @ values) * scale * factor
    # Rounding of body and of mask times a ternary secret of 2N/3 coefficients: variance 1/12 + 2N/3 / 12.
    sigma = np.sqrt((1 + 2 * 2048 / 3) / 12)
    assert 0.8 * sigma < error.std() < 1.2 * sigma
    assert np.abs(error).max() < 7 * sigma


def test_no_representation_shows_a_secret():
    ring = Ring(1024, largest_primes(1024, 30, 1))
    secrets, _ = secrets_of(ring, 1)
    assert repr(secrets) == f"ColumnSecrets(1 columns, {ring!r})"
    assert not [name for name in vars(secrets) if isinstance(getattr(secrets, name), (np.ndarray, bytes))]


@pytest.mark.parametrize("bits", [30, 54, 55, 58, 60, 61])
def test_moduli_of_every_size_encrypt_up_to_nearly_half(bits):
    (q,) = largest_primes(1024, bits, 1)
    ring = Ring(1024, [q])
    secrets = column_secret.ColumnSecrets(ring, 1)
    value = np.full((1, 1024), (q // 2 - 100) * (1 - 2.0**-50))

    body = secrets.encrypt(value, 1.0, SEED)

    assert np.abs(secrets.decrypt(body, coefficient_masks(ring, 1, 1), 1.0, 1024) - value).max() <= 22 + value.max() * 2.0**-52
    with pytest.raises(CapacityError):
        secrets.encrypt(value * 1.001, 1.0, SEED)
