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


def tolerance(engine, params, linear, scale):
    """8 standard deviations of the noise of fresh ciphertexts, added up over the largest row."""
    kind = engines.traits(engine, params)
    largest_l2 = np.sqrt((dense_matrix(linear) ** 2).sum(axis=1)).max()
    sigma = 0.5 if engine == "clear" else 3.3
    return 8 * sigma * math.sqrt(kind.noise_factor) * largest_l2 / scale


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("preset", PRESETS)
def test_affine_map_of_encrypted_values(engine, preset):
    rng = np.random.default_rng(1)
    params = load_params(preset)
    key = secret.generate(engine, params)
    linear = linear_map(rng)
    values = rng.uniform(-1, 1, (linear.in_count, 100))
    level = min(2, len(params.moduli))
    scale = 2.0**15

    answer = engines.evaluator(engine, params).affine(key.encrypt(values, scale, level), linear)
    got = key.decrypt(answer, scale, 100)

    error = np.abs(got - dense_matrix(linear) @ values).max()
    allowed = tolerance(engine, params, linear, scale)
    print(f"{engine} {preset}: {-math.log2(error / 600):.1f} bits reached, {-math.log2(allowed / 600):.1f} derived")
    assert error <= allowed
    assert not got[-1].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_bytes_bring_back_the_tensor(engine):
    params = load_params("N12_L4")
    key = secret.generate(engine, params)
    fresh = key.encrypt(np.random.default_rng(2).normal(size=(5, 70)), 2.0**20, 2)
    answer = engines.evaluator(engine, params).affine(fresh, linear_map(np.random.default_rng(3), in_count=5))

    for tensor in (fresh, answer):
        header = serial.header_of(tensor)
        pieces = list(serial.to_pieces(tensor))
        back = serial.from_pieces(serial.read_header(header.to_bytes()), pieces)

        assert sum(len(piece) for piece in pieces) == header.payload_bytes
        assert np.array_equal(back.body, tensor.body) and back.seed == tensor.seed
        assert (back.mask is None) == (tensor.mask is None) and (back.mask is None or np.array_equal(back.mask, tensor.mask))


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "clear"])
def test_a_fresh_ciphertext_hides_the_values_and_is_new_each_time(engine):
    params = load_params("N11_L1")
    values = np.ones((1, 2048))
    first = secret.generate(engine, params).encrypt(values, 2.0**20, 1)
    second = secret.generate(engine, params).encrypt(values, 2.0**20, 1)
    residues = first.body.ravel().astype(np.float64) / params.moduli[0]
    assert not np.array_equal(first.body, second.body)
    assert abs(residues.mean() - 0.5) < 0.05 and abs(residues.std() - 12**-0.5) < 0.02


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "clear"])
def test_another_key_decrypts_to_noise(engine):
    params = load_params("N11_L1")
    values = np.zeros((1, 2048))
    tensor = secret.generate(engine, params).encrypt(values, 2.0**20, 1)
    identity = LinearMap(1, 1, (LinearBlock(np.zeros((1, 1, 1), np.int32), np.ones((1, 1, 1), np.int32), np.zeros((1, 1, 1), np.int32)),))
    answer = engines.evaluator(engine, params).affine(tensor, identity)
    assert np.abs(secret.generate(engine, params).decrypt(answer, 2.0**20, 2048)).max() > 1e6


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


def test_seal_refuses_another_count_of_elements():
    params = load_params("N11_L1")
    tensor = secret.generate("seal", params).encrypt(np.ones((3, 4)), 2.0**20, 1)
    with pytest.raises(ProtocolError, match="one column of 6"):
        engines.evaluator("seal", params).affine(tensor, linear_map(np.random.default_rng(0)))


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
