"""The pass that selects before it computes: a classifier that reads one position needs the last layers at that position only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Sequence

import numpy as np

from he_backend.graph.model import Graph, Node, Shape, in_order
from he_backend.graph.ops import ARITHMETIC
from he_backend.graph.problems import holds_weights

# fmt: off
_ELEMENTWISE = ARITHMETIC | frozenset((
    "Abs", "Cast", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log",
    "Max", "Mean", "Min", "Mish", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt",
    "Tanh", "ThresholdedRelu", "Where",
))
# fmt: on
_ALONG_LAST_AXIS = frozenset(["Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"])


class Selection(NamedTuple):
    """Elements `indices` along `axis`, the axis kept."""

    value: str
    axis: int
    indices: tuple[int, ...]


def select_early(graph: Graph) -> Graph:
    """Gather(f(x), i)   ->   f(Gather(x, i)) while f treats positions alike: elementwise, x @ W, softmax and norms along another axis.

    Only where nothing else reads f(x). So a network that classifies by its first token sends and computes that token alone after the
    last attention. Axis 0 is left alone: it counts rows.
    """
    for _ in range(len(graph.nodes)):
        pushed = _push_one(graph)
        if pushed is None:
            break
        graph = pushed
    return graph.with_nodes(in_order(graph.nodes), graph.constants)


def _push_one(graph: Graph) -> Graph | None:
    """The graph with one selection moved before the node that makes its operand; None when no selection can be moved."""
    producers, consumers = graph.producers(), graph.consumers()
    for node in graph.nodes:
        selection = _selection(graph, node)
        if selection is None or selection.value in graph.outputs or len(consumers[selection.value]) > 1:
            continue
        maker = producers.get(selection.value)
        if maker is None or len([output for output in maker.outputs if output]) > 1:
            continue
        rewrite = _Rewrite(graph, dict(graph.constants), dict(graph.shapes), dict(graph.dtypes), set(graph.weights))
        moved = rewrite.move(node, maker, selection)
        if moved is not None:
            return moved
    return None


def _selection(graph: Graph, node: Node) -> Selection | None:
    """What a Gather or Slice by constants selects along one axis other than 0; None for anything else."""
    if node.op not in ("Gather", "Slice") or node.inputs[0] in graph.constants:
        return None
    shape = graph.shapes[node.inputs[0]]
    if node.op == "Gather":
        indices = graph.constants.get(node.inputs[1])
        axis = int(node.attribute("axis", 0)) % max(1, len(shape))
        if indices is None or indices.ndim > 1 or not indices.size:
            return None
        chosen = tuple(int(i) % shape[axis] for i in indices.ravel())
    else:
        numbers = [graph.constants.get(name) for name in node.inputs[1:]]
        if len(numbers) < 3 or any(n is None or n.size != 1 for n in numbers):
            return None
        start, stop, axis, *step = (int(n.flat[0]) for n in numbers if n is not None)
        axis %= len(shape)
        chosen = tuple(range(shape[axis])[slice(start, stop, *step)])
    if axis == 0 or not chosen or len(chosen) >= shape[axis]:
        return None
    return Selection(node.inputs[0], axis, chosen)


@dataclass
class _Rewrite:
    """One move, with the constants and shapes it adds."""

    graph: Graph
    constants: dict[str, np.ndarray]
    shapes: dict[str, Shape]
    dtypes: dict[str, str]
    weights: set[str]
    added: list[Node] = field(default_factory=list)

    def move(self, node: Node, maker: Node, selection: Selection) -> Graph | None:
        """The graph with `node` selecting among the operands of `maker`; None when they depend on each other along the axis."""
        before = self.graph.shapes[selection.value]
        after = tuple(len(selection.indices) if a == selection.axis else e for a, e in enumerate(before))
        inputs = self._operands(maker, selection, after)
        if inputs is None:
            return None
        whole = self.graph.shapes[node.outputs[0]] == after
        name = node.outputs[0] if whole else f"{node.outputs[0]}/kept"
        self.shapes[name], self.dtypes[name] = after, self.graph.dtypes[selection.value]
        self.added.append(replace(maker, name=f"{maker.name}/selected", inputs=tuple(inputs), outputs=(name,)))
        if not whole:  # Gather with one number drops the axis
            shape = self._constant(f"{name}/shape", np.array([-1, *self.graph.shapes[node.outputs[0]][1:]], np.int64))
            self.added.append(Node("Reshape", f"{node.name}/dropped", (name, shape), node.outputs[:1]))
        nodes: list[Node] = []
        for old in self.graph.nodes:
            nodes.extend(self.added if old is node else [] if old is maker else [old])
        changed = replace(self.graph, shapes=self.shapes, dtypes=self.dtypes, weights=frozenset(self.weights))
        return changed.with_nodes(nodes, self.constants)

    def _operands(self, maker: Node, selection: Selection, after: Shape) -> Sequence[str] | None:
        axis, rank = selection.axis, len(after)
        if maker.op in _ELEMENTWISE:
            return [self._select(name, axis - rank, selection.indices) for name in maker.inputs]
        first, *others = maker.inputs
        if maker.op in _ALONG_LAST_AXIS:
            default = 1 if self.graph.opset < 13 and maker.op.endswith("Softmax") else -1
            if axis >= int(maker.attribute("axis", default)) % rank:
                return None
            return [self._select(first, axis - rank, selection.indices), *others]
        if maker.op == "MatMul" and axis < rank - 1:
            left, right = (self.graph.shapes[name] for name in maker.inputs)
            if len(left) == rank and (axis == rank - 2 or len(right) <= 2):
                return [self._select(first, axis - rank, selection.indices), *others]
            return None
        if maker.op == "Transpose":
            order = tuple(maker.attribute("perm", ())) or tuple(reversed(range(rank)))
            return [self._select(first, order[axis] - rank, selection.indices)] if order[axis] else None
        if maker.op == "Reshape" and self.graph.shapes[first][: axis + 1] == self.graph.shapes[selection.value][: axis + 1]:
            target = self._constant(f"{selection.value}/selected/shape", np.array([-1, *after[1:]], np.int64))
            return [self._select(first, axis - len(self.graph.shapes[first]), selection.indices), target]
        return None

    def _select(self, name: str, axis: int, indices: tuple[int, ...]) -> str:
        """The operand with only these elements along `axis`, counted from the end; unchanged when it is broadcast there."""
        shape = self.graph.shapes[name] if name else ()
        if len(shape) < -axis or shape[axis] == 1:
            return name
        chosen = np.array(indices, np.int64)
        label = f"{name}/{axis}:{indices[0]}x{len(indices)}+{hash(indices) & 0xFFFF}"
        if name in self.graph.constants:
            if holds_weights(self.graph, name):  # one element of many is a weight still
                self.weights.add(label)
            return self._constant(label, np.take(self.graph.constants[name], chosen, axis=axis))
        if not any(node.outputs[:1] == (label,) for node in (*self.graph.nodes, *self.added)):
            numbers = self._constant(f"{label}/indices", chosen)
            self.added.append(Node("Gather", label, (name, numbers), (label,), {"axis": len(shape) + axis}))
            self.shapes[label] = tuple(len(indices) if a == len(shape) + axis else e for a, e in enumerate(shape))
            self.dtypes[label] = self.graph.dtypes[name]
        return label

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name], self.shapes[name], self.dtypes[name] = value, value.shape, str(value.dtype)
        return name
