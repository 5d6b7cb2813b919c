"""Each rewrite: the graph before, the operators after, and the same function (the importer compares every model with ONNX Runtime)."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.errors import ModelError
from he_backend.graph import convert, infer, passes, run_program
from he_backend.graph.model import Node
from he_backend.graph.onnx_import import import_onnx
from he_backend.graph.steps import check_step
from tests.graph.networks import NetworkBuilder, plain, rows_for


def ops_of(net):
    """Operators of the imported graph."""
    return [node.op for node in import_onnx(net.model()).nodes]


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("beta", [1.0, -2.0])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(alpha, beta, transposed):
    net = NetworkBuilder((4,))
    weight = net.weights(3, 4) if transposed else net.weights(4, 3)
    net.apply("Gemm", weight, net.weights(3), shape=(1, 3), alpha=alpha, beta=beta, transB=transposed)
    assert ops_of(net) == ["MatMul", "Add"]


def test_gemm_with_the_weight_on_the_left():
    net = NetworkBuilder((4,))
    net.apply("Reshape", net.constant(np.array([4, -1])), shape=(4, 1))
    net.add("Gemm", [net.weights(3, 4), net.value], (3, 1), alpha=2.0)
    net.apply("Reshape", net.constant(np.array([1, 3])), shape=(1, 3))
    model = net.model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert "Gemm" not in [node.op for node in import_onnx(model).nodes]


def test_batch_norm_becomes_scale_and_shift_or_is_fused_into_its_convolution():
    net = NetworkBuilder((2, 5))
    net.apply("Relu")
    net.apply("BatchNormalization", net.weights(2), net.weights(2), net.weights(2), net.constant(np.ones(2, np.float32)))
    assert ops_of(net) == ["Relu", "Mul", "Add"]

    net = NetworkBuilder((2, 5))
    net.apply("Conv", net.weights(2, 2, 1), net.weights(2), kernel_shape=[1])
    net.apply("BatchNormalization", net.weights(2), net.weights(2), net.weights(2), net.constant(np.ones(2, np.float32)))
    assert ops_of(net) == ["Conv"]


def test_identity_and_dropout_disappear():
    net = NetworkBuilder((4,))
    net.apply("Relu")
    net.apply("Dropout")
    net.apply("Identity")
    net.apply("Sigmoid")
    assert ops_of(net) == ["Relu", "Sigmoid"]


def test_prelu():
    net = NetworkBuilder((2, 3))
    net.apply("PRelu", net.weights(2, 1))
    graph = import_onnx(net.model())
    assert [node.op for node in graph.nodes] == ["Relu", "Neg", "Relu", "Mul", "Add"]
    assert len(graph.weights) == 1


@pytest.mark.parametrize(
    "op, left, wanted",
    [
        ("Sub", False, ["Add"]),
        ("Sub", True, ["Neg", "Add"]),
        ("Div", False, ["Mul"]),
        ("Div", True, ["Reciprocal", "Mul"]),
    ],
)
def test_subtract_and_divide(op, left, wanted):
    net = NetworkBuilder((4,))
    net.apply("Exp")  # away from zero
    constant = net.constant(np.array([0.5, 1, 2, 4], np.float32))
    net.add(op, [constant, net.value] if left else [net.value, constant], net.shape)
    assert ops_of(net) == ["Exp", *wanted]


def test_division_by_zero_is_left_as_it_is_and_refused():
    net = NetworkBuilder((2,))
    net.apply("Div", net.constant(np.array([0, 1], np.float32)))
    with pytest.raises(ModelError, match="2 weights"):
        import_onnx(net.model())


def test_selection_moves_before_what_treats_positions_alike():
    net = NetworkBuilder((5, 4))
    net.apply("MatMul", net.weights(4, 3), shape=(1, 5, 3))
    net.apply("Add", net.weights(5, 3))
    net.apply("Relu")
    net.apply("Softmax", axis=-1)
    net.apply("Gather", net.constant(np.int64(-1)), shape=(1, 3), axis=1)
    assert ops_of(net) == ["Gather", "MatMul", "Add", "Relu", "Softmax", "Reshape"]


def test_selection_stays_after_what_mixes_positions():
    net = NetworkBuilder((5, 4))
    net.apply("Softmax", axis=1)
    net.apply("Gather", net.constant(np.int64(2)), shape=(1, 4), axis=1)
    assert ops_of(net) == ["Softmax", "Gather"]


def test_selection_stays_where_something_else_reads_the_whole():
    net = NetworkBuilder((5, 4))
    whole = net.apply("Relu")
    first = net.apply("Gather", net.constant(np.int64(0)), shape=(1, 4), axis=1)
    net.add("ReduceSum", [whole, net.constant(np.array([1]))], (1, 4), keepdims=0)
    net.add("Add", [first, net.value], (1, 4))
    assert ops_of(net)[0] == "Relu"


def test_one_selected_weight_of_many_stays_a_weight():
    net = NetworkBuilder((5, 1))
    net.apply("Add", net.weights(5, 1))
    net.apply("Gather", net.constant(np.int64(2)), shape=(1, 1), axis=1)
    graph = import_onnx(net.model())
    assert [name for name, value in graph.constants.items() if value.dtype.kind == "f" and name in graph.weights]


def test_transposes_that_cancel_disappear():
    net = NetworkBuilder((3, 4))
    net.apply("Relu")
    net.apply("Transpose", shape=(1, 4, 3), perm=(0, 2, 1))
    net.apply("Reshape", net.constant(np.array([0, 4, 1, 3])), shape=(1, 4, 1, 3))
    net.apply("Transpose", shape=(1, 3, 4, 1), perm=(0, 3, 1, 2))
    net.apply("Reshape", net.constant(np.array([0, 3, 4])), shape=(1, 3, 4))
    net.apply("Tanh")
    assert ops_of(net) == ["Relu", "Tanh"]


def test_a_part_of_a_concatenation_does_not_wait_for_the_rest():
    net = NetworkBuilder((3, 4))
    start = net.value
    first = net.add("Relu", [start], (1, 3, 4))
    net.add("Concat", [first, net.add("Tanh", [start], (1, 3, 4))], (1, 6, 4), axis=1)
    net.apply("Slice", *[net.constant(np.array([i])) for i in (0, 3, 1)], shape=(1, 3, 4))
    net.apply("Sigmoid")
    assert ops_of(net) == ["Relu", "Sigmoid"]


def test_parts_of_a_concatenation_in_another_order_stay():
    net = NetworkBuilder((3, 4))
    net.add("Concat", [net.value, net.add("Tanh", [net.value], (1, 3, 4))], (1, 6, 4), axis=1)
    net.apply("Gather", net.constant(np.array([1, 0, 2])), shape=(1, 3, 4), axis=1)
    net.apply("Sigmoid")
    assert ops_of(net) == ["Tanh", "Concat", "Gather", "Sigmoid"]


def test_a_concatenation_along_the_row_axis_keeps_rows_apart():
    net = NetworkBuilder((2, 4))
    net.add("Concat", [net.value, net.add("Tanh", [net.value], (1, 2, 4))], (2, 2, 4), axis=0)
    net.apply("ReduceSum", net.constant(np.array([0])), shape=(1, 2, 4), keepdims=1)
    model = net.model()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    assert [node.op for node in import_onnx(model).nodes][:3] == ["Tanh", "Concat", "Reshape"]


def test_a_pass_that_breaks_the_graph_fails_in_that_pass(monkeypatch):
    def forgets_a_node(graph):
        return graph.with_nodes(graph.nodes[1:], graph.constants)

    def changes_a_shape(graph):
        last = graph.nodes[-1]
        return graph.with_nodes((*graph.nodes[:-1], Node("Flatten", "odd", last.inputs, last.outputs, {"axis": 2})), graph.constants)

    net = NetworkBuilder((4,))
    net.apply("Relu")
    net.apply("Tanh")
    for broken, message in ((forgets_a_node, "nothing produces"), (changes_a_shape, "was float32")):
        monkeypatch.setattr(passes, "PASSES", (broken,))
        with pytest.raises(ModelError, match=f"pass {broken.__name__}: .*{message}"):
            import_onnx(net.model())


def test_shapes_are_known_for_every_value():
    net = NetworkBuilder((2, 6, 6))
    net.apply("Conv", net.weights(3, 2, 3, 3), shape=(1, 3, 4, 4), kernel_shape=[3, 3])
    net.apply("Relu")
    graph = import_onnx(net.model())
    assert graph.shapes[graph.outputs[0]] == (1, 3, 4, 4)
    assert infer.check(graph, "again").shapes == graph.shapes


def answers_as_onnxruntime(net):
    """The network's program, after it was found to give what ONNX Runtime gives."""
    model = net.model()
    rows = rows_for(model)
    program = convert(model)
    got = run_program(program, rows)[program.outputs[0].name]
    np.testing.assert_allclose(got, plain(model, rows), rtol=1e-4, atol=1e-5)
    for step in program.steps:
        if step.model:
            check_step(step.model)
    return program


