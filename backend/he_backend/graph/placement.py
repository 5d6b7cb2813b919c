"""Where each value can be: from which client step on the data owner has it, and as which affine expression the model owner can make it.

Levels: client step l runs after l rounds. An expression of level l is computed in round l (counted from 0) from values that the client
has in step l, so the client can have its result in step l + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Mapping, Sequence

import numpy as np

from he_backend.graph import ops, sparse
from he_backend.graph.lowering import reduced_axes
from he_backend.graph.model import Graph, Node, Shape, size_of
from he_backend.graph.movement import only_moves, repeats_elements
from he_backend.graph.problems import holds_weights

TRIP = 64  # multiply-adds that cost about as much as sending one more value to the client and back
_POOLED_NONZEROS = 1 << 22


@dataclass(frozen=True)
class Expression:
    """A value as an affine expression of the model owner.

    A light one only scales, shifts and moves what the client sends; `axes` then are those along which its scales differ (None: unknown).
    Otherwise `axes` are those along which a scale can still be folded into shared weights. Axes are counted from the end (-1 is the last).
    `support` is how many leaf elements all results at one position read together, a position being what shares all other axes (None: not
    known, so any); it is what a weighted operator on top would have to multiply for each of its own results. A `residual` adds what the
    client has to weighted results: a way to go on in the same round, while the sum itself is better left to the client.
    """

    level: int
    light: bool
    nonzeros: int
    leaves: frozenset[str]
    axes: frozenset[int] | None = frozenset()
    support: int | None = None
    residual: bool = False


@dataclass(frozen=True)
class Place:
    """`client`: first step in which the data owner can have the value. `computable`: it can compute it itself, from the operands."""

    client: int
    computable: bool
    expression: Expression | None = None


def place(graph: Graph) -> dict[str, Place]:
    """The place of every value that is not a constant."""
    places = {name: Place(0, True) for name in graph.inputs}
    consumers = graph.consumers()
    for node in graph.nodes:
        for output in node.outputs:
            if output:
                places[output] = _Placing(graph, places, consumers, node, output).place()
    return places


def data_operands(graph: Graph, node: Node) -> tuple[str, ...]:
    """The operands that are not constants, each once."""
    return tuple(dict.fromkeys(name for name in node.inputs if name and name not in graph.constants))


def moves_data(graph: Graph, node: Node) -> bool:
    """Whether the node only moves elements of its first operand, filling in nothing but zeros."""
    if node.op not in ops.MOVEMENT or node.op == "Concat" or data_operands(graph, node) != node.inputs[:1]:
        return False
    return only_moves(node, graph.constants)


@dataclass(frozen=True)
class _Placing:
    """One output of one node, its operands placed already."""

    graph: Graph
    places: Mapping[str, Place]
    consumers: Mapping[str, Sequence[Node]]
    node: Node
    output: str

    def place(self) -> Place:
        node, data = self.node, data_operands(self.graph, self.node)
        client = max((self.places[name].client for name in data), default=0)
        if not data or self._kind(self.output) != "f":
            return Place(client, True)
        private = any(holds_weights(self.graph, name) for name in node.inputs)
        if node.op in ops.WEIGHTED:
            return self._server_only(self._weighted(data[0])) if len(data) == 1 else Place(client, True)
        if node.op in ops.ARITHMETIC or node.op == "Concat":
            twice = len(data) < sum(name not in self.graph.constants for name in node.inputs)
            if (node.op == "Mul" and len(data) > 1) or (twice and not private):
                return Place(client, True)
            alone = len(node.inputs) == 2 and len(data) == 1 and node.op != "Concat"
            expression = self._scale(data[0], private) if alone else self._sum(data, private)
            return self._server_only(expression) if private and expression else self._either(client, expression)
        if moves_data(self.graph, node):
            return self._either(client, self._movement(data[0]))
        if node.op in ops.POOLING and data == node.inputs[:1]:
            return self._either(client, self._pooling(data[0]))
        return Place(client, True)

    @staticmethod
    def _server_only(expression: Expression) -> Place:
        return Place(expression.level + 1, False, expression)

    @staticmethod
    def _either(client: int, expression: Expression | None) -> Place:
        return Place(client if expression is None else min(client, expression.level + 1), True, expression)

    def _kind(self, name: str) -> str:
        return np.dtype(self.graph.dtypes[name]).kind

    def _shape(self, name: str) -> Shape:
        return self.graph.shapes[name]

    def _size(self, name: str) -> int:
        return size_of(self.graph.shapes[name])

    def _sizes(self, names: frozenset[str]) -> int:
        return sum(self._size(name) for name in names)

    def _early(self, name: str) -> Expression | None:
        """The operand's expression, when using it saves waiting for the client."""
        expression = self.places[name].expression
        return expression if expression and expression.level < self.places[name].client else None

    def _leaf(self, name: str) -> Expression:
        return Expression(self.places[name].client, True, self._size(name), frozenset([name]))

    # A weighted operator: on what the client sends, or composed with what the model owner did to it.

    def _weighted(self, x: str) -> Expression:
        nonzeros, folds = self._weighted_nonzeros(x)
        alone = Expression(self.places[x].client, False, nonzeros, frozenset([x]), self._foldable(x), self._support(x))
        inner = self.places[x].expression
        if inner is None:
            return alone
        early = inner.level < alone.level
        if not inner.light:
            return self._on_weighted(x, inner, alone, folds) if early else alone
        composed = math.ceil(nonzeros * inner.nonzeros / max(1, self._size(x)))
        if composed > sparse.MAX_NONZEROS and (inner.axes is None or not inner.axes <= folds):
            return alone
        if early:
            good = composed <= nonzeros + inner.nonzeros + TRIP * self._size(x)
        else:
            good = composed <= nonzeros and self._sizes(inner.leaves) <= self._size(x)
        return Expression(inner.level, False, composed, inner.leaves, alone.axes, alone.support) if good else alone

    def _on_weighted(self, x: str, inner: Expression, alone: Expression, folds: frozenset[int]) -> Expression:
        """A weighted operator on what another one gives in the same round: one map, their product, unless that costs more than it saves.

        The product multiplies everything that the inner results at one position read, for each outer result. It saves both factors' own
        products and the trip of x; what others read of x as well is saved in part, or not at all when the client needs x anyway.
        """
        weight, known = self._weight(x), inner.support is not None and inner.axes == folds
        taps = size_of(weight.shape[2:]) if self.node.op != "MatMul" else 1
        reads = min(self._sizes(inner.leaves), taps * inner.support) if known and inner.support else self._sizes(inner.leaves)
        composed = reads * self._size(self.output)
        readers = self.consumers[x]
        alike = x not in self.graph.outputs and all(node.op in ops.WEIGHTED for node in readers)
        saved = (inner.nonzeros + TRIP * self._size(x)) // len(readers) if alike else 0
        by_position = known and taps == 1 and self.node.op != "ConvTranspose" and int(self.node.attribute("group", 1)) == 1
        fits = by_position or max(composed, alone.nonzeros, inner.nonzeros) <= sparse.MAX_NONZEROS
        if composed > alone.nonzeros + saved or not fits:
            return alone
        return Expression(inner.level, False, composed, inner.leaves, alone.axes if by_position else frozenset(), reads)

    def _weight(self, x: str) -> np.ndarray:
        """The constant operand that multiplies x."""
        return self.graph.constants[self.node.inputs[0 if self.node.inputs[0] != x else 1]]

    def _support(self, x: str) -> int:
        """Elements of x that all results at one position read."""
        weight = self._weight(x)
        if self.node.op == "MatMul":
            return int(weight.shape[-1] if self.node.inputs[0] != x or weight.ndim == 1 else weight.shape[-2])
        return min(self._size(x), size_of(weight.shape[2:]) * self._shape(x)[1])

    def _weighted_nonzeros(self, x: str) -> tuple[int, frozenset[int]]:
        """Multiply-adds per row, and the axes of x along which scales fold into the weights."""
        node, weight = self.node, self._weight(x)
        if node.op == "MatMul":
            left = node.inputs[0] == x
            depth = weight.shape[-2 if left and weight.ndim > 1 else -1] if weight.ndim else 1
            return self._size(self.output) * int(depth), frozenset([-1 if left or len(self._shape(x)) == 1 else -2])
        channel = frozenset([1 - len(self._shape(x))])
        if node.op == "Conv":
            return self._size(self.output) * size_of(weight.shape[1:]), channel
        return self._size(x) * size_of(weight.shape[1:]), channel

    def _foldable(self, x: str) -> frozenset[int]:
        if self.node.op == "MatMul":
            return frozenset([-1 if self.node.inputs[0] == x else -2])
        return frozenset([1 - len(self._shape(self.output))])

    # Scales, shifts and sums.

    def _scale(self, x: str, private: bool) -> Expression | None:
        """x times or plus a constant. A scalar of the architecture goes wherever x is."""
        axes = self._varying_axes() if self.node.op == "Mul" else frozenset()
        inner = self._early(x)
        if inner and inner.light:
            grown = inner.nonzeros * self._size(self.output) // max(1, self._size(x))
            return replace(inner, nonzeros=grown, axes=None if inner.axes is None else inner.axes | axes)
        foldable = inner is not None and (inner.nonzeros <= sparse.MAX_NONZEROS or axes <= (inner.axes or frozenset()))
        if inner and foldable and self._size(x) == self._size(self.output):
            return inner
        if not private:
            return None
        return Expression(self.places[x].client, True, self._size(self.output), frozenset([x]), axes)

    def _varying_axes(self) -> frozenset[int]:
        """Axes from the end along which the constant operand has more than one element."""
        found: set[int] = set()
        for name in self.node.inputs:
            if name in self.graph.constants:
                shape = self.graph.constants[name].shape
                found |= {axis - len(shape) for axis, extent in enumerate(shape) if extent > 1}
        return frozenset(found)

    def _sum(self, data: Sequence[str], private: bool) -> Expression | None:
        """Add, Sub, Sum or Concat of several values (and constants), or Neg of one."""
        expressions = {name: e for name in data for e in [self._early(name)] if e}
        composed = self._composed(data, expressions)
        if composed is None and private:  # a constant that may not travel: the client sends every operand
            return self._composed(data, {})
        return composed if expressions or private else None

    def _composed(self, data: Sequence[str], expressions: Mapping[str, Expression]) -> Expression | None:
        parts = [expressions.get(name) or self._leaf(name) for name in data]
        heavy = [part for part in parts if not part.light]
        level = max(part.level for part in parts)
        if heavy:
            repeated = any(self._spread(name) > 1 for name in expressions if not expressions[name].light)
            if repeated or any(part.level != level for part in heavy):
                return None
        nonzeros = sum(part.nonzeros * self._spread(name) for name, part in zip(data, parts))
        leaves = frozenset().union(*(part.leaves for part in parts))
        axes: frozenset[int] | None = frozenset()
        support: int | None = None
        if heavy:
            if self.node.op != "Concat" and len({part.axes for part in heavy}) == 1:
                axes = heavy[0].axes
                support = self._summed_support(parts, axes)
        else:
            axes = None if any(p.axes is None for p in parts) else frozenset().union(*(p.axes or frozenset() for p in parts))
        residual = bool(heavy) and (len(expressions) < len(data) or any(part.residual for part in heavy))
        return Expression(level, not heavy, nonzeros, leaves, axes, support, residual)

    def _summed_support(self, parts: Sequence[Expression], axes: frozenset[int] | None) -> int | None:
        """Leaf elements that all of a sum's results at one position read; a light part reads one element for each."""
        supports = [part.support for part in parts if not part.light]
        if not axes or any(support is None for support in supports):
            return None
        channels = size_of(self._shape(self.output)[axis] for axis in axes)
        return sum(support or 0 for support in supports) + channels * sum(part.light for part in parts)

    def _spread(self, name: str) -> int:
        """How often broadcasting repeats the operand."""
        return 1 if self.node.op == "Concat" else self._size(self.output) // max(1, self._size(name))

    # Weight-free linear operators.

    def _movement(self, x: str) -> Expression | None:
        """The movement of the operand's expression; of a value the client has, when that leaves no more to send."""
        repeats = repeats_elements(self.node, self.graph.constants)
        inner, size, grown = self.places[x].expression, self._size(x), self._size(self.output)
        if inner and inner.light:
            ratio = grown / max(1, size)
            nonzeros = math.ceil(inner.nonzeros * (ratio if repeats else min(1.0, ratio)))
            return replace(inner, nonzeros=nonzeros, axes=self._moved_axes(x, inner.axes))
        if inner:
            kept = math.ceil(inner.nonzeros * min(1.0, grown / max(1, size)))
            return None if repeats else replace(inner, nonzeros=kept, axes=self._moved_axes(x, inner.axes) or frozenset(), support=None)
        if grown >= size:  # sent as it was before: not larger, and once for all who move it differently
            return Expression(self.places[x].client, True, grown if repeats else size, frozenset([x]))
        return None

    def _moved_axes(self, x: str, axes: frozenset[int] | None) -> frozenset[int] | None:
        """The axes after the movement; None when they cannot be followed."""
        before, after = self._shape(x), self._shape(self.output)
        if not axes:
            return axes
        if self.node.op == "Transpose":
            order = tuple(self.node.attribute("perm", ())) or tuple(reversed(range(len(before))))
            return frozenset(position - len(after) for position, axis in enumerate(order) if axis - len(before) in axes)
        if self.node.op in ("Slice", "Split", "Pad", "Expand", "Tile", "Identity") and len(before) == len(after):
            return axes
        if self.node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") and all(
            -axis <= len(after) and before[axis:] == after[axis:] for axis in axes
        ):
            return axes
        return None

    def _pooling(self, x: str) -> Expression | None:
        """The pooled expression, when every element is pooled once at most, so that composing costs nothing and less comes back."""
        inner = self._early(x)
        if inner is None or inner.nonzeros > _POOLED_NONZEROS:
            return None
        if self.node.op == "AveragePool":
            taps = self._size(self.output) * size_of(self.node.attribute("kernel_shape"))
        else:
            taps = self._size(x)
            if not reduced_axes(self.node, len(self._shape(x)), self.graph.constants):
                return None
        if taps > self._size(x):
            return None
        return Expression(inner.level, False, inner.nonzeros, inner.leaves)
