"""Passes that take the learned scale and shift out of normalisations, so that they move into the model owner's segments."""

from __future__ import annotations

from typing import Sequence

import numpy as np
from onnx import numpy_helper

from he_backend.graph.model import Graph, Node
from he_backend.graph.rewriting import Workbench, replace_nodes


def batch_norm_to_scale(graph: Graph) -> Graph:
    """BatchNormalization(x; γ, β, μ, σ²)   ->   x·s + t with s = γ/√(σ² + ε), t = β − μ·s, per channel (axis 1)."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        node = bench.node
        numbers = [bench.value(i) for i in range(1, 5)]
        present = [number.astype(np.float64) for number in numbers if number is not None]
        if len(present) < 4 or node.attribute("training_mode", 0) or len([o for o in node.outputs if o]) > 1:
            return None
        gamma, beta, mean, variance = present
        scale = gamma / np.sqrt(variance + float(node.attribute("epsilon", 1e-5)))
        shift = beta - mean * scale
        kind = bench.dtype(0)
        shape = (-1,) + (1,) * max(0, len(bench.shape(0)) - 2)
        scaled = bench.make("Mul", [node.inputs[0], bench.constant("scale", scale.reshape(shape).astype(kind), True)])
        shifted = bench.constant("shift", shift.reshape(shape).astype(kind), True)
        return [scaled, bench.make("Add", [scaled.outputs[0], shifted], node.outputs[0])]

    return replace_nodes(graph, ["BatchNormalization"], rule)


def layer_norm_affine(graph: Graph) -> Graph:
    """LayerNormalization(x; γ, β)   ->   LayerNormalization(x; ones, –)·γ + β. RMSNormalization likewise.

    The ones are written out: ONNX Runtime fuses an Add before the node, and the fused node takes no scale of one element.
    """

    def rule(bench: Workbench) -> Sequence[Node] | None:
        node, scale = bench.node, bench.value(1)
        shift = bench.value(2)
        if scale is None or (bench.name(2) and shift is None):
            return None
        rank = len(bench.shape(0))
        whole = bench.shape(0)[int(node.attribute("axis", -1)) % rank :]
        if scale.size == 1 and np.all(scale == 1) and not bench.name(2) and scale.shape == whole:
            return None
        ones = _filled(bench, whole, 1.0)
        return _with_affine(bench, [ones], [node.inputs[0], ones.outputs[0]], scale, shift)

    return replace_nodes(graph, ["LayerNormalization", "RMSNormalization"], rule)


def simplified_norm(graph: Graph) -> Graph:
    """SimplifiedLayerNormalization(x; γ)   ->   x · Reciprocal(Sqrt(ReduceMean(x²) + ε)) · γ: ONNX Runtime's name for an RMS norm."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        node, scale = bench.node, bench.value(1)
        if scale is None or any(node.outputs[1:]):
            return None
        x, rank = node.inputs[0], len(bench.shape(0))
        axes = tuple(range(int(node.attribute("axis", -1)) % rank, rank))
        square = bench.make("Mul", [x, x])
        if bench.graph.opset < 18:
            mean = bench.make("ReduceMean", square.outputs, axes=axes, keepdims=1)
        else:
            mean = bench.make("ReduceMean", [square.outputs[0], bench.constant("axes", np.array(axes, np.int64))], keepdims=1)
        above = bench.make("Add", [mean.outputs[0], bench.like("epsilon", float(node.attribute("epsilon", 1e-5)))])
        root = bench.make("Sqrt", above.outputs)
        inverse = bench.make("Reciprocal", root.outputs)
        plain = bench.make("Mul", [x, inverse.outputs[0]])
        learned = bench.constant("scale", scale.astype(bench.dtype(0)), True)
        return [square, mean, above, root, inverse, plain, bench.make("Mul", [plain.outputs[0], learned], node.outputs[0])]

    return replace_nodes(graph, ["SimplifiedLayerNormalization"], rule)


def instance_norm_affine(graph: Graph) -> Graph:
    """InstanceNormalization(x; γ, β)   ->   InstanceNormalization(x; ones, zeros)·γ + β, per channel (axis 1)."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        scale, shift = bench.value(1), bench.value(2)
        if scale is None or shift is None or (scale.size == 1 and np.all(scale == 1) and not np.any(shift)):
            return None
        ones, zeros = _filled(bench, scale.shape, 1.0, "ones"), _filled(bench, scale.shape, 0.0, "zeros")
        shape = (-1,) + (1,) * (len(bench.shape(0)) - 2)
        operands = [bench.node.inputs[0], ones.outputs[0], zeros.outputs[0]]
        return _with_affine(bench, [ones, zeros], operands, scale.reshape(shape), shift.reshape(shape))

    return replace_nodes(graph, ["InstanceNormalization"], rule)


def _filled(bench: Workbench, shape: Sequence[int], value: float, suffix: str = "ones") -> Node:
    """A node that makes a tensor of equal values: what normalisations ask for in the place of their weights."""
    filler = numpy_helper.from_array(np.array([value], bench.dtype(0)))
    return bench.make("ConstantOfShape", [bench.constant(f"{suffix}/shape", np.array(shape, np.int64))], value=filler)


def _with_affine(
    bench: Workbench, before: Sequence[Node], operands: Sequence[str], scale: np.ndarray, shift: np.ndarray | None
) -> Sequence[Node]:
    """The normalisation without weights, then ·scale, then +shift; a scale of ones or a shift of zeros is left out."""
    node, kind = bench.node, bench.dtype(0)
    steps = []
    if np.any(scale != 1):
        steps.append(("Mul", bench.constant("scale", scale.astype(kind), True)))
    if shift is not None and np.any(shift):
        steps.append(("Add", bench.constant("shift", shift.astype(kind), True)))
    plain = bench.make(node.op, operands, "" if steps else node.outputs[0], **node.attributes)
    plain = Node(plain.op, plain.name, plain.inputs, (plain.outputs[0], *node.outputs[1:]), plain.attributes)
    made = [*before, plain]
    for position, (op, constant) in enumerate(steps):
        last = position == len(steps) - 1
        made.append(bench.make(op, [made[-1].outputs[0], constant], node.outputs[0] if last else ""))
    return made
