"""Operators whose geometry ONNX Runtime decides: resizing, transposed convolutions, pooling; every attribute means what it means there."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from he_backend.graph import convert, run_program
from he_backend.graph.model import Node
from he_backend.graph.movement import movement_indices
from tests.graph.networks import OLD_RUNTIME

OPSETS = [opset for opset in (10, 14, 18, 19, 22) if opset <= onnx.defs.onnx_opset_version()]
DIFFERS = pytest.mark.skipif(OLD_RUNTIME, reason="old versions of ONNX Runtime pad otherwise in places; what they change is refused")
WEIGHT = np.random.default_rng(3).standard_normal((2, 2, 1, 1)).astype(np.float32)


def network(nodes, constants, shape, opset):
    """A model of (operator, inputs, output, attributes) that reads x [rows, *shape] and writes z."""
    made = [helper.make_node(op, inputs.split(), [output], f"{op}_{output}", **attributes) for op, inputs, output, attributes in nodes]
    for node in made:
        node.input[:] = ["" if name == "-" else name for name in node.input]
    graph = helper.make_graph(
        made,
        "windows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *shape])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def plain(model, rows):
    """ONNX Runtime's answer; None where it refuses the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": rows}, quiet)[0]
    except Exception:  # noqa: BLE001 - attributes that it does not take
        return None


def agrees(nodes, constants, shape, opset):
    """The split network gives what ONNX Runtime gives; returns the program, None where ONNX Runtime refuses the model."""
    model = network(nodes, constants, shape, opset)
    rows = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    due = plain(model, rows)
    if due is None or not due.size or not np.isfinite(due).all():
        return None
    program = convert(model)
    got = run_program(program, rows)["z"]
    assert got.shape == due.shape
    np.testing.assert_allclose(got, due, rtol=0, atol=1e-5 * max(1.0, float(np.abs(due).max())))
    return program


def around(op, inputs, constants, first, attributes, shape, opset):
    """The operator before a convolution, or after one."""
    weight = WEIGHT.reshape(2, 2, *[1] * (len(shape) - 1))
    if first:
        nodes = [(op, f"x {inputs}", "y", attributes), ("Conv", "y w", "z", {})]
    else:
        nodes = [("Conv", "x w", "y", {}), (op, f"y {inputs}", "z", attributes)]
    return agrees(nodes, {**constants, "w": weight}, shape, opset)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_a_resize_that_interpolates_is_computed_and_not_moved(mode, first):
    program = around("Resize", "- s", {"s": np.float32([1, 1, 2, 2])}, first, {"mode": mode}, (2, 3, 4), 14)
    assert any("Resize" in step.ops for step in program.steps)


@pytest.mark.parametrize("first", [True, False])
def test_an_upsample_that_interpolates_is_computed_and_not_moved(first):
    around("Upsample", "s", {"s": np.float32([1, 1, 2, 2])}, first, {"mode": "linear"}, (2, 3, 4), 9)


@pytest.mark.parametrize("value", [0.0, 3.0, 2.5])
def test_a_resize_that_crops_fills_in_its_own_number(value):
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": value}
    constants = {"roi": np.float32([0, 0, 0, 0, 1, 1, 1.6, 1.6]), "s": np.float32([1, 1, 2, 2])}
    program = around("Resize", "roi s", constants, True, attributes, (2, 3, 4), 14)
    assert any("Resize" in step.ops for step in program.steps) == bool(value)


def test_a_nearest_resize_stays_with_the_model_owner():
    program = around("Resize", "- s", {"s": np.float32([1, 1, 2, 2])}, True, {"mode": "nearest"}, (2, 3, 4), 14)
    assert not any(step.ops for step in program.steps)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_crop_and_resize"]),
    rounding=st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
    scales=st.lists(st.sampled_from([0.5, 0.67, 1.0, 1.5, 2.0, 3.0]), min_size=2, max_size=2),
    fill=st.sampled_from([0.0, 1.0, 7.0]),
    antialias=st.booleans(),
    first=st.booleans(),
    opset=st.sampled_from([11, *OPSETS[1:]]),
)
def test_every_resize_matches_onnxruntime(mode, coordinates, rounding, scales, fill, antialias, first, opset):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding, "extrapolation_value": fill}
    if antialias and opset >= 18:
        attributes["antialias"] = 1
    constants = {"roi": np.float32([0, 0, 0.1, 0.2, 1, 1, 1.3, 0.9]), "s": np.float32([1, 1, *scales])}
    around("Resize", "roi s", constants, first, attributes, (2, 3, 4), opset)


