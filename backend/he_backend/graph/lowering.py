"""Segment -> `AffineMap`: its operators composed, element by element, into one affine map."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping

import numpy as np

from he_backend.graph import expressions as ex
from he_backend.graph import ops, templates
from he_backend.graph.affine import AffineMap, Block
from he_backend.graph.model import Node, size_of
from he_backend.graph.movement import broadcast_indices, concat_indices, movement_indices
from he_backend.graph.program import Segment


def lower_segment(segment: Segment) -> AffineMap:
    """The affine map of a segment over the flattened elements of one row.

    Raises CapacityError when layers without a non-linearity between them compose to a matrix that is too large.
    """
    in_sizes = tuple(size_of(segment.tensor_shapes[name]) for name in segment.inputs)
    known: dict[str, ex.Expression] = {name: ex.leaf(i, in_sizes[i]) for i, name in enumerate(segment.inputs)}
    for node in segment.nodes:
        for name, value in _evaluate(segment, node, known, in_sizes).items():
            known.setdefault(name, value)
    out_sizes = tuple(size_of(segment.tensor_shapes[name]) for name in segment.outputs)
    blocks: list[Block] = []
    start = 0
    for name, size in zip(segment.outputs, out_sizes):
        blocks += [replace(block, scatter=block.scatter + np.int32(start)) for block in ex.as_blocks(known[name])]
        start += size
    bias = np.concatenate([known[name].bias for name in segment.outputs])
    return AffineMap(in_sizes, out_sizes, _merged(blocks), bias)


def _evaluate(segment: Segment, node: Node, known: Mapping[str, ex.Expression], in_sizes: tuple[int, ...]) -> Mapping[str, ex.Expression]:
    """The values that one node writes."""
    shapes, constants = segment.tensor_shapes, segment.constants
    output = node.outputs[0]
    if node.op in ops.MOVEMENT:
        if node.op == "Concat":
            return {output: ex.added([_concat_part(segment, node, i, known, in_sizes) for i in range(len(node.inputs))])}
        indices = movement_indices(node, shapes, constants, segment.opset, node.inputs[0])
        names = [name for name in node.outputs if name]
        return {name: ex.moved(known[node.inputs[0]], index, in_sizes) for name, index in zip(names, indices)}
    if node.op in ops.ARITHMETIC:
        return {output: _arithmetic(segment, node, known, in_sizes)}
    data = next(name for name in node.inputs if name in known)
    return {output: ex.applied(template_of(segment, node, data), known[data], in_sizes)}


def _concat_part(
    segment: Segment, node: Node, position: int, known: Mapping[str, ex.Expression], in_sizes: tuple[int, ...]
) -> ex.Expression:
    name = node.inputs[position]
    value = known[name] if name in known else ex.constant(segment.constants[name])
    return ex.moved(value, concat_indices(node, segment.tensor_shapes, position), in_sizes)


def _arithmetic(segment: Segment, node: Node, known: Mapping[str, ex.Expression], in_sizes: tuple[int, ...]) -> ex.Expression:
    shape = segment.tensor_shapes[node.outputs[0]]
    operands = []
    for name in node.inputs:
        index = broadcast_indices(segment.tensor_shapes[name], shape)
        value = known[name] if name in known else ex.constant(segment.constants[name])
        operands.append(value if len(index) == len(value.bias) else ex.moved(value, index, in_sizes))
    if node.op == "Neg":
        return ex.scaled(operands[0], np.full(size_of(shape), -1.0))
    if node.op == "Mul":
        position = 0 if node.inputs[0] in known else 1
        return ex.scaled(operands[position], operands[1 - position].bias)
    if node.op == "Sub":
        operands[1] = ex.scaled(operands[1], np.full(size_of(shape), -1.0))
    return ex.added(operands)


def template_of(segment: Segment, node: Node, data: str) -> templates.Template:
    """A weighted or pooling operator of the segment as blocks over its own operand `data`, its own bias included."""
    shapes, constants = segment.tensor_shapes, segment.constants
    x, out = shapes[data], shapes[node.outputs[0]]
    if node.op == "MatMul":
        if data == node.inputs[0]:
            return templates.matmul_right(x, constants[node.inputs[1]], out)
        return templates.matmul_left(constants[node.inputs[0]], x, out)
    if node.op in ops.POOLING:
        return templates.pooling(node, x, out, reduced_axes(node, len(x), constants), segment.opset, constants)
    make = templates.conv if node.op == "Conv" else templates.conv_transpose
    bias = constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
    return make(node, x, constants[node.inputs[1]], bias, out)


def reduced_axes(node: Node, rank: int, constants: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """The axes that a reduction sums over, counted from 0."""
    if node.op == "GlobalAveragePool":
        return tuple(range(2, rank))
    given = node.attribute("axes", ())
    if len(node.inputs) > 1 and node.inputs[1]:
        given = constants[node.inputs[1]].ravel().tolist()
    if not given:
        return () if node.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in given))


# Element 0 times 0, of layers that together give zeros whatever comes in (the second reads padding alone).
_NOTHING = Block(0, np.zeros((1, 1, 1), np.int32), np.zeros((1, 1, 1)), np.zeros((1, 1, 1), np.int32))


def _merged(blocks: list[Block]) -> tuple[Block, ...]:
    """Blocks that read the same elements in the same order become one wider block (queries, keys and values of attention).

    Blocks of zeros (what only brings a constant into a round) are dropped; where nothing else is there, one remains.
    """
    blocks = [block for block in blocks if np.any(block.weights)] or blocks[:1] or [_NOTHING]
    groups: dict[tuple[int, tuple[int, ...], int], list[Block]] = {}
    for block in blocks:
        members = groups.setdefault((block.source, block.gather.shape, hash(block.gather.tobytes())), [])
        for position, member in enumerate(members):
            joined = _joined(member, block)
            if joined is not None:
                members[position] = joined
                break
        else:
            members.append(block)
    return tuple(block for members in groups.values() for block in members)


def _joined(first: Block, second: Block) -> Block | None:
    """One block for two with the same gather: weights added where they write the same elements, side by side where they write others."""
    if not np.array_equal(first.gather, second.gather):
        return None
    if np.array_equal(first.scatter, second.scatter):
        return replace(first, weights=first.weights + second.weights)
    if len(np.intersect1d(first.scatter, second.scatter)):
        return None
    return replace(
        first,
        weights=np.concatenate([first.weights, second.weights], axis=2),
        scatter=np.concatenate([first.scatter, second.scatter], axis=2),
    )