def zero_gamma(net, normalise):
    """A normalisation whose learned scale is all zeros."""
    if normalise == "BatchNormalization":
        numbers = [np.zeros(3), np.array([1, -2, 3]), np.ones(3), np.ones(3)]
        net.apply(normalise, *[net.constant(n.astype(np.float32)) for n in numbers])
    else:
        net.apply(normalise, net.constant(np.zeros(4, np.float32)), net.constant(np.float32([1, -2, 3, 0.5])), axis=-1)


@pytest.mark.parametrize("normalise", ["BatchNormalization", "LayerNormalization"])
@pytest.mark.parametrize("follows", [[], ["Relu"], ["Tanh", "MatMul"]])
def test_a_branch_whose_scale_is_zero_is_a_constant_of_the_model_owner(normalise, follows):
    net = NetworkBuilder((3, 4))
    start = net.apply("Relu")
    zero_gamma(net, normalise)
    for op in follows:
        net.apply(op, *([net.weights(4, 4)] if op == "MatMul" else []))
    net.add("Add", [net.value, start], net.shape)
    net.apply("MatMul", net.weights(4, 2), shape=(1, 3, 2))
    program = answers_as_onnxruntime(net)
    assert not any(ending in entry for entry in program.public_constants for ending in ("shift", "Mul"))


