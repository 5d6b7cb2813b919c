"""Segments as convolutions and dense layers: the same numbers as element by element, and as ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from he_backend.graph import convert
from he_backend.graph.affine import lower
from he_backend.graph.structure import ConvStructure, DenseStructure, ScaleStructure
from he_backend.graph.structuring import structure_of
from tests.graph.networks import NetworkBuilder, networks, plain, rows_for


def structured(net):
    """Structure and segment of a network of one round, checked against ONNX Runtime (which knows nothing of either)."""
    model = net.model()
    program = convert(model)
    assert program.rounds == 1
    segment = program.segments[0]
    structure = structure_of(segment)
    assert structure is not None
    rows = rows_for(model)
    if not program.steps[0].model and not program.steps[1].model:
        (result,) = structure.apply([rows.reshape(len(rows), -1)])
        np.testing.assert_allclose(result, plain(model, rows).reshape(len(rows), -1), rtol=1e-4, atol=1e-4)
    return structure, segment


def test_random_networks_have_structures_that_compute_what_their_blocks_compute():
    seen = {"structured": 0, "not": 0}

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(model=networks())
    def agrees(model):
        for segment in convert(model).segments:
            structure = structure_of(segment)
            seen["structured" if structure else "not"] += 1
            if structure is None:
                continue
            affine = lower(segment)
            random = np.random.default_rng(0)
            inputs = [random.standard_normal((2, size)) for size in affine.in_sizes]
            for got, due in zip(structure.apply(inputs), affine.apply(inputs)):
                np.testing.assert_allclose(got, due, rtol=1e-9, atol=1e-9)

    agrees()
    print(seen)
    assert seen["structured"] > 2 * seen["not"]


@pytest.mark.parametrize("stride, pads, dilation, group", [(1, (1, 1, 1, 1), 1, 1), (2, (0, 0, 1, 1), 1, 4), (1, (2, 0, 1, 3), 2, 2)])
def test_convolution_keeps_its_geometry(stride, pads, dilation, group):
    net = NetworkBuilder((4, 9, 8))
    height, width = ((e + pads[i] + pads[i + 2] - 2 * dilation - 1) // stride + 1 for i, e in enumerate((9, 8)))
    geometry = {"strides": [stride] * 2, "pads": pads, "dilations": [dilation] * 2, "group": group}
    net.apply("Conv", net.weights(8, 4 // group, 3, 3), net.weights(8), shape=(1, 8, height, width), **geometry)

    layer = structured(net)[0].single

    assert isinstance(layer, ConvStructure)
    assert (layer.strides, layer.dilations, layer.group, layer.kernel) == ((stride,) * 2, (dilation,) * 2, group, (3, 3))
    assert layer.pads[:2] == pads[:2]
    assert (layer.in_shape, layer.out_shape) == ((4, 9, 8), (8, height, width))
    assert layer.bias.shape == (8, 1, 1)
    assert layer.depthwise == (group == 4)
    assert not layer.pointwise


def test_automatic_padding_is_written_out_odd_one_at_the_end():
    net = NetworkBuilder((2, 8, 8))
    net.apply("Conv", net.weights(3, 2, 3, 3), shape=(1, 3, 4, 4), strides=[2, 2], auto_pad="SAME_UPPER")
    assert structured(net)[0].single.pads == (0, 0, 1, 1)


def test_batch_norm_after_a_convolution_is_folded():
    net = NetworkBuilder((2, 5, 5))
    net.apply("Conv", net.weights(3, 2, 1, 1), shape=(1, 3, 5, 5))
    net.apply("Mul", net.weights(3, 1, 1))
    net.apply("Add", net.weights(3, 1, 1))
    layer = structured(net)[0].single
    assert layer.pointwise
    assert layer.bias.shape == (3, 1, 1)


def test_a_shift_before_a_padded_convolution_gives_a_bias_per_position():
    net = NetworkBuilder((2, 5, 5))
    net.apply("Add", net.weights(2, 1, 1))
    net.apply("Conv", net.weights(3, 2, 3, 3), shape=(1, 3, 5, 5), pads=[1, 1, 1, 1])
    assert structured(net)[0].single.bias.shape == (3, 5, 5)


def test_dense_on_a_sequence_has_its_tokens_as_positions():
    net = NetworkBuilder((7, 4))
    net.apply("Mul", net.weights(4))
    net.apply("MatMul", net.weights(4, 3), shape=(1, 7, 3))
    net.apply("Add", net.weights(3))
    layer = structured(net)[0].single
    assert isinstance(layer, DenseStructure)
    assert (layer.in_shape, layer.out_shape, layer.bias.shape) == ((7, 4), (7, 3), (1, 3))
    assert layer.multiply_adds == 84


def test_two_convolutions_of_one_round_write_side_by_side():
    net = NetworkBuilder((2, 6, 6))
    net.apply("Conv", net.weights(3, 2, 3, 3), shape=(1, 3, 6, 6), pads=[1, 1, 1, 1])
    first, net.value, net.shape = net.value, "x", (1, 2, 6, 6)
    net.apply("Conv", net.weights(2, 2, 1, 1), shape=(1, 2, 6, 6))
    net.add("Concat", [first, net.value], (1, 5, 6, 6), axis=1)
    structure, _ = structured(net)
    assert structure.single is None
    assert [one.layer.kernel for one in structure.layers] == [(3, 3), (1, 1)]


def test_pointwise_after_a_convolution_is_one_convolution():
    net = NetworkBuilder((1, 6, 6))
    net.apply("Conv", net.weights(4, 1, 3, 3), net.weights(4), shape=(1, 4, 4, 4))
    net.apply("Conv", net.weights(1, 4, 1, 1), net.weights(1), shape=(1, 1, 4, 4))
    assert structured(net)[0].single.weight.shape == (1, 1, 3, 3)


def test_a_transposed_convolution_has_no_structure():
    net = NetworkBuilder((2, 4, 4))
    net.apply("ConvTranspose", net.weights(2, 3, 2, 2), shape=(1, 3, 8, 8), strides=[2, 2])
    (segment,) = convert(net.model()).segments
    assert structure_of(segment) is None


def test_scale_per_position_has_no_structure():
    net = NetworkBuilder((2, 4, 4))
    net.apply("Mul", net.weights(2, 4, 4))
    net.apply("Conv", net.weights(3, 2, 3, 3), shape=(1, 3, 2, 2))
    program = convert(net.model())
    assert program.rounds == 1
    assert structure_of(program.segments[0]) is None


def test_learned_scale_of_a_normalisation_stays_a_scale_where_it_is_added():
    net = NetworkBuilder((5, 4))
    normal = net.apply("LayerNormalization", net.weights(4), net.weights(4), axis=-1)
    net.apply("MatMul", net.weights(4, 4))
    net.add("Add", [net.value, normal], net.shape)
    program = convert(net.model())
    assert program.rounds == 1
    structure = structure_of(program.segments[0])
    assert {type(one.layer) for one in structure.layers} == {DenseStructure, ScaleStructure}
