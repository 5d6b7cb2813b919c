"""One test for every engine: what is encrypted, mapped and decrypted is the integer map of the values, within the derived tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from he_backend.ckks import engines, secret, serial
from he_backend.ckks.linear import LinearBlock, LinearMap, apply_blocks
from he_backend.ckks.params import load_params
from he_backend.errors import CapacityError, EngineError, ProtocolError

PRESETS = ["N11_L1", "N11_L1_small", "N12_L4", "N13_L8"]
ENGINES = [name for name in engines.ENGINES if name in engines.available()]


def linear_map(rng, in_count=6, groups=2, places=3, terms=4, outs=2):
    """Random gathered blocks with padding, every output written once, one more block on top of them."""
    gather = rng.integers(-1, in_count, (groups, places, terms)).astype(np.int32)
    weights = rng.integers(-100, 101, (groups, terms, outs)).astype(np.int32)
    scatter = rng.permutation(groups * places * outs).reshape(groups, places, outs).astype(np.int32)
    total = groups * places * outs
    dense = LinearBlock(
        np.arange(in_count, dtype=np.int32)[None, None],
        rng.integers(-100, 101, (1, in_count, 3)).astype(np.int32),
        np.arange(3, dtype=np.int32)[None, None],
    )
    return LinearMap(in_count, total + 1, (LinearBlock(gather, weights, scatter), dense))  # the last output has no weights at all


def dense_matrix(linear):
    matrix = np.zeros((linear.out_count, linear.in_count))
    for block in linear.blocks:
        for g, p, k, m in np.ndindex(*block.gather.shape, block.weights.shape[2]):
            if block.gather[g, p, k] >= 0:
                matrix[block.scatter[g, p, m], block.gather[g, p, k]] += block.weights[g, k, m]
    return matrix


ANSWER_BITS = 31


def run_map(engine, params, tensor, linear, level):
    """A linear map of a tensor by way of bytes, as the server does it; and what it did to the scale."""
    arrived = engines.read_tensor(serial.header_of(tensor), serial.to_pieces(tensor))
    answer = engines.ready_map(engine, params, linear, level, min(ANSWER_BITS, params.moduli[0].bit_length()))(arrived)
    back = engines.read_tensor(serial.header_of(answer), serial.to_pieces(answer))
    return back, math.prod(back.moduli) / math.prod(tensor.moduli)


def as_residues(tensor):
    """The tensor with plain residues, whatever the engine's own form."""
    return serial.from_pieces(serial.header_of(tensor), serial.to_pieces(tensor))


def tolerance(engine, params, linear, scale, switched):
    """8 standard deviations of the noise of fresh ciphertexts, added up over the largest row, and of switching the answer."""
    kind = engines.traits(engine, params)
    largest_l2 = np.sqrt((dense_matrix(linear) ** 2).sum(axis=1)).max()
    sigma = 0.5 if engine == "clear" else 3.3
    switching = math.sqrt((1 + params.ring_degree * 2 / 3) / 12) / switched if kind.switches else 0.0
    return 8 * (sigma * math.sqrt(kind.noise_factor) * largest_l2 + switching) / scale


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("preset", PRESETS)
def test_affine_map_of_encrypted_values(engine, preset):
    rng = np.random.default_rng(1)
    params = load_params(preset)
    key = secret.generate(engine, params)
    linear = linear_map(rng)
    values = rng.uniform(-1, 1, (linear.in_count, 100))
    level = min(2, len(params.moduli))
    scale = 2.0 ** (15 if level > 1 or engine != "native" else params.moduli[0].bit_length() - 15)

    answer, switched = run_map(engine, params, key.encrypt(values, scale, level), linear, level)
    got = key.decrypt(answer, scale * switched, 100)

    error = np.abs(got - dense_matrix(linear) @ values).max()
    allowed = tolerance(engine, params, linear, scale, switched)
    print(f"{engine} {preset}: {-math.log2(error / 600):.1f} bits reached, {-math.log2(allowed / 600):.1f} derived")
    assert error <= allowed
    assert np.abs(got[-1]).max() <= allowed  # the row without weights


