"""Normalisations in every form that model files have: no weight of them travels, and they give what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from he_backend.graph import Reference, convert, run_program
from he_backend.graph.steps import check_step
from tests.graph.networks import OLD_RUNTIME, NetworkBuilder, plain, rows_for


def answers_as_onnxruntime(model):
    """The model's program, after it was found to give what ONNX Runtime gives, with steps that a client takes, as does its reference."""
    rows = rows_for(model)
    program = convert(model)
    name = program.outputs[0].name
    due = plain(model, rows, optimise=False)
    np.testing.assert_allclose(run_program(program, rows)[name], due, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Reference(program).run(rows)[name], due, rtol=1e-4, atol=1e-5)
    for step in program.steps:
        if step.model:
            check_step(step.model)
    return program


GROUPS = pytest.mark.skipif(onnx.defs.onnx_opset_version() < 21, reason="this onnx has no GroupNormalization of opset 21")


@GROUPS
@pytest.mark.parametrize("opset", [18, 20, 21, 22])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (6, 3, 2)])
@pytest.mark.parametrize("constants", ["initializers", "nodes"])
def test_group_normalisation(opset, shape, constants):
    net = NetworkBuilder(shape, opset=21)
    numbers = shape[0] if opset >= 21 else 2
    weights = [net.weights(numbers), net.weights(numbers)]
    if constants == "nodes":
        for position, name in enumerate(weights):
            value = next(tensor for tensor in net.constants if tensor.name == name)
            net.constants.remove(value)
            weights[position] = net.add("Constant", [], net.shape, value=value)
        net.value, net.shape = "x", (1, *shape)
    net.apply("GroupNormalization", *weights, num_groups=2, epsilon=0.01)
    net.apply("MatMul", net.weights(net.shape[-1], 2), shape=(*net.shape[:-1], 2))
    model = net.model()
    model.opset_import[0].version = opset  # onnx's checker calls those of opset 18 to 20 deprecated
    assert answers_as_onnxruntime(model).rounds == 1


@pytest.mark.parametrize("scale", [(1,), (5,), (1, 5), (4, 1), (4, 5)])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("axis", [1, -1])
def test_layer_normalisation_after_a_sum(scale, learned, shift, axis):
    if OLD_RUNTIME and (scale, axis) != ((5,), -1):
        pytest.skip("old versions of ONNX Runtime do not run it, or not after a sum")
    net = NetworkBuilder((4, 5))
    start = net.value
    net.apply("Tanh")
    net.add("Add", [net.value, start], net.shape)
    operands = [net.weights(*scale) if learned else net.constant(np.ones(scale, np.float32))]
    net.apply("LayerNormalization", *operands, *([net.weights(*scale)] if shift else []), axis=axis)
    net.apply("Relu")
    answers_as_onnxruntime(net.model())


@pytest.mark.parametrize("op", [pytest.param("GroupNormalization", marks=GROUPS), "LayerNormalization"])
def test_one_constant_may_be_scale_and_shift(op):
    net = NetworkBuilder((4, 4), opset=21 if op.startswith("Group") else 17)
    both = net.weights(4)
    net.apply(op, both, both, **({"num_groups": 2} if op.startswith("Group") else {"axis": -1}))
    answers_as_onnxruntime(net.model())
