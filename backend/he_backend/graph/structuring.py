"""Segment -> `SegmentStructure`: its operators composed layer by layer, as `lowering` does element by element."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping, Union

import numpy as np

from he_backend.graph import expressions as ex
from he_backend.graph import ops
from he_backend.graph.lowering import template_of
from he_backend.graph.model import Node, Shape, size_of
from he_backend.graph.movement import broadcast_indices, concat_indices, movement_indices
from he_backend.graph.program import Segment
from he_backend.graph.structure import ConvStructure, DenseStructure, PlacedLayer, ScaleStructure, SegmentStructure
from he_backend.graph.templates import window_of


def structure_of(segment: Segment) -> SegmentStructure | None:
    """The segment's layers; None when it is no sum of convolutions and dense layers (a transposed convolution, weights per position).

    Shifts are folded into biases, scales into weights, and data movement into where layers read and write. What comes back computes the
    same as `affine.lower(segment)`.
    """
    try:
        return _Structuring(segment).run()
    except _Unstructured:
        return None


class _Unstructured(Exception):
    """Some part of the segment has no structure that is known here."""


@dataclass(frozen=True)
class _Weighted:
    """bias + the sum of the layers; `PlacedLayer.scatter` numbers the elements of this value, and layers' own biases are zero."""

    layers: tuple[PlacedLayer, ...]
    bias: np.ndarray  # float64 [elements]


_Value = Union[ex.Diagonal, _Weighted]
_Own = Union[ConvStructure, DenseStructure]  # what an operator of the network is