def test_what_is_not_movement_is_never_rounded_into_it():
    resize = Node("Resize", "resize", ("x", "", "s"), ("y",), {"mode": "linear"})
    with pytest.raises(AssertionError, match="computes with the elements"):
        movement_indices(resize, {"x": (1, 1, 4)}, {"s": np.float32([1, 1, 2])}, 14, "x")


def transposed(first, shape, opset, kernel, **attributes):
    """A ConvTranspose before an activation, or after one, with weights of its own."""
    random = np.random.default_rng(1)
    weights = {"k": random.standard_normal((shape[0], 2, *kernel)).astype(np.float32), "b": np.float32([1, -2])}
    nodes = [("ConvTranspose", "x k b", "y", attributes), ("Relu", "y", "z", {})]
    if first:
        nodes = [("Relu", "x", "y", {}), ("ConvTranspose", "y k b", "z", attributes)]
    return agrees(nodes, weights, shape, opset)


@pytest.mark.parametrize("asked", [10, 13, 14, 15, 16])
@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_a_transposed_convolution_has_the_size_that_is_asked_for(asked, mode):
    assert transposed(True, (2, 5), 11, (2,), strides=[3], output_shape=[asked], auto_pad=mode)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("extra", [0, 1])
def test_a_transposed_convolution_pads_itself(mode, kernel, extra):
    assert transposed(False, (2, 5), 11, (kernel,), strides=[2], auto_pad=mode, output_padding=[extra])


@DIFFERS
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_transposed_convolution_matches_onnxruntime(data):
    spatial = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))

    def each(*choices):
        return [data.draw(st.sampled_from(choices)) for _ in spatial]

    attributes = {"strides": each(1, 2, 3), "dilations": each(1, 1, 2)}
    kind = data.draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if kind == "pads":
        attributes["pads"] = each(0, 1) + each(0, 1)
    else:
        attributes["auto_pad"] = kind
    if data.draw(st.booleans()):
        attributes["output_padding"] = each(0, 0, 1)
    if data.draw(st.booleans()):
        attributes["output_shape"] = [e * s + more for e, s, more in zip(spatial, attributes["strides"], each(0, 1, 2, 4))]
    transposed(data.draw(st.booleans()), (2, *spatial), data.draw(st.sampled_from([8, 11, 17])), each(1, 2, 3), **attributes)


POOLS = ["MaxPool", "AveragePool", "LpPool"]


@pytest.mark.parametrize("op", POOLS)
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("extent, kernel, stride", [(4, 1, 2), (5, 1, 2), (6, 2, 3), (2, 1, 3)])
def test_a_pool_whose_last_window_would_begin_outside_has_one_less(op, opset, extent, kernel, stride):
    if op == "LpPool" and opset < 18:
        pytest.skip("LpPool has no ceil_mode before opset 18")
    if op == "AveragePool" and OLD_RUNTIME:
        pytest.skip("old versions of ONNX Runtime average nothing to NaN")
    assert around(op, "", {}, False, {"kernel_shape": [kernel], "strides": [stride], "ceil_mode": 1}, (2, extent), opset)


@DIFFERS
@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_pool_matches_onnxruntime(data):
    op, opset = data.draw(st.sampled_from(POOLS)), data.draw(st.sampled_from(OPSETS))
    spatial = data.draw(st.lists(st.integers(2, 7), min_size=1, max_size=2))

    def each(*choices):
        return [data.draw(st.sampled_from(choices)) for _ in spatial]

    attributes = {"kernel_shape": each(1, 2, 3), "strides": each(1, 2, 3)}
    if op != "LpPool" or opset >= 18:
        attributes["ceil_mode"] = data.draw(st.integers(0, 1))
    kind = data.draw(st.sampled_from(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if kind == "pads":
        attributes["pads"] = each(0, 1) + each(0, 1)
    elif kind != "none":
        attributes["auto_pad"] = kind
    if op == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    if (op, opset) >= ("AveragePool", 19) or (op == "MaxPool" and opset >= 10):
        attributes["dilations"] = each(1, 1, 2)
    around(op, "", {}, data.draw(st.booleans()), attributes, (2, *spatial), opset)
