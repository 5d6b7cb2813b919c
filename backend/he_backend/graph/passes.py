"""Named rewrites, in order, that leave only operators the splitter knows: affine with weights, or free of weights.

Each pass is `Graph -> Graph`, computes the same function, and is checked (operators, shapes) before the next one runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Sequence

import numpy as np

from he_backend.errors import ModelError
from he_backend.graph import infer, ops, runtime
from he_backend.graph.element_types import element_type
from he_backend.graph.model import Graph, Node
from he_backend.graph.onnx_export import to_proto
from he_backend.graph.passes_attention import attention_to_products
from he_backend.graph.passes_bounds import bounds_to_relu
from he_backend.graph.passes_embedding import treat_tables
from he_backend.graph.passes_movement import concatenate_within_rows, straighten_movement
from he_backend.graph.passes_norm import batch_norm_to_scale, instance_norm_affine, layer_norm_affine, simplified_norm
from he_backend.graph.passes_products import drop_zeros, einsum_to_matmul
from he_backend.graph.passes_recurrent import unroll_recurrent
from he_backend.graph.passes_select import select_early
from he_backend.graph.problems import holds_weights
from he_backend.graph.rewriting import Workbench, replace_nodes

_MASK_BELOW = -1e4  # an added constant this low silences a score before a softmax: a mask, not a weight


def fold_constants(graph: Graph) -> Graph:
    """y = f(constants)   ->   y is a constant. What ONNX Runtime adds after its own folding, such as casts of float16 weights."""
    return _folded(graph, _made_of_constants(graph))


def fold_weights(graph: Graph) -> Graph:
    """y = f(weights, constants)   ->   y is a weight, where the rewrites before left no data: a scale of zeros, a choice among weights.

    What they made of public constants alone (a mask as booleans, the ones of a normalisation) stays a node that a client step may hold.
    """
    heavy = {name for name in graph.constants if holds_weights(graph, name)}
    foldable = []
    for node in _made_of_constants(graph):
        if heavy.intersection(node.inputs):
            foldable.append(node)
            heavy.update(name for name in node.outputs if name)
    made = {name for node in foldable for name in node.outputs if graph.dtypes.get(name, "").startswith("float")}
    return replace(_folded(graph, foldable), weights=graph.weights | made) if foldable else graph


def _made_of_constants(graph: Graph) -> list[Node]:
    """The nodes whose operands are constants, or made of constants."""
    known = set(graph.constants)
    found = []
    for node in graph.nodes:
        fixed = [name for name in node.inputs if name]
        if fixed and known.issuperset(fixed) and ops.refusal(node.op) is None:
            found.append(node)
            known.update(name for name in node.outputs if name)
    return found


def _folded(graph: Graph, foldable: Sequence[Node]) -> Graph:
    """The graph with the results of these nodes, which read constants and each other's results or those of free nodes, as constants.

    Raises ModelError for an output that then is a constant.
    """
    if not foldable:
        return graph
    names = [name for node in foldable for name in node.outputs if name]
    fixed = [name for name in graph.outputs if name in names]
    if fixed:
        raise ModelError(f"output {fixed[0]!r} is the same for every input; remove it from the model")
    makers = _made_of_constants(graph)  # also those that stay
    outputs: list[tuple[str, None, str]] = [(name, None, graph.dtypes[name]) for name in names]
    model = to_proto(makers, [], outputs, graph.constants, graph.opset)
    values = runtime.run(model.SerializeToString(), {}, names)
    return graph.with_nodes([node for node in graph.nodes if node not in foldable], {**graph.constants, **dict(zip(names, values))})


def drop_identity(graph: Graph) -> Graph:
    """y = Identity(x) or evaluation-time Dropout(x), z = f(y)   ->   z = f(x). A network output keeps its name."""
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        idle = node.op == "Identity" or (node.op == "Dropout" and len(node.inputs) < 3)
        if idle and node.outputs[0] not in graph.outputs and len([o for o in node.outputs if o]) == 1:
            renamed[node.outputs[0]] = node.inputs[0]
        elif idle and node.op == "Dropout":
            nodes.append(Node("Identity", node.name, node.inputs[:1], node.outputs[:1]))
        else:
            nodes.append(node)
    return graph if len(nodes) == len(graph.nodes) and not renamed else graph.with_nodes(nodes, graph.constants)


def gemm_to_matmul(graph: Graph) -> Graph:
    """Gemm(A, B, C; alpha, beta, transA, transB)   ->   Add(MatMul(A', alpha·B'), beta·C), constants transposed and scaled here."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        node = bench.node
        alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
        if not any(bench.is_weight(i) for i in range(len(node.inputs))):
            return None  # no weights: a client step runs it as it is
        nodes: list[Node] = []
        operands = []
        for position, flag in ((0, "transA"), (1, "transB")):
            value, name = bench.value(position), bench.name(position)
            if node.attribute(flag, 0):
                if value is not None:
                    name = bench.constant(flag, value.T, bench.is_weight(position))
                else:
                    nodes.append(bench.make("Transpose", [name], perm=(1, 0)))
                    name = nodes[-1].outputs[0]
            operands.append(name)
        for position in (1, 0):
            value = bench.value(position)
            if alpha != 1.0 and value is not None:
                flipped = value.T if node.attribute(("transA", "transB")[position], 0) else value
                operands[position] = bench.constant("alpha", (flipped * alpha).astype(value.dtype), True)
                alpha = 1.0
        third = bench.name(2)
        last = alpha == 1.0 and not third
        nodes.append(bench.make("MatMul", operands, node.outputs[0] if last else ""))
        if alpha != 1.0:
            nodes.append(bench.make("Mul", [nodes[-1].outputs[0], bench.like("scale", alpha)], "" if third else node.outputs[0]))
        if third:
            product = nodes[-1].outputs[0]
            value = bench.value(2)
            if beta != 1.0 and value is not None:
                third = bench.constant("beta", (value * beta).astype(value.dtype), True)
            elif beta != 1.0:
                nodes.append(bench.make("Mul", [third, bench.like("beta", beta)]))
                third = nodes[-1].outputs[0]
            nodes.append(bench.make("Add", [product, third], node.outputs[0]))
        return nodes

    return replace_nodes(graph, ["Gemm"], rule)