class _Structuring:
    """One walk over the nodes of a segment."""

    def __init__(self, segment: Segment) -> None:
        self._segment, self._shapes, self._constants = segment, segment.tensor_shapes, segment.constants
        self._in_sizes = tuple(size_of(self._shapes[name]) for name in segment.inputs)
        self._known: dict[str, _Value] = {name: ex.leaf(i, self._in_sizes[i]) for i, name in enumerate(segment.inputs)}

    def run(self) -> SegmentStructure:
        for node in self._segment.nodes:
            for name, value in self._evaluate(node).items():
                self._known.setdefault(name, value)
        out_sizes = tuple(size_of(self._shapes[name]) for name in self._segment.outputs)
        total, start = sum(out_sizes), 0
        layers: list[PlacedLayer] = []
        for name, size in zip(self._segment.outputs, out_sizes):
            value = self._known[name]
            if isinstance(value, ex.Diagonal):
                value = _scaling(value, self._in_sizes)
            index = None if size == total else np.arange(start, start + size)
            layers += _with_bias(replace(value, layers=tuple(_sent_to(one, index) for one in value.layers)), start, total)
            start += size
        return SegmentStructure(self._in_sizes, out_sizes, tuple(layers))

    def _evaluate(self, node: Node) -> Mapping[str, _Value]:
        output = node.outputs[0]
        if node.op == "Concat":
            return {output: self._added([self._concat_part(node, i) for i in range(len(node.inputs))])}
        if node.op in ops.MOVEMENT:
            indices = movement_indices(node, self._shapes, self._constants, self._segment.opset, node.inputs[0])
            names = [name for name in node.outputs if name]
            return {name: self._moved(self._known[node.inputs[0]], index) for name, index in zip(names, indices)}
        if node.op in ops.ARITHMETIC:
            return {output: self._arithmetic(node)}
        data = next(name for name in node.inputs if name in self._known)
        return {output: self._layer(node, data)}

    def _operand(self, name: str) -> _Value:
        return self._known[name] if name in self._known else ex.constant(self._constants[name])

    def _concat_part(self, node: Node, position: int) -> _Value:
        return self._moved(self._operand(node.inputs[position]), concat_indices(node, self._shapes, position))

    def _arithmetic(self, node: Node) -> _Value:
        shape = self._shapes[node.outputs[0]]
        operands = []
        for name in node.inputs:
            index = broadcast_indices(self._shapes[name], shape)
            value = self._operand(name)
            operands.append(value if len(index) == len(value.bias) else self._moved(value, index))
        if node.op == "Neg":
            return _scaled(operands[0], np.full(size_of(shape), -1.0))
        if node.op == "Mul":
            position = 0 if node.inputs[0] in self._known else 1
            return _scaled(operands[position], operands[1 - position].bias)
        if node.op == "Sub":
            operands[1] = _scaled(operands[1], np.full(size_of(shape), -1.0))
        return self._added(operands)

    def _moved(self, value: _Value, index: np.ndarray) -> _Value:
        if isinstance(value, ex.Diagonal):
            moved = ex.moved(value, index, self._in_sizes)
            assert isinstance(moved, ex.Diagonal)
            return moved
        present = np.flatnonzero(index >= 0)
        target = np.full(len(value.bias), -1, np.int64)
        target[index[present]] = present
        if not np.array_equal(target[index[present]], present):
            raise _Unstructured
        bias = np.where(index >= 0, value.bias[np.maximum(index, 0)], 0.0) if len(value.bias) else np.zeros(len(index))
        same = len(index) == len(value.bias) and np.array_equal(index, np.arange(len(index)))
        return _Weighted(tuple(one if same else _sent_to(one, target) for one in value.layers), bias)

    def _added(self, values: list[_Value]) -> _Value:
        diagonal = [value for value in values if isinstance(value, ex.Diagonal)]
        if len(diagonal) == len(values):
            added = ex.added(diagonal)
            assert isinstance(added, ex.Diagonal)
            return added
        parts = [_scaling(value, self._in_sizes) if isinstance(value, ex.Diagonal) else value for value in values]
        return _Weighted(tuple(layer for part in parts for layer in part.layers), np.sum([part.bias for part in parts], axis=0))

    # Weighted operators.

    def _layer(self, node: Node, data: str) -> _Weighted:
        value = self._known[data]
        layer, reads, writes = self._own_layer(node, data)
        bias = np.zeros(size_of(self._shapes[node.outputs[0]]))
        if node.op == "Conv" and len(node.inputs) > 2 and node.inputs[2]:
            bias = np.repeat(self._constants[node.inputs[2]].astype(np.float64).ravel(), len(bias) // layer.out_shape[0])
        if isinstance(value, _Weighted):
            return _composed(layer, reads, writes, value, bias, self._in_sizes)
        if np.any(value.bias):
            template = template_of(self._segment, node, data)
            bias = ex.applied(template, ex.constant(value.bias), self._in_sizes).bias  # the operator's own bias included
        terms = [term for term in value.terms if np.any(term.index >= 0)]
        return _Weighted(tuple(_reading(layer, reads, writes, term, self._in_sizes) for term in terms), bias)

    def _own_layer(self, node: Node, data: str) -> tuple[_Own, np.ndarray | None, np.ndarray | None]:
        """The operator on its own data: which element of that it reads as its inputs and where its outputs go (None: in order)."""
        x, out = self._shapes[data], self._shapes[node.outputs[0]]
        if node.op == "Conv" and x[0] == 1 and min(node.attribute("pads", (0,))) >= 0:
            return _conv(node, x, self._constants[node.inputs[1]], out), None, None
        if node.op != "MatMul":
            raise _Unstructured
        left = data == node.inputs[0]
        weight = self._constants[node.inputs[1 if left else 0]].astype(np.float64)
        if size_of(weight.shape[:-2]) != 1:
            raise _Unstructured
        if left:
            matrix = weight.reshape(-1, weight.shape[-1] if weight.ndim > 1 else 1)
            return _dense(matrix, size_of(x) // len(matrix)), None, None
        matrix = weight.reshape(-1, weight.shape[-1]).T  # W @ x = (xᵀ @ Wᵀ)ᵀ
        columns = x[-1] if len(x) > 1 else 1
        layer = _dense(matrix, size_of(x) // len(matrix))
        return layer, _transposed(len(matrix), columns, size_of(x)), _transposed(matrix.shape[1], columns, size_of(out))


def _scaling(value: ex.Diagonal, in_sizes: tuple[int, ...]) -> _Weighted:
    """What only scales, shifts and moves, element by element; elements that are zero are left out."""
    made = []
    for term in value.terms:
        live = np.flatnonzero(term.index >= 0)
        layer = ScaleStructure(term.scale[live], np.zeros(len(live)))
        if len(live):
            scatter = None if len(live) == len(term.index) else live
            made.append(PlacedLayer(layer, term.source, _in_order(term.index[live], in_sizes[term.source]), scatter))
    return _Weighted(tuple(made), value.bias)


def _conv(node: Node, x: Shape, weight: np.ndarray, out: Shape) -> ConvStructure:
    count = len(x) - 2
    window = window_of(node, weight.shape[2:], x[2:], out[2:])
    reach = [(out[2 + a] - 1) * window.strides[a] + (window.kernel[a] - 1) * window.dilations[a] + 1 for a in range(count)]
    after = tuple(max(0, reach[a] - x[2 + a] - window.before[a]) for a in range(count))
    return ConvStructure(
        weight.astype(np.float64), np.zeros((out[1], *(1,) * count)), window.strides, (*window.before, *after), window.dilations,
        int(node.attribute("group", 1)), tuple(x[1:]), tuple(out[1:]),
    )  # fmt: skip


def _dense(matrix: np.ndarray, positions: int) -> DenseStructure:
    return DenseStructure(matrix, np.zeros((1, matrix.shape[1])), positions)


def _transposed(depth: int, columns: int, size: int) -> np.ndarray | None:
    """For [..., depth, columns]: the elements in the order [..., columns, depth]."""
    return None if columns == 1 else np.arange(size).reshape(-1, depth, columns).swapaxes(1, 2).ravel()


def _reading(layer: _Own, reads: np.ndarray | None, writes: np.ndarray | None, term: ex.Term, sizes: tuple[int, ...]) -> PlacedLayer:
    """The layer reading through one diagonal term, its scales folded into the weights, inputs that are all zero left out."""
    index = term.index if reads is None else term.index[reads]
    scale = term.scale if reads is None else term.scale[reads]
    axis = 1 if isinstance(layer, DenseStructure) else 0  # of features or channels in the layer's input
    shape = (layer.positions, layer.weight.shape[0]) if isinstance(layer, DenseStructure) else (layer.in_shape[0], -1)
    live = (index >= 0).reshape(shape)
    kept = live.any(axis=1 - axis)
    factor = _uniform(np.where(live, scale.reshape(shape), np.nan), 1 - axis)
    if isinstance(layer, DenseStructure):
        layer = replace(layer, weight=(layer.weight * factor[:, None])[kept])
    else:
        if layer.group > 1:
            kept = np.ones_like(kept)
        depth, count = layer.weight.shape[1], len(layer.kernel)
        each = np.repeat(factor.reshape(layer.group, 1, depth), layer.weight.shape[0] // layer.group, axis=1).reshape(-1, depth)
        weight = layer.weight * each.reshape(*each.shape, *(1,) * count)
        layer = replace(layer, weight=weight[:, kept] if layer.group == 1 else weight, in_shape=(int(kept.sum()), *layer.in_shape[1:]))
    gather = index.reshape(shape).compress(kept, axis=axis).ravel()
    return PlacedLayer(layer, term.source, _in_order(gather, sizes[term.source]), writes)


def _in_order(gather: np.ndarray, size: int) -> np.ndarray | None:
    """None when these are all `size` elements of a segment input, in order."""
    return None if len(gather) == size and np.array_equal(gather, np.arange(size)) else gather


def _composed(
    layer: _Own, reads: np.ndarray | None, writes: np.ndarray | None, inner: _Weighted, bias: np.ndarray, sizes: tuple[int, ...]
) -> _Weighted:
    """A layer (`bias` is its own), position by position, after layers that write all of its input in order: one layer with the product."""
    if reads is not None or writes is not None:
        raise _Unstructured
    made = []
    for one in inner.layers:
        before = one.layer
        if isinstance(before, ScaleStructure):
            made.append(_reading(layer, None, None, _term(one, len(inner.bias)), sizes))
            continue
        if one.scatter is not None:
            raise _Unstructured
        if isinstance(layer, ConvStructure) and isinstance(before, ConvStructure):
            if not layer.pointwise or layer.group > 1 or before.group > 1 or any(s > 1 for s in layer.strides):
                raise _Unstructured
            matrix = layer.weight.reshape(layer.weight.shape[:2])
            product = np.tensordot(matrix, before.weight, (1, 0))
            made.append(replace(one, layer=replace(before, weight=product, bias=layer.bias, out_shape=layer.out_shape)))
        elif isinstance(layer, DenseStructure) and isinstance(before, DenseStructure) and layer.positions == before.positions:
            made.append(replace(one, layer=replace(before, weight=before.weight @ layer.weight, bias=layer.bias)))
        else:
            raise _Unstructured
    return _Weighted(tuple(made), layer.apply(inner.bias.reshape(1, *layer.in_shape)).ravel() + bias)


def _term(one: PlacedLayer, size: int) -> ex.Term:
    """A scale of a value of `size` elements as a diagonal term."""
    assert isinstance(one.layer, ScaleStructure)
    index, scale = np.full(size, -1, np.int64), np.zeros(size)
    places = np.arange(size) if one.scatter is None else one.scatter
    kept = places >= 0
    index[places[kept]] = (np.arange(len(places)) if one.gather is None else one.gather)[kept]
    scale[places[kept]] = one.layer.scale[kept]
    return ex.Term(one.source, index, scale)


def _scaled(value: _Value, factor: np.ndarray) -> _Value:
    if isinstance(value, ex.Diagonal):
        scaled = ex.scaled(value, factor)
        assert isinstance(scaled, ex.Diagonal)
        return scaled
    layers = []
    for one in value.layers:
        layer = one.layer
        each = factor if one.scatter is None else np.where(one.scatter >= 0, factor[np.maximum(one.scatter, 0)], np.nan)
        if isinstance(layer, ScaleStructure):
            layer = replace(layer, scale=layer.scale * np.where(np.isnan(each), 0.0, each))
        elif isinstance(layer, DenseStructure):
            scale = _uniform(each.reshape(layer.out_shape), 0)
            layer = replace(layer, weight=layer.weight * scale)
        else:
            scale = _uniform(each.reshape(layer.out_shape[0], -1), 1)
            layer = replace(layer, weight=layer.weight * scale.reshape(-1, *(1,) * (layer.weight.ndim - 1)))
        layers.append(replace(one, layer=layer))
    return _Weighted(tuple(layers), value.bias * np.asarray(factor, np.float64).ravel())


def _uniform(values: np.ndarray, axis: int) -> np.ndarray:
    """The one value along the axis, not counting NaN (1 where there is nothing else)."""
    missing = np.isnan(values)
    low, high = np.where(missing, np.inf, values).min(axis=axis), np.where(missing, -np.inf, values).max(axis=axis)
    empty = missing.all(axis=axis)
    if not np.array_equal(low[~empty], high[~empty]):
        raise _Unstructured
    return np.asarray(np.where(empty, 1.0, low))


def _sent_to(one: PlacedLayer, target: np.ndarray | None) -> PlacedLayer:
    """The layer with result i at target[i] instead of i (None: where it was)."""
    if target is None:
        return one
    if one.scatter is None:
        return replace(one, scatter=target)
    return replace(one, scatter=np.where(one.scatter >= 0, target[np.maximum(one.scatter, 0)], -1))


def _with_bias(value: _Weighted, start: int, total: int) -> list[PlacedLayer]:
    """The layers with the value's bias given to the first layer that writes an element; all of it must find one."""
    open_bias = np.zeros(total)
    open_bias[start : start + len(value.bias)] = value.bias
    layers = []
    for one in value.layers:
        places = np.arange(total) if one.scatter is None else one.scatter
        mine = np.where(places >= 0, open_bias[np.maximum(places, 0)], 0.0).reshape(one.layer.out_shape)
        open_bias[places[places >= 0]] = 0.0
        axes = (0,) if isinstance(one.layer, DenseStructure) else tuple(range(1, mine.ndim))
        if axes and np.array_equal(mine.min(axis=axes), mine.max(axis=axes)):
            mine = mine.min(axis=axes, keepdims=True)
        layers.append(replace(one, layer=replace(one.layer, bias=mine)))
    if np.any(open_bias):
        raise _Unstructured
    return layers
