"""Integer maps: close to the real ones, with norms that bound every row, and a scale that cannot overflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.ckks import secret
from he_backend.ckks.clear import ClearEvaluator
from he_backend.ckks.engines import traits
from he_backend.ckks.linear import MAX_WEIGHT_BITS, apply_blocks
from he_backend.ckks.params import load_params
from he_backend.errors import CapacityError, ModelError
from he_backend.graph.affine import AffineMap, Block
from he_backend.inference.plan import RoundPlan, safe_scale
from he_backend.inference.quantise import Noise, best_width, quantise, relative_error, statistics


def dense(weights, bias):
    """The AffineMap of x -> x @ weights + bias."""
    k, m = weights.shape
    block = Block(0, np.arange(k, dtype=np.int32)[None, None], weights[None], np.arange(m, dtype=np.int32)[None, None])
    return AffineMap((k,), (m,), (block,), bias)


def round_plan(map_):
    norms = tuple(tuple(int(n) for n in row) for row in map_.norms)
    return RoundPlan(
        0,
        ("x",),
        ("y",),
        "batch",
        1,
        tuple(((len(part), float(part[0])),) for part in map_.scales),
        map_.constant,
        norms,
        map_.weight_bits,
        0,
        10.0,
        0,
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 20), m=st.integers(1, 8), bits=st.integers(4, 16), big_bias=st.floats(0, 1e4))
def test_integers_are_the_rounded_weights_and_norms_bound_their_rows(seed, k, m, bits, big_bias):
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(k, m)), rng.normal(size=m) * big_bias
    affine = dense(weights, bias)

    map_ = quantise(affine, bits)

    real = np.concatenate([weights, bias[None] / map_.constant]) if map_.constant else weights
    matrix = apply_blocks(map_.linear, np.eye(map_.linear.in_count))
    assert np.abs(matrix.T - real * map_.scales[0]).max() <= 0.5 + 1e-9
    assert (np.abs(matrix).max(axis=1) == 2 ** (bits - 1) - 1).all()  # every row fills the width
    assert np.abs(matrix).max() <= 2 ** (bits - 1) - 1 <= 2 ** (MAX_WEIGHT_BITS - 1)
    assert (np.abs(matrix[:, :k]).sum(axis=1) <= map_.norms[0, 0]).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    preset=st.sampled_from(["N11_L1", "N11_L1_small", "N12_L4"]),
    size=st.floats(1e-6, 1e6),
    signs=st.booleans(),
)
def test_the_scale_is_as_large_as_it_can_be_and_never_overflows(seed, preset, size, signs):
    rng = np.random.default_rng(seed)
    params = load_params(preset)
    modulus = params.moduli[0]
    weights, bias = rng.normal(size=(12, 3)), rng.normal(size=3)
    map_ = quantise(dense(weights, bias), 10)
    this = round_plan(map_)
    matrix = apply_blocks(map_.linear, np.eye(13))
    worst = int(np.abs(matrix).sum(axis=1).argmax())
    row = matrix[worst] if signs else -matrix[worst]
    values = np.append(np.sign(row[:12]) * size, map_.constant)[:, None]  # the input that drives one row furthest

    scale = safe_scale(this, modulus, traits("clear", params), params.ring_degree, (size,))
    key = secret.generate("clear", params)
    got = key.decrypt(ClearEvaluator().affine(key.encrypt(values, scale, 1), map_.linear), scale, 1)

    due = matrix @ values
    rounding = 2.0**-24 * np.abs(due).max()  # to float32
    assert np.abs(got - due).max() <= 0.5 * np.abs(matrix).sum(axis=1).max() / scale * 1.001 + rounding
    with pytest.raises(CapacityError):
        key.encrypt(values, scale * 2 * np.abs(matrix).sum(axis=1).max(), 1)


def test_twice_the_safe_scale_wraps_around():
    """The bound is not slack: the same worst input at 2.1 times the scale gives a wrong answer."""
    params = load_params("N11_L1_small")
    weights = np.array([[1.0], [-1.0], [0.5]])
    map_ = quantise(dense(weights, np.zeros(1)), 10)
    values = np.sign(weights)
    scale = safe_scale(round_plan(map_), params.moduli[0], traits("clear", params), params.ring_degree, (1.0,))
    key = secret.generate("clear", params)

    def run(factor):
        return key.decrypt(ClearEvaluator().affine(key.encrypt(values, scale * factor, 1), map_.linear), scale * factor, 1)[0, 0]

    assert abs(run(1.0) / map_.scales[0][0] - 2.5) < 0.02
    assert abs(run(2.1) / map_.scales[0][0] - 2.5) > 1.0


def test_a_wider_modulus_is_more_precise_and_slots_are_noisier():
    stats = statistics(dense(np.random.default_rng(0).normal(size=(100, 10)), np.zeros(10)))
    narrow, wide = best_width(stats, 1 << 30, Noise(1.0))[1], best_width(stats, 1 << 54, Noise(1.0))[1]
    slots = best_width(stats, 1 << 30, Noise(2048.0))[1]
    switched = best_width(stats, 1 << 54, Noise(1.0, 2048, 1 << 20))[1]
    assert wide < switched and wide < narrow < slots


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_expected_error_is_the_measured_one(bits):
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(200, 50))
    affine = dense(weights, np.zeros(50))
    map_ = quantise(affine, bits)
    values = rng.normal(size=(200, 300))
    got = apply_blocks(map_.linear, values) / map_.scales[0][:, None]
    due = weights.T @ values
    measured = np.sqrt(((got - due) ** 2).mean() / (due**2).mean())
    expected = relative_error(statistics(affine)[0], bits, 1 << 60, Noise(1.0))
    assert 0.7 < measured / expected < 1.4
    assert math.isclose(map_.weight_bits, bits)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="NaN or infinite"):
        statistics(dense(np.array([[np.nan]]), np.zeros(1)))


def test_rows_have_scales_of_their_own_unless_they_share_weights():
    block = Block(0, np.zeros((2, 1, 1), np.int32), np.array([[[1.0]], [[100.0]]]), np.array([[[0]], [[1]]], np.int32))
    one, hundred = quantise(AffineMap((1,), (1, 1), (block,), np.zeros(2)), 10).scales
    assert one[0] == pytest.approx(100 * hundred[0])
    shared = Block(0, np.zeros((1, 2, 1), np.int32), np.array([[[3.0]]]), np.array([[[0], [1]]], np.int32))
    one, hundred = quantise(AffineMap((1,), (1, 1), (block, shared), np.zeros(2)), 10).scales
    assert one[0] == hundred[0]


def test_outputs_that_are_biases_alone_are_promised_what_rounding_leaves():
    affine = AffineMap(
        (3,), (2,), (Block(0, np.full((1, 1, 1), -1, np.int32), np.ones((1, 1, 2)), np.array([[[0, 1]]], np.int32)),), np.array([0.3, 1.0])
    )

    stats = statistics(affine)
    width, error = best_width(stats, 1 << 50, Noise(1.0))
    map_ = quantise(affine, width)

    held = apply_blocks(map_.linear, np.array([[0.0]] * 3 + [[map_.constant]]))[:, 0] / map_.scales[0]
    assert np.abs(held - [0.3, 1.0]).max() <= 4 * error
    assert error <= 2.0**-15
