"""The pass on learned bounds: small ones stay with the model owner, numbers far from any activation are no weights."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from he_backend.graph.model import Graph, Node
from he_backend.graph.rewriting import Workbench, replace_nodes

_FAR = 1e4  # from here on x − c would lose x, in float32 and all the more encrypted
_MOST_FAR = 8  # different bounds that far; more of them look like weights, and are refused as such
_LIMIT = 0.99  # of the type's largest number: nothing lies beyond


def bounds_to_relu(graph: Graph) -> Graph:
    """Max(x, c) -> Relu(x − c) + c;   Min(x, c) -> c − Relu(c − x), where c is a weight.

    Where c is far from zero:   Max(x, c) -> Max(x, Where(booleans, number, lowest)), which as an attention mask may travel to the client.
    """

    def rule(bench: Workbench) -> Sequence[Node] | None:
        if len(bench.node.inputs) != 2 or not (bench.is_weight(0) or bench.is_weight(1)):
            return None
        position = 0 if bench.is_weight(0) else 1
        bound = bench.value(position)
        assert bound is not None
        free, far = bench.node.inputs[1 - position], np.abs(bound) >= _FAR
        if not far.any():
            return _by_relu(bench, free, bound, bench.node.outputs[0])
        whole = bench.shape(1 - position) == bench.graph.shapes[bench.node.outputs[0]]
        if not whole or len(np.unique(bound[far])) > _MOST_FAR:
            return None
        made: list[Node] = []
        if not far.all():
            made += _by_relu(bench, free, np.where(far, 0, bound).astype(bound.dtype))
            made.append(bench.make("Where", [bench.constant("far", far), free, made[-1].outputs[0]]))
            free = made[-1].outputs[0]
        return [*made, *_by_numbers(bench, free, bound, far)]

    return replace_nodes(graph, ["Max", "Min"], rule)


def _by_relu(bench: Workbench, free: str, bound: np.ndarray, output: str = "") -> list[Node]:
    above, negated = bench.constant("bound", bound, True), bench.constant("negated", -bound, True)
    made = [bench.make("Add", [free, negated])]
    if bench.node.op == "Min":
        made.append(bench.make("Neg", made[-1].outputs))
    made.append(bench.make("Relu", made[-1].outputs))
    if bench.node.op == "Min":
        made.append(bench.make("Neg", made[-1].outputs))
    return [*made, bench.make("Add", [made[-1].outputs[0], above], output)]


def _by_numbers(bench: Workbench, free: str, bound: np.ndarray, far: np.ndarray) -> list[Node]:
    """The same operator with one public number for each of the far bounds, and a number that bounds nothing elsewhere."""
    largest = float(np.finfo(bound.dtype).max)
    nothing = -largest if bench.node.op == "Max" else largest
    idle = ~far | (bound <= _LIMIT * nothing if bench.node.op == "Max" else bound >= _LIMIT * nothing)
    if idle.all():
        return [bench.make("Identity", [free], bench.node.outputs[0])]
    made: list[Node] = []
    chosen = bench.like("nothing", nothing)
    for index, number in enumerate(np.unique(bound[~idle])):
        operands = [bench.constant(f"where{index}", bound == number), bench.like(f"number{index}", float(number)), chosen]
        made.append(bench.make("Where", operands))
        chosen = made[-1].outputs[0]
    return [*made, bench.make(bench.node.op, [free, chosen], bench.node.outputs[0])]
