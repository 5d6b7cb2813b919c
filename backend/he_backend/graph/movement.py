"""Data movement as index arrays: which input element each output element is."""

from __future__ import annotations

from typing import Mapping

import numpy as np

from he_backend.graph import ops, runtime
from he_backend.graph.model import Node, Shape, size_of
from he_backend.graph.onnx_export import to_proto

IN_ORDER = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


def movement_indices(
    node: Node, shapes: Mapping[str, Shape], constants: Mapping[str, np.ndarray], opset: int, operand: str
) -> list[np.ndarray]:
    """For each output of a movement operator, int64 [elements]: the element of `operand` found there, -1 where there is none (a zero).

    ONNX Runtime moves the numbers 1, 2, 3, … as it would move values, so every operator means here what it means there. Exact, because
    the numbers stay below 2^24 in float32 and are float64 beyond. The most frequent operators are numpy's.
    """
    count = size_of(shapes[operand])
    if node.op in IN_ORDER:
        return [np.arange(count, dtype=np.int64)]
    places = np.arange(count, dtype=np.int64).reshape(shapes[operand])
    if node.op == "Transpose":
        return [places.transpose(tuple(node.attribute("perm", ())) or None).ravel()]
    if node.op == "Split":
        axis = int(node.attribute("axis", 0)) % places.ndim
        edges = np.cumsum([shapes[name][axis] for name in node.outputs if name])
        if len(edges) == len(node.outputs):
            return [part.ravel() for part in np.split(places, edges[:-1], axis=axis)]
    assert node.op in ops.MOVEMENT
    dtype = "float32" if count < 1 << 24 else "float64"
    numbers = np.arange(1, count + 1, dtype=dtype).reshape(shapes[operand])
    fixed = {name: constants[name] for name in node.inputs if name in constants}
    fixed = {name: value.astype(dtype) if name == _fill(node) else value for name, value in fixed.items()}
    outputs = [name for name in node.outputs if name]
    model = to_proto([node], [(operand, shapes[operand], dtype)], [(n, None, dtype) for n in outputs], fixed, opset)
    moved = runtime.run(model.SerializeToString(), {operand: numbers}, outputs)
    found = [value.astype(np.int64).ravel() for value in moved]
    for value, whole in zip(moved, found):
        assert np.array_equal(value.ravel(), whole), f"node {node.name} ({node.op}) computes with the elements that it should move"
        assert not whole.size or (whole.min() >= 0 and whole.max() <= count), f"node {node.name} ({node.op}) makes elements of its own"
    return [whole - 1 for whole in found]


def _fill(node: Node) -> str:
    """Name of the floating operand beside the data: the value that Pad writes."""
    return node.inputs[2] if node.op == "Pad" and len(node.inputs) > 2 else ""


def concat_indices(node: Node, shapes: Mapping[str, Shape], position: int) -> np.ndarray:
    """int64 [elements] for the operand at this position of a Concat: its element at each place, -1 where another operand is."""
    parts = [np.full(shapes[name], -1, np.int64) for name in node.inputs]
    parts[position] = np.arange(parts[position].size, dtype=np.int64).reshape(parts[position].shape)
    return np.concatenate(parts, axis=int(node.attribute("axis", 0))).ravel()


def broadcast_indices(shape: Shape, wanted: Shape) -> np.ndarray:
    """int64 [elements of `wanted`]: the element of a tensor of `shape` at each place, by numpy's broadcasting."""
    return np.broadcast_to(np.arange(size_of(shape), dtype=np.int64).reshape(shape), wanted).ravel()


def only_moves(node: Node, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether a movement operator leaves nothing but input elements and zeros: a Pad may fill in numbers, a Resize interpolate."""
    if node.op in ("Resize", "Upsample"):
        if str(node.attribute("mode", "nearest")) != "nearest" or node.attribute("antialias", 0):
            return False
        cropped = str(node.attribute("coordinate_transformation_mode", "")) == "tf_crop_and_resize"
        return not (cropped and node.attribute("extrapolation_value", 0.0))
    if node.op != "Pad":
        return True
    if str(node.attribute("mode", "constant")) != "constant":
        return True
    filler = constants.get(_fill(node)) if _fill(node) else np.asarray(node.attribute("value", 0.0))
    return filler is not None and not np.any(filler)


def repeats_elements(node: Node, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether an input element may appear more than once in the output."""
    if ops.MOVEMENT[node.op]:
        return False
    if node.op == "Pad":
        return str(node.attribute("mode", "constant")) != "constant"
    if node.op == "Gather":
        indices = constants.get(node.inputs[1], np.zeros(2, np.int64))
        return len(np.unique(indices)) < indices.size or bool(np.any(indices < 0))
    return True
