"""What passes share: apply a local rule (one node -> several) over a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Sequence

import numpy as np

from he_backend.graph.model import Graph, Node, Shape


class Workbench:
    """One node to be replaced: makes names that are unique because they start with the node's first output."""

    def __init__(self, graph: Graph, node: Node, constants: dict[str, np.ndarray], weights: set[str]) -> None:
        self.graph = graph
        self.node = node
        self._constants = constants
        self._weights = weights
        self._prefix = next(o for o in node.outputs if o)
        self._count = 0

    def constant(self, suffix: str, value: Any, learned: bool = False) -> str:
        """The name of a new constant; `learned` ones never leave the model owner, even with one element."""
        name = f"{self._prefix}/{suffix}"
        self._constants[name] = np.ascontiguousarray(value).reshape(np.shape(value))
        if learned:
            self._weights.add(name)
        return name

    def like(self, suffix: str, value: float) -> str:
        """A scalar constant of the node's first input's type."""
        return self.constant(suffix, np.asarray(value, self.dtype(0)))

    def make(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> Node:
        """A new node; without `output` its result gets a fresh name."""
        self._count += 1
        return Node(op, f"{self.node.name}/{op}{self._count}", tuple(inputs), (output or f"{self._prefix}/{op}{self._count}",), attributes)

    def value(self, position: int) -> np.ndarray | None:
        """The constant at an input position; None when it is not constant or left out."""
        name = self.name(position)
        return self._constants.get(name) if name else None

    def name(self, position: int) -> str:
        return self.node.inputs[position] if position < len(self.node.inputs) else ""

    def shape(self, position: int) -> Shape:
        return self.graph.shapes[self.node.inputs[position]]

    def dtype(self, position: int) -> np.dtype[Any]:
        return np.dtype(self.graph.dtypes[self.node.inputs[position]])

    def is_weight(self, position: int) -> bool:
        """A constant that may not leave the model owner: more than one floating element, or marked as learned."""
        value = self.value(position)
        return value is not None and value.dtype.kind == "f" and (value.size > 1 or self.name(position) in self._weights)


Rule = Callable[[Workbench], "Sequence[Node] | None"]


def replace_nodes(graph: Graph, ops: Sequence[str], rule: Rule) -> Graph:
    """The graph after `rule` was tried on every node with one of these operators; None keeps the node."""
    constants, weights = dict(graph.constants), set(graph.weights)
    nodes: list[Node] = []
    changed = False
    for node in graph.nodes:
        made = rule(Workbench(graph, node, constants, weights)) if node.op in ops else None
        nodes.extend([node] if made is None else made)
        changed = changed or made is not None
    if not changed:
        return graph
    return replace(graph, weights=frozenset(weights)).with_nodes(nodes, constants)
