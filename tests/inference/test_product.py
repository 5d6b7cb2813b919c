"""Product packing on unencrypted integers: exactly the integer map, whatever the layer; structures are seen where there are any."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import he_backend as he
from he_backend.ckks import secret
from he_backend.ckks.engines import traits
from he_backend.ckks.linear import apply_blocks
from he_backend.ckks.params import load_params
from he_backend.ckks.product import clear_product
from he_backend.graph.affine import AffineMap, Block, lower
from he_backend.inference.boxes import expand, find_boxes
from he_backend.inference.choice import all_options, worth_taking
from he_backend.inference.packing import ProductPacker
from he_backend.inference.plan import RoundPlan, safe_scale
from he_backend.inference.product import blockings, lay_out, spread
from he_backend.inference.quantise import bias_constant, quantise, statistics
from he_backend.inference.selection import Selection
from he_backend.inference.structure import find_structure
from tests.graph.networks import NetworkBuilder

PARAMS = load_params("N11_L1")
DEGREE = PARAMS.ring_degree


def dense(weights, bias):
    k, m = weights.shape
    block = Block(0, np.arange(k, dtype=np.int32)[None, None], weights[None], np.arange(m, dtype=np.int32)[None, None])
    return AffineMap((k,), (m,), (block,), bias)


def layer(shape, op="Conv", seed=0, bias=True, **attributes):
    """The affine map of a network of one layer, and the shape of its input."""
    net = NetworkBuilder(shape, seed)
    group, kernel = attributes.get("group", 1), attributes["kernel_shape"]
    outs = attributes.pop("outs", 3)
    weights = net.weights(outs, shape[0] // group, *kernel) if op == "Conv" else net.weights(shape[0], outs // group, *kernel)
    inputs = [net.value, weights] + ([net.weights(outs)] if bias else [])
    pads, strides, dilations = (attributes.get(k, d) for k, d in (("pads", [0] * 4), ("strides", [1, 1]), ("dilations", [1, 1])))
    if op == "Conv":
        extent = [(shape[1 + d] + pads[d] + pads[d + 2] - (kernel[d] - 1) * dilations[d] - 1) // strides[d] + 1 for d in range(len(kernel))]
    else:
        extent = [(shape[1 + d] - 1) * strides[d] + kernel[d] - pads[d] - pads[d + 2] for d in range(2)]
    net.add(op, inputs, (1, outs, *extent), **attributes)
    program = he.convert(net.model())
    (segment,) = program.segments
    return lower(segment, program.shapes), [tuple(program.shapes[name]) for name in segment.inputs]


def product_of(affine, shapes, rows, rng, blocking=None, bits=8):
    """What a random batch of small integers becomes under product packing, and what it should."""
    structure = find_structure(affine, shapes)
    map_ = quantise(affine, bits)
    every = all_options(affine, structure, statistics(affine), DEGREE, "clear", rows)
    chosen = blocking or worth_taking(every, "product")[0].packing.blocking
    layout, product = lay_out(structure, chosen, map_.linear, sum(affine.in_sizes))
    assert (product.in_count, product.out_count, product.pairs) == (chosen.in_count, chosen.out_count, product.pairs)
    assert product.pairs <= chosen.pairs
    packer = ProductPacker(layout, DEGREE, [((size, 1.0),) for size in affine.out_sizes])
    values = [rng.integers(-50, 51, (rows, size)).astype(np.float64) for size in affine.in_sizes]
    constant = 3.0 if map_.constant else 0.0  # whole, for exact results
    key = secret.generate("clear", PARAMS)
    tensor = key.encrypt(packer.pack(values, constant), 1.0, 1)
    answer = clear_product(tensor, product)
    answer = Selection(layout, DEGREE).pick(answer)
    packed = key.decrypt(answer, packer.scales, packer.count(rows, answer.columns, answer.width), index=packer.index(rows))
    got = packer.unpack(packed, rows, [(size,) for size in affine.out_sizes])
    whole = np.concatenate([*values, np.full((rows, 1 if constant else 0), constant)], axis=1)
    return structure, np.concatenate(got, axis=1), apply_blocks(map_.linear, whole.T).T


@settings(max_examples=40, deadline=None)
@given(
    k=st.one_of(st.integers(1, 40), st.integers(900, 1100), st.integers(2040, 2060)),
    m=st.one_of(st.integers(1, 40), st.sampled_from([129, 255])),
    rows=st.integers(1, 2),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_dense_layers_of_any_size_are_exact(k, m, rows, bias, seed):
    rng = np.random.default_rng(seed)
    affine = dense(rng.normal(size=(k, m)), rng.normal(size=m) * bias)

    structure, got, due = product_of(affine, [(k,)], rows, rng)

    assert np.array_equal(got, due) and not structure.is_matrix


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 60), m=st.integers(1, 60), outs=st.integers(0, 10**6), seed=st.integers(0, 1000))
def test_every_blocking_gives_the_same(k, m, outs, seed):
    rng = np.random.default_rng(seed)
    affine = dense(rng.normal(size=(k, m)), rng.normal(size=m))
    options = blockings(find_structure(affine, [(k,)]), DEGREE)

    _, got, due = product_of(affine, [(k,)], 2, rng, options[outs % len(options)])

    assert np.array_equal(got, due)


CONVOLUTIONS = {
    "plain": ((3, 9, 7), {"kernel_shape": [3, 3]}),
    "padded": ((3, 9, 7), {"kernel_shape": [3, 2], "pads": [1, 1, 1, 0]}),
    "strided": ((2, 9, 9), {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1]}),
    "dilated": ((2, 9, 9), {"kernel_shape": [3, 3], "dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    "grouped": ((4, 6, 6), {"kernel_shape": [3, 3], "group": 2, "outs": 6}),
    "depthwise": ((5, 12, 12), {"kernel_shape": [3, 3], "group": 5, "outs": 10, "pads": [1, 1, 1, 1]}),
    "pointwise": ((7, 6, 6), {"kernel_shape": [1, 1], "outs": 9}),
    "kernel larger than the map": ((2, 2, 2), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "many channels": ((40, 8, 8), {"kernel_shape": [3, 3], "outs": 33, "pads": [1, 1, 1, 1]}),
    "nearly the ring": ((1, 45, 45), {"kernel_shape": [5, 5], "outs": 2}),
    "one axis": ((3, 40), {"kernel_shape": [5], "pads": [2, 2], "strides": [2]}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("rows, bias", [(1, True), (3, False)])
def test_convolutions_are_seen_and_exact(name, rows, bias):
    shape, attributes = CONVOLUTIONS[name]
    if len(shape) == 2:
        net = NetworkBuilder(shape)
        inputs = [net.value, net.weights(4, 3, 5)] + ([net.weights(4)] if bias else [])
        net.add("Conv", inputs, (1, 4, 20), **attributes)
        program = he.convert(net.model())
        affine, shapes = lower(program.segments[0], program.shapes), [shape]
    else:
        affine, shapes = layer(shape, bias=bias, **dict(attributes))

    structure, got, due = product_of(affine, shapes, rows, np.random.default_rng(1))

    assert np.array_equal(got, due)
    assert not structure.is_matrix and structure.positions > 1  # not by way of the matrix


def test_a_bias_that_differs_by_position_has_a_polynomial_of_its_own():
    affine, shapes = layer((2, 6, 6), kernel_shape=[3, 3])
    affine = dataclasses.replace(affine, bias=np.random.default_rng(2).normal(size=affine.bias.shape))

    structure, got, due = product_of(affine, shapes, 2, np.random.default_rng(3))

    assert not structure.uniform_bias and structure.positions > 1
    assert np.array_equal(got, due)


def test_tokens_times_a_matrix_share_their_weights():
    net = NetworkBuilder((16, 24))
    net.add("MatMul", [net.value, net.weights(24, 10)], (1, 16, 10))
    program = he.convert(net.model())

    structure, got, due = product_of(lower(program.segments[0], program.shapes), [(16, 24)], 2, np.random.default_rng(4))

    assert structure.positions == 16 and structure.channels == 24
    assert np.array_equal(got, due)


class Branches:
    """Networks whose segments are several layers at once."""

    @staticmethod
    def shortcut():
        net = NetworkBuilder((4, 8, 8))
        main = net.add(
            "Conv", ["x", net.weights(6, 4, 3, 3), net.weights(6)], (1, 6, 4, 4), kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]
        )
        short = net.add("Conv", ["x", net.weights(6, 4, 1, 1)], (1, 6, 4, 4), kernel_shape=[1, 1], strides=[2, 2])
        net.add("Mul", [net.add("Relu", [main], (1, 6, 4, 4)), net.add("Tanh", [short], (1, 6, 4, 4))], (1, 6, 4, 4))
        return net.model(), 0

    @staticmethod
    def scaled_residual():
        net = NetworkBuilder((16, 12))
        inner = net.add("Relu", [net.add("MatMul", ["x", net.weights(12, 20)], (1, 16, 20))], (1, 16, 20))
        wide = net.add("MatMul", [inner, net.weights(20, 12)], (1, 16, 12))
        scaled = net.add("Mul", [net.add("Tanh", ["x"], (1, 16, 12)), net.weights(12)], (1, 16, 12))
        net.add("Relu", [net.add("Add", [wide, scaled], (1, 16, 12))], (1, 16, 12))
        return net.model(), 1

    @staticmethod
    def query_of_one():
        net = NetworkBuilder((9, 12))
        keys = net.add("MatMul", ["x", net.weights(12, 10)], (1, 9, 10))
        keys = net.add("Add", [keys, net.weights(10)], (1, 9, 10))
        first = net.add("Gather", ["x", net.constant(np.array([4]))], (1, 1, 12), axis=1)
        query = net.add("Add", [net.add("MatMul", [first, net.weights(12, 10)], (1, 1, 10)), net.weights(10)], (1, 1, 10))
        net.add("Mul", [net.add("Relu", [keys], (1, 9, 10)), net.add("Tanh", [query], (1, 1, 10))], (1, 9, 10))
        return net.model(), 0


@pytest.mark.parametrize("name", ["shortcut", "scaled_residual", "query_of_one"])
def test_several_layers_of_one_round_share_a_grid_of_positions(name):
    model, index = getattr(Branches, name)()
    program = he.convert(model)
    segment = program.segments[index]
    affine, shapes = lower(segment, program.shapes), [tuple(program.shapes[name]) for name in segment.inputs]

    structure, got, due = product_of(affine, shapes, 2, np.random.default_rng(10))

    assert len(structure.parts) == 2 and structure.positions > 1
    assert np.array_equal(got, due)


def test_maps_without_structure_go_by_their_matrix_while_it_is_small():
    rng = np.random.default_rng(5)
    blocks = tuple(
        Block(
            source,
            rng.integers(-1, size, (2, 5, 4)).astype(np.int32),
            rng.normal(size=(2, 4, 3)),
            rng.integers(0, 50, (2, 5, 3)).astype(np.int32),
        )
        for source, size in enumerate((30, 20))
    )
    affine = AffineMap((30, 20), (20, 40), blocks, rng.normal(size=60))

    structure, got, due = product_of(affine, [(30,), (20,)], 2, rng)

    assert structure.is_matrix
    assert np.array_equal(got, due)
    large = Block(
        0, rng.integers(0, 5000, (1, 5000, 2)).astype(np.int32), np.ones((1, 2, 1)), np.arange(5000, dtype=np.int32).reshape(1, -1, 1)
    )
    assert find_structure(AffineMap((5000,), (5000,), (large,), np.zeros(5000)), [(50, 100)]) is None


def test_a_hole_that_is_not_padding_is_no_convolution():
    affine, shapes = layer((1, 6, 6), kernel_shape=[3, 3], bias=False)
    (block,) = affine.blocks
    gather = block.gather.copy()
    gather[0, 5, 4] = -1
    holed = dataclasses.replace(affine, blocks=(dataclasses.replace(block, gather=gather),))

    structure, got, due = product_of(holed, shapes, 1, np.random.default_rng(6))

    assert structure.is_matrix
    assert np.array_equal(got, due)


def test_errors_meet_at_most_the_stated_norm_of_weights():
    """Worst-case errors in all coefficients, chosen against one coefficient of the answer, reach error_norm exactly and never more."""
    rng = np.random.default_rng(7)
    affine = dense(rng.normal(size=(30, 40)), rng.normal(size=40))
    structure = find_structure(affine, [(30,)])
    map_ = quantise(affine, 8)
    blocking = next(b for b in blockings(structure, DEGREE) if b.outs == 40)
    layout, product = lay_out(structure, blocking, map_.linear, 30)
    (pair,) = list(product.polynomials())
    weights = pair[2]
    errors = np.sign(np.where(np.arange(DEGREE) == 0, weights, -weights[(-np.arange(DEGREE)) % DEGREE]))  # against coefficient 0
    whole = np.convolve(errors, weights)
    reached = int(whole[0] - whole[DEGREE])
    assert reached == layout.error_norm == int(np.abs(weights).sum())
    assert layout.error_norm > max(sum(row) for row in map_.norms)


def test_the_scale_leaves_room_for_the_errors_of_whole_polynomials():
    rng = np.random.default_rng(8)
    affine = dense(rng.normal(size=(30, 60)), np.zeros(60))
    structure, map_ = find_structure(affine, [(30,)]), quantise(affine, 8)
    blocking = next(b for b in blockings(structure, DEGREE) if b.outs == 60)
    layout, _ = lay_out(structure, blocking, map_.linear, 30)
    norms = tuple(tuple(int(n) for n in row) for row in map_.norms)
    plan = RoundPlan(0, ("x",), ("y",), "product", 1, (((60, 1.0),),), map_.constant, norms, 8, 20, 10.0, 0, layout)
    kind = traits("clear", PARAMS)._replace(most_error=21.5)
    modulus = 1 << 30

    scale = safe_scale(plan, modulus, kind, DEGREE, (1.0,))
    switching = (1 + DEGREE) / 2 * 1.01 * modulus / 2.0**19

    assert scale * norms[0][0] + layout.error_norm * 21.5 + switching <= modulus / 2
    assert scale < safe_scale(dataclasses.replace(plan, packing="batch", layout=None), modulus, kind, DEGREE, (1.0,))


def test_the_expected_noise_counts_all_weights_of_a_polynomial():
    rng = np.random.default_rng(9)
    affine = dense(rng.normal(size=(50, 30)), rng.normal(size=30))
    structure, stats = find_structure(affine, [(50,)]), statistics(affine)
    choice = worth_taking(all_options(affine, structure, stats, DEGREE, "native", 1), "product")[0].packing
    map_ = quantise(affine, 12)
    _, product = lay_out(structure, choice.blocking, map_.linear, 50)

    measured = product.error_norms()[1].max() * (map_.scales[0] ** -2.0).mean() / stats[0].mean_squares

    assert choice.noise_factor == pytest.approx(measured, rel=0.02)
    assert spread(choice.blocking, structure.squares(affine, map_.scales[0], bias_constant(affine))) == pytest.approx(
        product.error_norms()[1].max(), rel=0.02
    )


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 60)), max_size=40))
def test_boxes_hold_just_what_was_put_in(pairs):
    elements, places = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    got = expand(find_boxes(elements, places))
    assert np.array_equal(got[0], elements) and np.array_equal(got[1], places)


def test_regular_layouts_take_few_boxes():
    index = np.arange(4 * 5 * 6)
    places = (index // 30) * 2048 + (index // 6 % 5) * 11 + index % 6
    assert len(find_boxes(index, places)) == 1
