"""Client steps: what a peer may send, and running them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from he_backend.errors import ModelError, ProtocolError
from he_backend.graph import convert, steps
from he_backend.graph.element_types import numpy_type
from he_backend.graph.program import Step
from he_backend.graph.steps import StepRunner, check_step


def step_model(nodes, constants=(), shape=("rows", 4), out=("rows", 4)):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(out))]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(constants).items()]
    model = helper.make_model(helper.make_graph(nodes, "step", inputs, outputs, tensors), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def relu():
    return step_model([helper.make_node("Relu", ["x"], ["y"])])


def refusal(model):
    with pytest.raises(ModelError) as caught:
        check_step(model.SerializeToString())
    return caught.value.problems


def test_plain_activations_pass():
    check_step(relu().SerializeToString())


def test_a_scalar_passes_and_a_vector_of_weights_does_not():
    node = helper.make_node("Mul", ["x", "c"], ["y"])
    check_step(step_model([node], {"c": np.float32(2)}).SerializeToString())
    (problem,) = refusal(step_model([node], {"c": np.ones(4, np.float32)}))
    assert "weights do not belong" in problem.reason


def test_weights_in_a_constant_node_or_an_attribute_are_found():
    tensor = numpy_helper.from_array(np.ones(4, np.float32))
    constant = helper.make_node("ConstantOfShape", ["s"], ["c"], value=tensor)
    nodes = [constant, helper.make_node("Mul", ["x", "c"], ["y"])]
    assert "weights do not belong" in refusal(step_model(nodes, {"s": np.array([4])}))[0].reason
    node = helper.make_node("Relu", ["x"], ["y"], numbers=[1.0] * 17)
    assert "holds 17 numbers" in refusal(step_model([node]))[0].reason


def test_integer_indices_and_masks_pass():
    nodes = [helper.make_node("Where", ["m", "x", "z"], ["y"])]
    check_step(step_model(nodes, {"m": np.array([True, False, True, True]), "z": np.float32(0)}).SerializeToString())


def test_scales_of_a_resize_pass_unless_something_else_reads_them():
    resize = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")
    scales = {"s": np.array([1, 2], np.float32)}
    check_step(step_model([resize], scales, out=("rows", 8)).SerializeToString())
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["r"], mode="nearest"), helper.make_node("Add", ["r", "s"], ["y"])]
    assert refusal(step_model(nodes, scales))


def test_every_operator_that_is_not_allowed_is_told():
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["a"], name="noise"),
        helper.make_node("Evil", ["a"], ["b"], name="mine", domain="com.evil"),
        helper.make_node("StringNormalizer", ["b"], ["y"], name="text"),
    ]
    assert [problem.node for problem in refusal(step_model(nodes))] == ["noise", "mine", "text"]


def test_subgraphs_are_refused_even_in_allowed_operators():
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "body", [], [])
    assert "body" in refusal(step_model([helper.make_node("Relu", ["x"], ["y"], body=body)]))[0].reason
    branch = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    assert refusal(step_model([branch]))[0].op == "If"


def test_files_functions_and_domains_are_refused():
    model = step_model([helper.make_node("Mul", ["x", "c"], ["y"])], {"c": np.float32(2)})
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert "another file" in refusal(model)[0].reason

    model = relu()
    model.functions.add(name="f", domain="")
    with pytest.raises(ProtocolError, match="functions"):
        check_step(model.SerializeToString())

    model = relu()
    model.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(ProtocolError, match="standard operator set"):
        check_step(model.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"\x00", b"junk" * 9])
def test_bytes_that_are_no_network_are_refused(data):
    with pytest.raises(ProtocolError):
        check_step(data)


def test_truncated_constants_are_refused():
    model = step_model([helper.make_node("Mul", ["x", "c"], ["y"])], {"c": np.float32(2)})
    model.graph.initializer[0].raw_data = b"\x00"
    assert "cannot be read" in refusal(model)[0].reason


def test_limits(monkeypatch):
    monkeypatch.setattr(steps, "MAX_STEP_NODES", 1)
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    with pytest.raises(ProtocolError, match="2 operators"):
        check_step(step_model(nodes).SerializeToString())
    monkeypatch.setattr(steps, "MAX_STEP_BYTES", 10)
    with pytest.raises(ProtocolError, match="at most 10"):
        check_step(relu().SerializeToString())


def test_values_that_would_fill_the_memory_are_refused():
    nodes = [helper.make_node("Expand", ["x", "s"], ["y"])]
    model = step_model(nodes, {"s": np.array([1 << 20, 1 << 20, 4])}, shape=("rows", 4), out=("a", "b", 4))
    with pytest.raises(ProtocolError, match="larger than"):
        check_step(model.SerializeToString())


def test_running_in_chunks_gives_the_same(monkeypatch):
    runner = StepRunner(Step(("x",), ("y",), relu().SerializeToString()))
    rows = np.random.default_rng(0).standard_normal((11, 4)).astype(np.float32)
    whole = runner.run({"x": rows})["y"]
    monkeypatch.setattr(steps, "_VALUES_AT_ONCE", 24)
    np.testing.assert_array_equal(runner.run({"x": rows})["y"], whole)
    np.testing.assert_array_equal(whole, np.maximum(rows, 0))


def test_float64_from_decryption_is_taken_and_the_steps_type_comes_back():
    runner = StepRunner(Step(("x",), ("y",), relu().SerializeToString()))
    assert runner.run({"x": np.ones((2, 4))})["y"].dtype == np.float32


def test_an_empty_step_computes_nothing():
    assert StepRunner(Step((), ())).run({"x": np.ones((2, 4))}) == {}


def test_a_step_that_mixes_rows_up_is_found():
    model = step_model([helper.make_node("Reshape", ["x", "s"], ["y"])], {"s": np.array([4, -1])}, out=("rows", 4))
    with pytest.raises(ModelError, match="shape"):
        StepRunner(Step(("x",), ("y",), model.SerializeToString())).run({"x": np.ones((3, 4), np.float32)})


def test_a_public_table_is_the_only_floating_tensor_that_passes():
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("Relu", ["e"], ["y"])]
    tensors = [numpy_helper.from_array(np.ones((5, 3), np.float32), "table")]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 3])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, tensors), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    program = convert(model, public_embeddings=True)
    names = [t.name for t in onnx.ModelProto.FromString(program.steps[0].model).graph.initializer]
    assert names == ["public:table"]
    check_step(program.steps[0].model)


@pytest.mark.parametrize(
    "of_y, says",
    [
        ({"elem_type": TensorProto.UNDEFINED, "shape": ["rows", 2]}, "type"),
        ({"elem_type": TensorProto.FLOAT, "shape": ["rows*many", 2]}, "rows or rows"),
        ({"elem_type": TensorProto.FLOAT, "shape": ["rows*99999999999", 2]}, "rows or rows"),
    ],
)
def test_a_step_whose_values_cannot_be_told_is_refused(of_y, says):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])
    y = helper.make_tensor_value_info("y", **of_y)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "step", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    with pytest.raises(ModelError, match=says):
        StepRunner(Step(("x",), ("y",), model.SerializeToString()))


def test_an_element_type_without_a_numpy_type_is_refused():
    for unknown in (0, 99):
        with pytest.raises(ModelError, match="element type"):
            numpy_type(unknown)
