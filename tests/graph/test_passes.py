"""Each rewrite: the graph before, the operators after, and the same function (the importer compares every model with ONNX Runtime)."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.errors import ModelError
from he_backend.graph import infer, passes
from he_backend.graph.model import Node
from he_backend.graph.onnx_import import import_onnx
from tests.graph.networks import NetworkBuilder


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
