"""ONNX read as a network that can be trained and written again; torch computes the same as ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from he_backend.errors import ModelError
from he_backend.strategies import network
from he_backend.zoo import all_shipped
from he_backend.zoo.storage import is_half, with_half_weights

torch = pytest.importorskip("torch")

from he_backend.strategies.distil import Runner  # noqa: E402  (needs torch)

RANDOM = np.random.default_rng(3)


def weights(*shape):
    return (RANDOM.standard_normal(shape) * 0.5).astype(np.float32)


def model(nodes, shape, constants, kind=TensorProto.FLOAT, out=None):
    given = [helper.make_tensor_value_info("x", kind, ["n", *shape])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    proto = helper.make_model(helper.make_graph(nodes, "g", given, made, tensors), opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    return proto.SerializeToString()


def by_onnx_runtime(data, x):
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def by_torch(data, x):
    with torch.no_grad():
        return Runner(network.read(data)).scores(torch.from_numpy(x)).numpy()


def chain(*steps):
    """Nodes one after the other: (operator, further inputs, attributes)."""
    nodes, value = [], "x"
    for index, (op, more, attributes) in enumerate(steps):
        out = "y" if index == len(steps) - 1 else f"v{index}"
        nodes.append(helper.make_node(op, [value, *more], [out], **attributes))
        value = out
    return nodes


IMAGE = (3, 9, 7)
CASES = {
    "conv, pads on one side": (chain(("Conv", ["w", "b"], {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "strides": [2, 1]})), IMAGE),
    "depthwise, dilated": (chain(("Conv", ["d"], {"kernel_shape": [2, 2], "group": 3, "dilations": [2, 1]})), IMAGE),
    "max pool": (chain(("MaxPool", [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 0})), IMAGE),
    "average pool": (chain(("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 1], "pads": [1, 1, 0, 0]})), IMAGE),
    "average pool with its padding": (
        chain(("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 1], "pads": [1, 1, 0, 0], "count_include_pad": 1})),
        IMAGE,
    ),
    "normalised": (chain(("BatchNormalization", ["s", "t", "m", "v"], {}), ("GlobalAveragePool", [], {}), ("Flatten", [], {})), IMAGE),
    "activations": (chain(("LeakyRelu", [], {"alpha": 0.2}), ("Tanh", [], {}), ("Sigmoid", [], {}), ("Erf", [], {})), IMAGE),
    "moved": (
        chain(
            ("Transpose", [], {"perm": [0, 2, 1, 3]}),
            ("Slice", ["from", "to", "axes"], {}),
            ("Reshape", ["shape"], {}),
            ("Neg", [], {}),
        ),
        IMAGE,
    ),
    "reduced": (
        chain(("ReduceMean", [], {"axes": [2], "keepdims": 0}), ("ReduceSum", ["one"], {"keepdims": 1}), ("Squeeze", ["one"], {})),
        IMAGE,
    ),
    "layer norm": (chain(("LayerNormalization", ["l", "k"], {"axis": -1}), ("Softmax", [], {"axis": 1})), IMAGE),
    "gemm": (chain(("Gemm", ["g", "h"], {"transB": 1, "alpha": 0.5, "beta": 2.0}), ("Pow", ["two"], {}), ("Sqrt", [], {})), (6,)),
    "picked": (chain(("Gather", ["places"], {"axis": 2}), ("Unsqueeze", ["one"], {}), ("Identity", [], {})), IMAGE),
}  # fmt: skip
CONSTANTS = {
    "w": weights(4, 3, 3, 2), "b": weights(4), "d": weights(3, 1, 2, 2), "s": weights(3), "t": weights(3), "m": weights(3),
    "v": np.abs(weights(3)) + 0.5, "from": np.array([1, 0]), "to": np.array([8, 5]), "axes": np.array([1, 3]), "shape": np.array([0, -1]),
    "one": np.array([1]), "l": weights(7), "k": weights(7), "g": weights(5, 6), "h": weights(5), "two": np.float32(2),
    "places": np.array([[0, 2], [5, 1]]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_torch_computes_what_onnx_runtime_does(case):
    nodes, shape = CASES[case]
    used = {name for node in nodes for name in node.input}
    data = model(nodes, shape, {name: value for name, value in CONSTANTS.items() if name in used})
    x = RANDOM.standard_normal((3, *shape)).astype(np.float32)

    np.testing.assert_allclose(by_torch(data, x), by_onnx_runtime(data, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("before_reset", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_a_gru_in_torch_is_onnx_runtimes(direction, before_reset, bias):
    ways = 2 if direction == "bidirectional" else 1
    constants = {"W": weights(ways, 12, 5), "R": weights(ways, 12, 4), **({"B": weights(ways, 24)} if bias else {})}
    names = ["v0", "W", "R", *(["B"] if bias else [])]
    nodes = [
        helper.make_node("Transpose", ["x"], ["v0"], perm=[1, 0, 2]),
        helper.make_node("GRU", names, ["y"], hidden_size=4, direction=direction, linear_before_reset=before_reset),
    ]
    data, x = model(nodes, (6, 5), constants), RANDOM.standard_normal((3, 6, 5)).astype(np.float32)

    np.testing.assert_allclose(by_torch(data, x), by_onnx_runtime(data, x), atol=1e-5)


@pytest.mark.parametrize("shipped", all_shipped(), ids=lambda one: one.onnx_path.stem)
def test_shipped_networks_read_and_written_give_the_same_scores(shipped):
    data, shape = shipped.onnx_path.read_bytes(), (3, *shipped.input_shape)
    x = RANDOM.integers(1, 250, shape) if shipped.embeddings else RANDOM.random(shape).astype(np.float32)
    due = by_onnx_runtime(data, x)

    read = network.read(data)

    np.testing.assert_allclose(by_torch(data, x), due, rtol=1e-4, atol=1e-4)
    assert not any(op.op == "Cast" and op.inputs[0] in read.learned for op in read.ops)
    if not any(op.op == "Gelu" for op in read.ops):  # which opset 17 does not have: it is always replaced before writing
        again = network.write(read)
        again = with_half_weights(again) if is_half(data) else again
        np.testing.assert_allclose(by_onnx_runtime(again, x), due, rtol=1e-3, atol=1e-3)


def test_the_exporters_spelling_of_gelu_becomes_one_operator():
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5), "w": weights(7, 4)}
    nodes = [
        helper.make_node("Div", ["x", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["a"]),
        helper.make_node("Mul", ["x", "a"], ["p"]),
        helper.make_node("Mul", ["p", "half"], ["g"]),
        helper.make_node("MatMul", ["g", "w"], ["y"]),
    ]
    proto = onnx.load_from_string(model(nodes, (7,), constants))
    for tensor in [t for t in proto.graph.initializer if t.name != "w"]:  # the exporter writes them as Constant nodes
        proto.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
        proto.graph.initializer.remove(tensor)
    data, x = proto.SerializeToString(), RANDOM.standard_normal((5, 7)).astype(np.float32)

    read = network.read(data)

    assert [op.op for op in read.ops] == ["Gelu", "MatMul"] and set(read.learned) == {"w"}
    np.testing.assert_allclose(by_torch(data, x), by_onnx_runtime(data, x), atol=1e-5)


def test_several_inputs_and_unknown_operators_are_refused():
    nodes = [helper.make_node("Add", ["x", "z"], ["y"])]
    proto = onnx.load_from_string(model(nodes, (3,), {}))
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3]))
    with pytest.raises(ModelError, match=r"2 inputs \(x, z\)"):
        network.read(proto.SerializeToString())
    with pytest.raises(ModelError, match="cannot be trained here: Celu; take the strategy 'exact'"):
        Runner(network.read(model(chain(("Celu", [], {})), (3,), {})))
