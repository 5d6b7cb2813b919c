"""Every node of a rewritten graph that cannot run encrypted, with its reason: nothing is guessed, and all are told at once."""

from __future__ import annotations

import numpy as np

from he_backend.errors import Unsupported
from he_backend.graph import ops, passes_attention, recurrent
from he_backend.graph.model import Graph, Node, size_of


def problems_of(graph: Graph) -> tuple[Unsupported, ...]:
    """All unsupported nodes, in the order of the network."""
    found = []
    for node in graph.nodes:
        problem = _problem(graph, node)
        if problem:
            found.append(Unsupported(node.name, node.op, problem.reason, problem.instead))
    return tuple(found)


def _problem(graph: Graph, node: Node) -> ops.Refusal | None:
    refused = ops.refusal(node.op)
    if refused:
        return refused
    if node.op == "BatchNormalization":
        return ops.Refusal("updates its statistics (training mode) or takes them from the data", "export the model in evaluation mode")
    if node.op == "Dropout":
        return ops.Refusal("drops values at random (training mode)", "export the model in evaluation mode")
    if node.op in ops.RECURRENT:
        return recurrent.refusal_of(graph, node)
    if node.op == "Attention":
        return ops.Refusal(passes_attention.refusal_reason(node), "export it without past keys, present keys and score outputs")
    if node.op == "PRelu":
        return ops.Refusal("its slope depends on the data", "use LeakyRelu or a constant slope")
    for position in ops.SHAPE_INPUTS.get(node.op, ()):
        name = node.inputs[position] if position < len(node.inputs) else ""
        if name and name not in graph.constants:
            return ops.Refusal(
                f"its argument {position} ({name}) sets a shape and depends on the data",
                "export with fixed sizes",
            )
    odd = [n for n in (*node.inputs, *node.outputs) if n and np.dtype(graph.dtypes.get(n, "float32")).kind not in "fiub"]
    if odd:
        return ops.Refusal(f"value {odd[0]} is {graph.dtypes[odd[0]]}, not a real number", "split complex or text values off before export")
    return _weights_out_of_range(graph, node) or _weights_out_of_place(graph, node)


def holds_weights(graph: Graph, name: str) -> bool:
    """Whether this is a constant that may not leave the model owner."""
    value = graph.constants.get(name) if name not in graph.public_tables else None
    return value is not None and value.dtype.kind == "f" and (value.size > 1 or name in graph.weights)


def _weights_out_of_range(graph: Graph, node: Node) -> ops.Refusal | None:
    """Weights of float64 models that do not fit the float32 in which the data owner gets its answers."""
    for name in node.inputs:
        value = graph.constants.get(name)
        if value is None or value.dtype != np.float64 or not (holds_weights(graph, name) or node.op in ops.WEIGHTED | ops.ARITHMETIC):
            continue
        sizes = np.abs(value[np.isfinite(value)])
        limits, largest = np.finfo(np.float32), float(sizes.max(initial=0.0))
        if largest > float(limits.max) or 0.0 < largest < float(limits.tiny):
            return ops.Refusal(
                f"its weights ({name}) are as {'large' if largest > 1 else 'small'} as {largest:.0e}, which is no float32, and answers are",
                "scale the layer, or export the model in float32",
            )
    return None


def _weights_out_of_place(graph: Graph, node: Node) -> ops.Refusal | None:
    sizes = ops.SHAPE_INPUTS.get(node.op, ())  # scales of a Resize are floating, and no weights
    weights = [position for position, name in enumerate(node.inputs) if holds_weights(graph, name) and position not in sizes]
    if node.op in ops.WEIGHTED and any(n in graph.constants and graph.constants[n].dtype.kind in "iu" for n in node.inputs):
        return ops.Refusal("multiplies by integer weights", "export the float model")
    if not weights:
        return None
    if node.op in ("Conv", "ConvTranspose"):
        if node.inputs[0] not in graph.constants and all(n in graph.constants for n in node.inputs[1:] if n):
            return None
        return ops.Refusal("some of its weights are constants and some depend on the data", "give both weight and bias as constants")
    if node.op == "MatMul" or node.op in ops.ARITHMETIC or node.op == "Concat":
        return None
    if node.op == "Gather" and weights == [0]:
        count = size_of(graph.shapes[node.inputs[1]])
        entries = len(graph.constants[node.inputs[0]])
        return ops.Refusal(
            f"looks rows of the table {node.inputs[0]} up by data: the model owner may not see the indices, nor the data owner the table",
            'publish the table (embeddings="public" or public_embeddings=True), keep it private (embeddings="private": '
            f"{count * entries:,} encrypted one-hot values a row), or feed embedded vectors as the input",
        )
    name = node.inputs[weights[0]]
    count = int(graph.constants[name].size)
    return ops.Refusal(
        f"is not affine in the data and has {count} weights ({name}), which would have to travel to the data owner",
        "use it without weights, or with one number",
    )