@pytest.mark.parametrize("engine", ENGINES)
def test_bytes_bring_back_the_tensor(engine):
    params = load_params("N12_L4")
    key = secret.generate(engine, params)
    fresh = key.encrypt(np.random.default_rng(2).normal(size=(5, 70)), 2.0**20, 2)
    answer, _ = run_map(engine, params, fresh, linear_map(np.random.default_rng(3), in_count=5), 2)

    for tensor in (fresh, answer):
        header = serial.header_of(tensor)
        pieces = list(serial.to_pieces(tensor))
        back = engines.read_tensor(serial.read_header(header.to_bytes()), pieces)

        assert sum(len(piece) for piece in pieces) == header.payload_bytes
        assert np.array_equal(back.body, tensor.body) and back.seed == tensor.seed
        assert (back.mask is None) == (tensor.mask is None) and (back.mask is None or np.array_equal(back.mask, tensor.mask))


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "clear"])
def test_a_fresh_ciphertext_hides_the_values_and_is_new_each_time(engine):
    params = load_params("N11_L1")
    values = np.ones((1, 2048))
    first, second = (as_residues(secret.generate(engine, params).encrypt(values, 2.0**20, 1)) for _ in range(2))
    residues = first.body.ravel().astype(np.float64) / params.moduli[0]
    assert not np.array_equal(first.body, second.body)
    assert abs(residues.mean() - 0.5) < 0.05 and abs(residues.std() - 12**-0.5) < 0.02


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "clear"])
def test_another_key_decrypts_to_noise(engine):
    params = load_params("N11_L1")
    values = np.zeros((1, 2048))
    tensor = secret.generate(engine, params).encrypt(values, 2.0**20, 1)
    identity = LinearMap(1, 1, (LinearBlock(np.zeros((1, 1, 1), np.int32), np.ones((1, 1, 1), np.int32), np.zeros((1, 1, 1), np.int32)),))
    answer, switched = run_map(engine, params, tensor, identity, 1)
    assert np.abs(secret.generate(engine, params).decrypt(answer, 2.0**20 * switched, 2048)).max() > 1e6


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_show_nothing(engine):
    text = repr(secret.generate(engine, load_params("N11_L1")))
    assert len(text) < 200


def test_a_scale_too_large_is_refused_not_wrapped():
    key = secret.generate("clear", load_params("N11_L1"))
    with pytest.raises(CapacityError, match="smaller scale"):
        key.encrypt(np.ones((1, 1)), 2.0**54, 1)


def test_unknown_engines_are_refused():
    with pytest.raises(EngineError, match="allowed: auto, native, seal, clear"):
        secret.generate("other", load_params("N11_L1"))


@pytest.mark.parametrize("engine", ENGINES)
def test_another_count_of_elements_is_refused(engine):
    params = load_params("N11_L1")
    tensor = secret.generate(engine, params).encrypt(np.ones((3, 4)), 2.0**20, 1)
    with pytest.raises(ProtocolError, match=r"\b6\b"):
        run_map(engine, params, tensor, linear_map(np.random.default_rng(0)), 1)


@pytest.mark.skipif("native" not in ENGINES, reason="the native core is not built")
@pytest.mark.parametrize("rows", [1, 2048, 2049, 5000])
def test_columns_share_masks_and_have_secrets_of_their_own(rows):
    params = load_params("N11_L1")
    key = secret.generate("native", params, threads=2)
    values = np.random.default_rng(6).uniform(-1, 1, (6, rows))
    linear, scale = linear_map(np.random.default_rng(7)), 2.0**38

    tensor = key.encrypt(values, scale, 1)
    answer, switched = run_map("native", params, tensor, linear, 1)
    got = key.decrypt(answer, scale * switched, rows)

    assert tensor.columns == -(-rows // 2048) and len(tensor.seed) == 32
    assert answer.mask.size * 8 == linear.out_count * serial.packed_bytes(2048, answer.moduli[0].bit_length())
    assert np.abs(got - dense_matrix(linear) @ values).max() <= tolerance("native", params, linear, scale, switched)


def test_blocks_and_rows_are_the_same_matrix():
    linear = linear_map(np.random.default_rng(4))
    matrix = dense_matrix(linear)
    from_rows = np.zeros_like(matrix)
    for out, index, weights in linear.rows():
        from_rows[out, index] = weights
    assert np.array_equal(from_rows, matrix)
    assert np.array_equal(apply_blocks(linear, np.eye(linear.in_count)), matrix)
    assert np.array_equal(apply_blocks(linear, np.eye(linear.in_count), tile_bytes=64), matrix)
    assert (linear.norms((2, linear.in_count))[:, 0] >= np.abs(matrix[:, :2]).sum(axis=1)).all()
    assert (linear.norms((2, linear.in_count))[:, 1] >= np.abs(matrix[:, 2:]).sum(axis=1)).all()
