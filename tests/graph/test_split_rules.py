"""Who computes what: the rules of the split, each on the smallest network that shows it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from he_backend.graph import convert, run_program
from he_backend.graph.affine import lower
from tests.graph.networks import NetworkBuilder, plain, rows_for
from tests.graph.test_split import assert_no_weights_travel, close


def check(net, rounds, batched=True, counted=1.0):
    """The program, after comparing it with ONNX Runtime and counting its rounds. The splitter may count that share of the products."""
    model = net.model()
    program = convert(model)
    rows = rows_for(model)
    close(run_program(program, rows)[program.outputs[0].name], plain(model, rows))
    assert_no_weights_travel(program)
    assert program.rounds == rounds, program.describe()
    assert all(step.batched == batched for step in program.steps if step.model)
    for segment in program.segments:
        lowered = lower(segment, program.shapes)
        assert sum(lowered.in_sizes) == segment.in_elements
        assert sum(lowered.out_sizes) == segment.out_elements
        assert lowered.nonzeros * counted <= segment.multiply_adds + segment.in_elements
    return program


def conv(net, out, size=3, stride=1, pad=1):
    channels, spatial = net.shape[1], net.shape[2:]
    extents = [(e + 2 * pad - size) // stride + 1 for e in spatial]
    weight = net.weights(out, channels, *[size] * len(spatial), scale=0.3)
    net.apply(
        "Conv", weight, net.weights(out), shape=(1, out, *extents),
        kernel_shape=[size] * len(spatial), strides=[stride] * len(spatial), pads=[pad] * (2 * len(spatial)),
    )  # fmt: skip


def dense(net, width):
    net.apply("MatMul", net.weights(net.shape[-1], width, scale=net.shape[-1] ** -0.5), shape=(*net.shape[:-1], width))
    net.apply("Add", net.weights(width))


def batch_norm(net):
    channels = net.shape[1]
    spread = net.constant(net.random.uniform(0.5, 2, channels).astype(np.float32))
    net.apply("BatchNormalization", *[net.weights(channels) for _ in range(3)], spread)


def test_a_network_without_weights_needs_no_round():
    net = NetworkBuilder((3, 4))
    net.apply("Relu")
    net.apply("Softmax")
    program = check(net, 0)
    assert program.steps[0].ops == ("Relu", "Softmax")


def test_input_standardisation_folds_into_the_first_convolution():
    net = NetworkBuilder((3, 6, 6))
    net.apply("Sub", net.weights(3, 1, 1))
    net.apply("Div", net.constant(np.array([0.5, 0.7, 0.9], np.float32).reshape(3, 1, 1)))
    conv(net, 4)
    program = check(net, 1)
    assert program.segments[0].in_elements == 3 * 36


def test_batch_norm_after_relu_folds_into_the_next_convolution():
    net = NetworkBuilder((2, 6, 5))
    conv(net, 3)
    net.apply("Relu")
    batch_norm(net)
    conv(net, 4, stride=2)
    check(net, 2)


def test_batch_norm_that_a_client_operator_reads_has_a_round_of_its_own():
    net = NetworkBuilder((2, 6, 5))
    net.apply("Relu")
    batch_norm(net)
    net.apply("Sigmoid")
    check(net, 1)


def test_zero_padding_is_not_sent():
    net = NetworkBuilder((2, 5, 5))
    net.apply("Relu")
    pads = np.array([0, 0, 2, 1, 0, 0, 0, 3], np.int64)
    net.apply("Pad", net.constant(pads), shape=(1, 2, 7, 9))
    conv(net, 3, pad=0)
    program = check(net, 1, counted=0.7)  # an ONNX Runtime of 1.16 leaves Pad to the splitter, which takes its zeros by their share
    assert program.segments[0].in_elements == 50


def test_upsampling_is_not_sent():
    net = NetworkBuilder((2, 4, 4))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    net.apply("Resize", net.constant(np.zeros(0, np.float32)), scales, shape=(1, 2, 8, 8), mode="nearest")
    conv(net, 3)
    program = check(net, 1)
    assert program.segments[0].in_elements == 32


def test_pooling_of_a_segment_is_composed_into_it():
    net = NetworkBuilder((2, 6, 6))
    conv(net, 3, size=1, pad=0)
    net.apply("AveragePool", shape=(1, 3, 3, 3), kernel_shape=[2, 2], strides=[2, 2])
    net.apply("Relu")
    program = check(net, 1)
    assert program.segments[0].out_elements == 27


def test_pooling_of_what_the_client_has_is_the_clients():
    net = NetworkBuilder((2, 6, 6))
    net.apply("AveragePool", shape=(1, 2, 3, 3), kernel_shape=[2, 2], strides=[2, 2])
    conv(net, 3)
    program = check(net, 1)
    assert program.segments[0].in_elements == 18


def test_narrow_layers_without_activation_are_composed():
    net = NetworkBuilder((4,))
    dense(net, 30)
    dense(net, 3)
    program = check(net, 1)
    assert program.segments[0].multiply_adds == 12


def test_a_bottleneck_without_activation_takes_another_round():
    net = NetworkBuilder((30,))
    dense(net, 2)
    dense(net, 30)
    check(net, 2)


def test_a_sum_of_two_convolutions_comes_back_as_one():
    net = NetworkBuilder((2, 5, 5))
    start, shape = net.value, net.shape
    conv(net, 3)
    first = net.value
    net.value, net.shape = start, shape
    conv(net, 3, size=1, pad=0)
    net.add("Add", [first, net.value], net.shape)
    net.apply("Relu")
    program = check(net, 1)
    assert program.segments[0].out_elements == 75


def test_a_residual_is_the_clients():
    net = NetworkBuilder((2, 5, 5))
    net.apply("Relu")
    start = net.value
    conv(net, 2)
    net.add("Add", [start, net.value], net.shape)
    net.apply("Relu")
    program = check(net, 1)
    assert program.steps[1].ops == ("Add", "Relu")


def test_independent_layers_share_a_round_and_their_input():
    net = NetworkBuilder((4,))
    start = net.value
    dense(net, 3)
    net.apply("Relu")
    first = net.value
    net.value, net.shape = start, (1, 4)
    dense(net, 3)
    net.apply("Tanh")
    net.add("Mul", [first, net.value], (1, 3))
    program = check(net, 1)
    assert program.segments[0].in_elements == 4
    assert len(lower(program.segments[0]).blocks) == 1


def test_slices_of_one_layer_are_sent_back_once():
    net = NetworkBuilder((4,))
    dense(net, 6)
    net.nodes.append(onnx.helper.make_node("Split", [net.value], ["left", "right"], axis=1))
    net.add("Sigmoid", ["right"], (1, 3))
    net.add("Mul", ["left", net.value], (1, 3))
    program = check(net, 1)
    assert program.segments[0].out_elements == 6


def test_a_scalar_prefers_the_server():
    net = NetworkBuilder((4,))
    dense(net, 3)
    net.apply("Mul", net.constant(np.float32(0.25)))
    net.apply("Relu")
    program = check(net, 1)
    assert program.public_constants == ()


def test_a_scalar_of_an_activation_travels_and_is_listed():
    net = NetworkBuilder((4,))
    dense(net, 3)
    net.apply("Tanh")
    net.apply("Mul", net.constant(np.float32(0.25)))
    program = check(net, 1)
    assert len(program.public_constants) == 1
    assert "one number of the architecture" in program.public_constants[0]


@pytest.mark.parametrize("slopes", [1, 3])
def test_prelu_slopes_stay_with_the_model_owner(slopes):
    net = NetworkBuilder((3, 4))
    conv(net, 3)
    net.apply("PRelu", net.weights(slopes, 1))
    program = check(net, 2)
    assert program.public_constants == ()


def test_one_channel_norms_stay_with_the_model_owner():
    net = NetworkBuilder((1, 5, 5))
    net.apply("Relu")
    batch_norm(net)
    net.apply("Relu")
    assert check(net, 1).public_constants == ()


def test_layer_norm_scale_and_shift_move_into_the_next_segment():
    net = NetworkBuilder((4, 6))
    net.apply("LayerNormalization", net.weights(6), net.weights(6), axis=-1)
    dense(net, 5)
    check(net, 1)


def test_instance_norm_scale_and_shift_move_into_the_next_segment():
    net = NetworkBuilder((3, 5, 4))
    net.apply("InstanceNormalization", net.weights(3), net.weights(3))
    conv(net, 2)
    check(net, 1)


def test_a_residual_after_a_learned_norm_enters_the_segment_beside_it():
    """h = γ·n + β; y = h + W₂·relu(W₁·h): round 2 takes relu(…) and n, and h is never sent."""
    net = NetworkBuilder((4, 6))
    net.apply("LayerNormalization", net.weights(6), net.weights(6), axis=-1)
    start = net.value
    dense(net, 8)
    net.apply("Relu")
    dense(net, 6)
    net.add("Add", [start, net.value], net.shape)
    net.apply("Relu")
    program = check(net, 2)
    assert len(program.segments[1].inputs) == 2
    assert program.segments[0].out_elements == 32


def test_attention_masks_travel_as_booleans():
    net = NetworkBuilder((4, 4))
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    net.apply("MatMul", net.weights(4, 4))
    net.apply("Add", net.constant(mask))
    net.apply("Softmax")
    program = check(net, 1)
    assert any("a mask in Where" in entry for entry in program.public_constants)


def test_bounds_comparisons_and_choices_with_weights():
    net = NetworkBuilder((3, 4))
    net.apply("Max", net.weights(3, 1))
    net.apply("Min", net.weights(4))
    check(net, 3)

    net = NetworkBuilder((3, 4))
    start = net.value
    net.add("Greater", [start, net.weights(3, 1)], net.shape)
    net.add("Where", [net.value, start, net.weights(4)], net.shape)
    check(net, 2)


def test_positions_are_the_servers():
    net = NetworkBuilder((3, 4))
    dense(net, 5)
    net.apply("Add", net.weights(3, 5))
    net.apply("Relu")
    assert check(net, 1).public_constants == ()


def test_a_constant_beside_a_value_is_the_servers():
    net = NetworkBuilder((3, 4))
    net.apply("Reshape", net.constant(np.array([-1, 12], np.int64)), shape=(1, 12))
    model = net.model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 15
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[1.5, -2, 3]], np.float32), "token"))
    model.graph.node.append(onnx.helper.make_node("Concat", ["token", net.value], ["y"], axis=1))
    model.graph.output[0].name = "y"
    program = convert(model)
    rows = rows_for(model, rows=1)
    close(run_program(program, rows)["y"], plain(model, rows))
    assert program.public_constants == ()


def test_describe_names_both_parties():
    net = NetworkBuilder((4,))
    dense(net, 3)
    net.apply("Relu")
    dense(net, 2)
    text = check(net, 2).describe()
    assert "data owner computes" in text
    assert "model owner computes" in text
    assert "2 rounds" in text
    assert "18 multiply-adds" in text


def pointwise_pair(inner, middle, outer, more=None):
    """A network of two 1×1 convolutions without a non-linearity between them; `more` comes between."""
    net = NetworkBuilder((inner, 6, 6))
    net.apply("Relu")
    conv(net, middle, size=1, pad=0)
    if more:
        more(net)
    conv(net, outer, size=1, pad=0)
    return net


def test_pointwise_convolutions_in_a_row_are_one_where_the_product_costs_less_than_the_trip():
    program = check(pointwise_pair(32, 16, 96), 1)  # 32 · 96 multiply-adds a position against 16 · (32 + 96 + 64)
    (block,) = lower(program.segments[0], program.shapes).blocks
    assert block.weights.shape == (1, 32, 96)  # held once for all 36 positions


def test_pointwise_convolutions_in_a_row_stay_two_where_their_product_costs_more_than_the_trip():
    program = check(pointwise_pair(96, 24, 144), 2)
    assert program.multiply_adds == 36 * 24 * (96 + 144)


def test_a_product_of_large_pointwise_convolutions_is_not_built_element_by_element():
    net = NetworkBuilder((64, 80, 80))
    conv(net, 64, size=1, pad=0)
    conv(net, 64, size=1, pad=0)
    program = check(net, 1)  # 26 million multiply-adds: more than a matrix of elements may have
    (block,) = lower(program.segments[0], program.shapes).blocks
    assert block.weights.shape == (1, 64, 64)


def test_pointwise_after_strided_convolution_is_one():
    net = NetworkBuilder((3, 9, 9))
    conv(net, 8, size=3, stride=2)
    conv(net, 12, size=1, pad=0)
    program = check(net, 1)
    assert program.multiply_adds == 25 * 27 * 12


def test_layers_on_a_residual_sum_are_one_round():
    net = NetworkBuilder((4, 6, 6))
    net.apply("Relu")
    start = net.value
    conv(net, 4, size=1, pad=0)
    net.add("Add", [start, net.value], net.shape)
    conv(net, 6, size=1, pad=0)
    program = check(net, 1)
    assert program.segments[0].in_elements == 4 * 36  # the residual is what the first layer reads


def test_batch_norm_on_a_residual_sum_needs_no_round_of_its_own():
    net = NetworkBuilder((4, 6, 6))
    net.apply("Relu")
    start = net.value
    conv(net, 4)
    net.add("Add", [start, net.value], net.shape)
    batch_norm(net)
    net.apply("Relu")
    conv(net, 3)
    check(net, 2)


def test_a_value_that_several_client_operators_scale_comes_once():
    net = NetworkBuilder((8,))
    dense(net, 16)
    start = net.value
    inner = net.add("Erf", [net.add("Mul", [start, net.constant(np.float32(0.7))], net.shape)], net.shape)
    halved = net.add("Mul", [start, net.constant(np.float32(0.5))], net.shape)
    net.add("Mul", [halved, inner], net.shape)
    program = check(net, 1)
    assert program.segments[0].out_elements == 16
