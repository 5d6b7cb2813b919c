"""`Graph`: a network run on one row, as a frozen value; passes return a new one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping, Tuple

import numpy as np

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One ONNX operator. An input named "" is an optional input left out."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


@dataclass(frozen=True)
class ValueSpec:
    """A named tensor: its shape and its element type by numpy name."""

    name: str
    shape: Shape
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return size_of(self.shape)


@dataclass(frozen=True)
class Graph:
    """An ONNX network on one row: nodes in topological order, and every value's shape and type.

    `shapes` and `dtypes` cover every value, constants included; shapes keep the batch axis, of size 1. `weights` names constants that are
    learned even when they hold one element only (a slope, a one-channel scale): they never leave the model owner.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    opset: int
    row_wise: bool = True  # axis 0 of every input counts rows; otherwise a whole input tensor is one row
    weights: frozenset[str] = frozenset()
    public_tables: frozenset[str] = frozenset()  # embedding tables that the owner agreed to publish
    notes: tuple[str, ...] = ()  # what its owner should know of the rewrites: rounds of a recurrence, the cost of private tables
    source: bytes = field(default=b"", repr=False, compare=False)  # the model as it came, fixed to one row

    def spec(self, name: str) -> ValueSpec:
        """The value as a client holds it: shape per row."""
        return ValueSpec(name, row_shape(self.shapes[name]), self.dtypes[name])

    def producers(self) -> dict[str, Node]:
        return {output: node for node in self.nodes for output in node.outputs if output}

    def consumers(self) -> dict[str, tuple[Node, ...]]:
        found: dict[str, tuple[Node, ...]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    found[name] = (*found.get(name, ()), node)
        return found

    def with_nodes(self, nodes: Iterable[Node], constants: Mapping[str, np.ndarray]) -> Graph:
        """The same graph with other nodes; constants that nothing reads are dropped."""
        nodes = tuple(nodes)
        read = {name for node in nodes for name in node.inputs} | set(self.outputs)
        return replace(self, nodes=nodes, constants={k: v for k, v in constants.items() if k in read})


def in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes so that each comes after those whose results it reads, otherwise as they were."""
    waiting = list(nodes)
    unmade = {output for node in waiting for output in node.outputs if output}
    ordered: list[Node] = []
    while waiting:
        later = []
        for node in waiting:
            if unmade.intersection(node.inputs):
                later.append(node)
            else:
                ordered.append(node)
                unmade.difference_update(node.outputs)
        assert len(later) < len(waiting), "nodes read each other's results in a circle"
        waiting = later
    return tuple(ordered)


def size_of(shape: Iterable[int]) -> int:
    """Elements of a tensor of this shape."""
    total = 1
    for extent in shape:
        total *= int(extent)
    return total


def row_shape(shape: Shape) -> Shape:
    """Shape per row of a value whose tensor has `shape` when the network runs on one row: a leading axis of size 1 is the row axis."""
    return tuple(shape[1:]) if shape and shape[0] == 1 else tuple(shape)