def prelu_to_relu(graph: Graph) -> Graph:
    """PRelu(x, slope)   ->   Relu(x) + (−slope)·Relu(−x). The slope is learned, so it stays with the model owner."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        slope = bench.value(1)
        if slope is None:
            return None
        positive = bench.make("Relu", bench.node.inputs[:1])
        flipped = bench.make("Neg", bench.node.inputs[:1])
        negative = bench.make("Relu", flipped.outputs)
        scaled = bench.make("Mul", [negative.outputs[0], bench.constant("slope", -slope, True)])
        return [positive, flipped, negative, scaled, bench.make("Add", [positive.outputs[0], scaled.outputs[0]], bench.node.outputs[0])]

    return replace_nodes(graph, ["PRelu"], rule)


def subtract_and_divide(graph: Graph) -> Graph:
    """x − c -> x + (−c);   c − x -> (−x) + c;   x / c -> x·(1/c);   c / x -> c·Reciprocal(x), where c is a weight.

    Division by one number becomes a product too: then it can be folded into a segment.
    """

    def rule(bench: Workbench) -> Sequence[Node] | None:
        node, subtract = bench.node, bench.node.op == "Sub"
        right, left = bench.value(1), bench.value(0)
        by_number = not subtract and right is not None and right.size == 1  # the model owner's when it has x anyway
        if bench.dtype(0).kind != "f" or not (bench.is_weight(0) or bench.is_weight(1) or by_number):
            return None
        if right is not None:
            if not subtract and not np.all(right):
                return None
            other = -right if subtract else (1.0 / right.astype(np.float64)).astype(right.dtype)
            name = bench.constant("negated" if subtract else "inverse", other, not by_number or bench.is_weight(1))
            return [bench.make("Add" if subtract else "Mul", [node.inputs[0], name], node.outputs[0])]
        assert left is not None
        first = bench.make("Neg" if subtract else "Reciprocal", [node.inputs[1]])
        return [first, bench.make("Add" if subtract else "Mul", [first.outputs[0], node.inputs[0]], node.outputs[0])]

    return replace_nodes(graph, ["Sub", "Div"], rule)


def mask_to_choice(graph: Graph) -> Graph:
    """x + mask, where the constant mask holds 0 and one very negative number   ->   x + Where(booleans, number, 0).

    An attention mask says which positions exist; it is no weight, and as booleans it may travel to the client.
    """

    def rule(bench: Workbench) -> Sequence[Node] | None:
        position = 0 if bench.value(0) is not None else 1
        mask = bench.value(position)
        if mask is None or mask.dtype.kind != "f" or mask.size < 2:
            return None
        low = mask[mask != 0]
        if not low.size or np.any(low != low[0]) or not float(low[0]) <= _MASK_BELOW:
            return None
        chosen = bench.make("Where", [bench.constant("mask", mask != 0), bench.like("low", float(low[0])), bench.like("zero", 0.0)])
        operands = [bench.node.inputs[1 - position], chosen.outputs[0]]
        return [chosen, bench.make("Add", operands, bench.node.outputs[0])]

    return replace_nodes(graph, ["Add"], rule)


def compare_with_zero(graph: Graph) -> Graph:
    """x > c -> (x − c) > 0, likewise < >= <= and c on the left, where c is a weight."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        if not (bench.is_weight(0) or bench.is_weight(1)):
            return None
        position = 0 if bench.is_weight(0) else 1
        bound = bench.value(position)
        assert bound is not None
        moved = bench.make("Add", [bench.node.inputs[1 - position], bench.constant("negated", -bound, True)])
        operands = [moved.outputs[0], bench.like("zero", 0.0)]
        return [moved, bench.make(bench.node.op, operands if position else operands[::-1], bench.node.outputs[0])]

    return replace_nodes(graph, ["Greater", "Less", "GreaterOrEqual", "LessOrEqual"], rule)


