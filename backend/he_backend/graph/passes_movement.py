"""The pass that undoes data movement: what comes out as an existing value, element by element, is that value."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import numpy as np

from he_backend.graph.model import Graph, Node, size_of
from he_backend.graph.movement import IN_ORDER, movement_indices
from he_backend.graph.rewriting import Workbench, replace_nodes

_FOLLOWED = frozenset([*IN_ORDER, "Transpose", "Slice", "Split", "Gather", "Concat"])
_MOST_ELEMENTS = 1 << 21


def straighten_movement(graph: Graph) -> Graph:
    """Transpose(Transpose(x)) -> x;   Slice(Concat(a, b)) -> b;   Transpose of an axis of size 1 -> Reshape.

    Every result of data movement whose elements are those of an earlier value, in the same order, becomes that value reshaped. A
    Reshape keeps rows apart where a Transpose that involves axis 0 does not, so more steps run on many rows at once; and what is
    selected from a concatenation no longer waits for its other parts.
    """
    trail = _Trail(graph)
    renamed: dict[str, str] = {}
    constants, nodes, changed = dict(graph.constants), [], False
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)) if renamed else node
        found = trail.origins(node)
        if not found or not all(found.values()):
            nodes.append(node)
            continue
        moved = {output: origin for output, origin in found.items() if node.op not in IN_ORDER or origin != node.inputs[0]}
        if not moved:
            nodes.append(node)
            continue
        changed = True
        for output, origin in moved.items():
            if graph.shapes[output] == graph.shapes[origin] and output not in graph.outputs:
                renamed[output] = origin
                continue
            shape = graph.shapes[output]
            name = f"{output}/straight"
            constants[name] = np.array([-1, *shape[1:]] if shape and 0 not in shape else shape, np.int64)
            nodes.append(Node("Reshape", f"{node.name}/straight", (origin, name), (output,)))
    return graph.with_nodes(nodes, constants) if changed else graph


def concatenate_within_rows(graph: Graph) -> Graph:
    """Concat(a, b; axis 0)   ->   Reshape(Concat(a', b'; axis 1)): the same elements on one row, and rows stay apart for many.

    So the last states of stacked recurrent layers, [layers, 1, hidden], come from a step that runs on many rows at once.
    """

    def rule(bench: Workbench) -> Sequence[Node] | None:
        node, shapes = bench.node, [bench.shape(i) for i in range(len(bench.node.inputs))]
        if int(node.attribute("axis", 0)) or len(shapes) < 2 or not all(len(s) > 1 and 0 not in s for s in shapes):
            return None
        if any(bench.value(i) is not None for i in range(len(shapes))):
            return None
        made, parts = [], []
        for position, (name, shape) in enumerate(zip(node.inputs, shapes)):
            if shape[0] != 1:
                target = bench.constant(f"shape{position}", np.array([-1, shape[0] * shape[1], *shape[2:]], np.int64))
                made.append(bench.make("Reshape", [name, target]))
                name = made[-1].outputs[0]
            parts.append(name)
        made.append(bench.make("Concat", parts, axis=1))
        whole = bench.constant("shape", np.array([-1, *shapes[0][1:]], np.int64))
        return [*made, bench.make("Reshape", [made[-1].outputs[0], whole], node.outputs[0])]

    return replace_nodes(graph, ["Concat"], rule)


def source_in_order(graph: Graph, name: str) -> Node | None:
    """The node that makes the elements of a value, through operators that only reshape; None for an input or constant."""
    producers = graph.producers()
    node = producers.get(name)
    while node is not None and node.op in IN_ORDER:
        node = producers.get(node.inputs[0])
    return node


class _Trail:
    """Numbers the elements of all values that movement starts from, and follows them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._elements: dict[str, np.ndarray] = {}  # value -> numbers of its elements
        self._names: dict[tuple[str, bytes], str] = {}  # (type, numbers) -> first value with them
        self._next = 0

    def origins(self, node: Node) -> dict[str, str]:
        """For each output of a movement node the earlier value with the same elements in the same order, or ""; {} for other nodes."""
        constants = self._graph.constants
        extra = node.inputs if node.op == "Concat" else node.inputs[1:]
        data = node.inputs if node.op == "Concat" else node.inputs[:1]
        if node.op not in _FOLLOWED or (node.op != "Concat" and any(name and name not in constants for name in extra)):
            return {}
        shapes = self._graph.shapes
        if (node.op != "Concat" and data[0] in constants) or any(size_of(shapes[name]) > _MOST_ELEMENTS for name in (*data, *node.outputs)):
            return {}
        if node.op == "Concat":
            parts = [self._of(name).reshape(shapes[name]) for name in data]
            moved = [np.concatenate(parts, axis=int(node.attribute("axis", 0))).ravel()]
        else:
            before = self._of(data[0])
            moved = [before[index] for index in movement_indices(node, shapes, constants, self._graph.opset, data[0])]
        found = {}
        for output, numbers in zip([name for name in node.outputs if name], moved):
            key = (self._graph.dtypes[output], numbers.tobytes())
            found[output] = self._names.get(key, "")
            self._names.setdefault(key, output)
            self._elements[output] = numbers
        return found

    def _of(self, name: str) -> np.ndarray:
        if name not in self._elements:
            count = size_of(self._graph.shapes[name])
            numbers = np.arange(self._next, self._next + count, dtype=np.int64)
            self._next += count
            self._elements[name] = numbers
            self._names.setdefault((self._graph.dtypes[name], numbers.tobytes()), name)
        return self._elements[name]
