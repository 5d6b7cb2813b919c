"""Grid packing on unencrypted integers: exactly the integer map, whatever the convolution, however many rows and columns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import he_backend as he
from he_backend.ckks import secret
from he_backend.ckks.clear import ClearEvaluator
from he_backend.ckks.linear import apply_blocks
from he_backend.errors import ProtocolError
from he_backend.graph.affine import lower
from he_backend.inference.grid import fits_grid, lay_out_grid
from he_backend.inference.packing import GridPacker
from he_backend.inference.quantise import quantise
from he_backend.inference.selection import Selection
from he_backend.inference.structure import find_structure
from tests.graph.networks import NetworkBuilder
from tests.inference.test_product import CONVOLUTIONS, DEGREE, PARAMS, Branches, dense, layer

LARGE = {
    "larger than the ring": ((2, 50, 50), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "strided and larger than the ring": ((1, 100, 101), {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "strides": [2, 2], "outs": 2}),
    "depthwise and larger than the ring": ((3, 60, 41), {"kernel_shape": [3, 3], "group": 3, "pads": [1, 1, 1, 1]}),
    "one position to a channel": ((4, 3, 3), {"kernel_shape": [3, 3]}),
}


def grid_of(affine, shapes, rows, rng, bits=8):
    """What a random batch of small integers becomes under grid packing, and what it should; the layout."""
    structure = find_structure(affine, shapes)
    map_ = quantise(affine, bits)
    layout, shifted = lay_out_grid(structure, map_.linear, sum(affine.in_sizes))
    packer = GridPacker(layout, DEGREE, [((size, 1.0),) for size in affine.out_sizes])
    values = [rng.integers(-50, 51, (rows, size)).astype(np.float64) for size in affine.in_sizes]
    constant = 3.0 if map_.constant else 0.0  # whole, for exact results
    key = secret.generate("clear", PARAMS)
    tensor = key.encrypt(packer.pack(values, constant), 1.0, 1)
    assert (tensor.columns, tensor.width) == (layout.columns(rows, DEGREE), layout.width(rows, DEGREE))
    answer = ClearEvaluator().affine(tensor, shifted)
    answer = Selection(layout, DEGREE).pick(answer)
    packed = key.decrypt(answer, packer.scales, packer.count(rows, answer.columns, answer.width), packer.by_rows, packer.index(rows))
    got = packer.unpack(packed, rows, [(size,) for size in affine.out_sizes])
    whole = np.concatenate([*values, np.full((rows, 1 if constant else 0), constant)], axis=1)
    return layout, np.concatenate(got, axis=1), apply_blocks(map_.linear, whole.T).T


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *LARGE])
@pytest.mark.parametrize("rows, bias", [(1, True), (3, False), (60, True)])
def test_convolutions_are_exact(name, rows, bias):
    shape, attributes = {**CONVOLUTIONS, **LARGE}[name]
    if len(shape) == 2:
        net = NetworkBuilder(shape)
        net.add("Conv", [net.value, net.weights(4, 3, 5)] + ([net.weights(4)] if bias else []), (1, 4, 20), **attributes)
        program = he.convert(net.model())
        affine, shapes = lower(program.segments[0], program.shapes), [shape]
    else:
        affine, shapes = layer(shape, bias=bias, **dict(attributes))

    _, got, due = grid_of(affine, shapes, rows, np.random.default_rng(1))

    assert np.array_equal(got, due)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 4),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    depthwise=st.booleans(),
    rows=st.integers(1, 9),
)
def test_any_geometry_is_exact(channels, size, kernel, strides, pads, depthwise, rows):
    kernel = tuple(min(k, s + pads[d] + pads[d + 2]) for d, (k, s) in enumerate(zip(kernel, size)))
    attributes = {"kernel_shape": list(kernel), "strides": list(strides), "pads": list(pads)}
    affine, shapes = layer((channels, *size), group=channels if depthwise else 1, outs=channels * 2, **attributes)
    structure = find_structure(affine, shapes)
    if structure is None or not fits_grid(structure, DEGREE):
        return

    layout, got, due = grid_of(affine, shapes, rows, np.random.default_rng(2))

    assert np.array_equal(got, due)
    columns = layout.columns(rows, DEGREE)
    assert layout.columns(layout.rows(columns, DEGREE), DEGREE) <= columns or columns < layout.columns(1, DEGREE)
    assert layout.rows(columns, DEGREE) >= rows


def test_a_strided_convolution_sends_each_position_once():
    affine, shapes = layer((2, 32, 32), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    structure = find_structure(affine, shapes)

    assert structure.channels == 2 * 4  # a phase each for even and odd lines and columns
    assert structure.positions <= 17 * 17
    assert len(structure.elements) == 2 * 32 * 32


def test_a_pointwise_convolution_with_a_stride_sends_only_what_it_reads():
    affine, shapes = layer((3, 16, 16), kernel_shape=[1, 1], strides=[2, 2])

    structure = find_structure(affine, shapes)

    assert (structure.channels, structure.positions, len(structure.elements)) == (3, 64, 3 * 64)


def test_depthwise_groups_are_told_from_their_first():
    affine, shapes = layer((96, 40, 40), kernel_shape=[3, 3], group=96, outs=96, pads=[1, 1, 1, 1])

    structure = find_structure(affine, shapes)

    (part,) = structure.parts
    assert structure.channels == 96 and part.column_channel.shape == (96, 9)
    assert np.array_equal(part.column_channel, np.repeat(np.arange(96)[:, None], 9, axis=1))


@pytest.mark.parametrize("name", ["shortcut", "scaled_residual", "query_of_one"])
def test_several_layers_of_one_round_are_exact(name):
    model, index = getattr(Branches, name)()
    program = he.convert(model)
    segment = program.segments[index]
    affine, shapes = lower(segment, program.shapes), [tuple(program.shapes[name]) for name in segment.inputs]

    _, got, due = grid_of(affine, shapes, 3, np.random.default_rng(10))

    assert np.array_equal(got, due)


def test_what_has_no_positions_or_a_bias_for_each_is_left_to_others():
    rng = np.random.default_rng(3)
    affine, shapes = layer((2, 6, 6), kernel_shape=[3, 3])
    uneven = dataclasses.replace(affine, bias=rng.normal(size=affine.bias.shape))

    assert fits_grid(find_structure(affine, shapes), DEGREE)
    assert not fits_grid(find_structure(uneven, shapes), DEGREE)
    assert not fits_grid(find_structure(dense(rng.normal(size=(5, 4)), rng.normal(size=4)), [(5,)]), DEGREE)


def test_outputs_of_one_channel_share_a_scale():
    affine, shapes = layer((2, 6, 6), kernel_shape=[3, 3])
    map_ = quantise(affine, 8)
    layout, _ = lay_out_grid(find_structure(affine, shapes), map_.linear, 72)

    with pytest.raises(ProtocolError, match="one channel"):
        GridPacker(layout, DEGREE, [((5, 1.0), (43, 2.0))])