def choice_with_weights(graph: Graph) -> Graph:
    """Where(c, x, W) -> Where(c, x, 0) + W·Cast(Not c);   Where(c, W, x) -> Where(c, 0, x) + W·Cast(c), where W is a weight."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        if bench.is_weight(1) == bench.is_weight(2):
            return None
        position = 1 if bench.is_weight(1) else 2
        condition, kind = bench.node.inputs[0], bench.dtype(position)
        operands = list(bench.node.inputs)
        operands[position] = bench.constant("zero", np.asarray(0, kind))
        chosen = bench.make("Where", operands)
        nodes = [chosen]
        if position == 2:
            nodes.append(bench.make("Not", [condition]))
            condition = nodes[-1].outputs[0]
        nodes.append(bench.make("Cast", [condition], to=element_type(kind.name)))
        nodes.append(bench.make("Mul", [nodes[-1].outputs[0], bench.node.inputs[position]]))
        nodes.append(bench.make("Add", [chosen.outputs[0], nodes[-1].outputs[0]], bench.node.outputs[0]))
        return nodes

    return replace_nodes(graph, ["Where"], rule)


def open_reshapes(graph: Graph) -> Graph:
    """Reshape(x, [1, 256])   ->   Reshape(x, [−1, 256]), with the other sizes written out: the same on one row, and free for many."""

    def rule(bench: Workbench) -> Sequence[Node] | None:
        wanted = bench.graph.shapes[bench.node.outputs[0]]
        target = bench.value(1)
        if target is None or not wanted or 0 in wanted:
            return None
        opened = np.array([-1, *wanted[1:]], np.int64)
        if np.array_equal(opened, target):
            return None
        return [bench.make("Reshape", [bench.node.inputs[0], bench.constant("shape", opened)], bench.node.outputs[0])]

    return replace_nodes(graph, ["Reshape"], rule)


Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    fold_constants,
    drop_identity,
    attention_to_products,
    drop_zeros,
    fold_constants,
    unroll_recurrent,
    einsum_to_matmul,
    gemm_to_matmul,
    batch_norm_to_scale,
    simplified_norm,
    layer_norm_affine,
    instance_norm_affine,
    drop_zeros,
    fold_weights,
    prelu_to_relu,
    mask_to_choice,
    bounds_to_relu,
    compare_with_zero,
    choice_with_weights,
    fold_weights,
    drop_zeros,
    fold_weights,
    subtract_and_divide,
    concatenate_within_rows,
    straighten_movement,
    select_early,
    open_reshapes,
)


def rewrite(graph: Graph, embeddings: str = "refuse") -> Graph:
    """The graph after every pass. Raises ModelError naming the pass that broke it.

    embeddings: what becomes of tables that are looked up by data: "refuse", "public" or "private" (encrypted one-hot rows).
    """
    for rule in PASSES:
        changed = rule(graph)
        if changed is not graph:
            graph = infer.check(infer.drop_dead(changed), f"pass {rule.__name__}")
    return treat_tables(graph, embeddings)
