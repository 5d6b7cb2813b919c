"""Normalisations in a model file in forms that ONNX Runtime's optimizer leaves whole."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from he_backend.graph.operators import opset_of

_PER_CHANNEL = 21  # the opset from which a GroupNormalization has one number for each channel, not for each group


def plain_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with these two in other words, where their weights are constants:

    GroupNormalization(x; γ, β)   ->   InstanceNormalization of x as [rows, groups, …], then ·γ + β as [rows, channels, …]: ONNX Runtime
    takes it apart into operators that hide its weights.
    LayerNormalization(x; γ, β)   ->   the same with γ and β as large as what they scale: ONNX Runtime fuses an Add before it, and the fused
    node takes no smaller ones.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        learned = [numpy_helper.to_array(constants[name]) for name in node.input[1:3] if name in constants]
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or len(learned) < len([name for name in node.input[1:3] if name]) or not rule(_Writer(result, node), learned):
            result.graph.node.append(node)
    return result if len(result.graph.node) > len(model.graph.node) else model


class _Writer:
    """Appends nodes and constants to a model, in the place of one node."""

    def __init__(self, model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        self.model = model
        self.node = node
        self.attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def constant(self, suffix: str, value: np.ndarray) -> str:
        name = f"{self.node.output[0]}/{suffix}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """The name of the new node's result."""
        count, first = len(self.model.graph.node), self.node.output[0]
        made = output or f"{first}/{op}{count}"
        self.model.graph.node.append(helper.make_node(op, inputs, [made], f"{self.node.name or first}/{op}{count}", **attributes))
        return made


def _group_norm(writer: _Writer, learned: Sequence[np.ndarray]) -> bool:
    x, output = writer.node.input[0], writer.node.output[0]
    scale, shift = learned
    groups, per_channel = int(writer.attributes["num_groups"]), opset_of(writer.model) >= _PER_CHANNEL
    if per_channel:
        scales = [writer.constant("ones", np.ones(groups, scale.dtype)), writer.constant("zeros", np.zeros(groups, scale.dtype))]
    else:
        scales = list(writer.node.input[1:3])
    value = writer.add("Reshape", [x, writer.constant("groups", np.array([0, groups, -1], np.int64))])
    value = writer.add("InstanceNormalization", [value, *scales], epsilon=float(writer.attributes.get("epsilon", 1e-5)))
    if per_channel:
        value = writer.add("Reshape", [value, writer.constant("channels", np.array([0, scale.size, -1], np.int64))])
        value = writer.add("Mul", [value, writer.constant("scale", scale.reshape(-1, 1))])
        value = writer.add("Add", [value, writer.constant("shift", shift.reshape(-1, 1))])
    writer.add("Reshape", [value, writer.add("Shape", [x])], output)
    return True


def _layer_norm(writer: _Writer, learned: Sequence[np.ndarray]) -> bool:
    axis = int(writer.attributes.get("axis", -1))
    if axis == -1 and all(value.shape[-1:] > (1,) for value in learned):
        return False
    shape = writer.add("Shape", [writer.node.input[0]], start=axis)
    node = onnx.NodeProto()
    node.CopyFrom(writer.node)
    for position, name in enumerate(node.input):
        if position and name:
            node.input[position] = writer.add("Expand", [name, shape])
    writer.model.graph.node.append(node)
    return True


_RULES: Mapping[str, Callable[[_Writer, Sequence[np.ndarray]], bool]] = {
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
}