@pytest.mark.parametrize("normalise", ["BatchNormalization", "LayerNormalization"])
def test_an_output_that_zeros_make_constant_is_refused_by_name(normalise):
    net = NetworkBuilder((3, 4))
    net.apply("Relu")
    zero_gamma(net, normalise)
    net.apply("MatMul", net.weights(4, 2), shape=(1, 3, 2))
    with pytest.raises(ModelError, match=f"output '{net.value}' is the same for every input"):
        import_onnx(net.model())


def test_one_folded_weight_stays_a_weight():
    net = NetworkBuilder((1, 2))
    start = net.apply("Relu")
    numbers = [np.zeros(1), np.array([3.0]), np.ones(1), np.ones(1)]
    net.apply("BatchNormalization", *[net.constant(n.astype(np.float32)) for n in numbers])
    net.apply("Sigmoid")
    net.add("Add", [net.value, start], net.shape)
    program = answers_as_onnxruntime(net)
    assert not program.public_constants


def test_a_choice_between_data_and_weights_by_a_constant():
    net = NetworkBuilder((4,))
    net.apply("MatMul", net.weights(4, 3), shape=(1, 3))
    net.add("Where", [net.constant(np.array([True, False, True])), net.value, net.weights(3)], (1, 3))
    net.apply("MatMul", net.weights(3, 2), shape=(1, 2))
    answers_as_onnxruntime(net)


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize(
    "bounds",
    [[0.5, -0.5, 0], [1e5, 2e5, 3e5], [1e6, 0.25, 1e6], [3.4e38, 3.4e38, 0.5], [3.4e38, 3.4e38, 3.4e38], [np.inf, 1e4, 0], [1e30] * 3],
)
@pytest.mark.parametrize("active", [False, True])
def test_bounds_however_far(op, bounds, active):
    net = NetworkBuilder((4,))
    net.apply("MatMul", net.weights(4, 3), shape=(1, 3))
    sign = -1 if (op == "Max") != active else 1
    net.apply(op, net.constant((sign * np.array(bounds)).astype(np.float32)))
    model = net.model()
    rows = rows_for(model)
    program = convert(model)
    got, due = run_program(program, rows)[net.value], plain(model, rows)
    np.testing.assert_allclose(got, due, rtol=1e-6, atol=1e-6)


def test_many_far_bounds_look_like_weights_and_are_refused():
    net = NetworkBuilder((20,))
    net.apply("Max", net.constant(-np.arange(1e5, 1e5 + 20, dtype=np.float32)))
    with pytest.raises(ModelError, match="20 weights"):
        import_onnx(net.model())
