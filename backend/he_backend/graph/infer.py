"""Shapes and element types of every value of a graph, and the check that runs after import and after every pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Sequence

import numpy as np
import onnx

from he_backend.errors import ModelError
from he_backend.graph import ops, runtime
from he_backend.graph.element_types import numpy_type
from he_backend.graph.model import Graph, Node, Shape
from he_backend.graph.onnx_export import graph_to_proto, to_proto

_SMALL = 4096  # constants of more elements are declared to shape inference without their values


def with_shapes(graph: Graph) -> Graph:
    """The graph with shapes and types of all its values, as ONNX Runtime makes them.

    Values that ONNX's shape inference leaves open, or of which it thinks otherwise than ONNX Runtime, are measured by running it once.

    Raises ModelError when a value's shape cannot be known.
    """
    shapes = {name: tuple(value.shape) for name, value in graph.constants.items()}
    dtypes = {name: str(value.dtype) for name, value in graph.constants.items()}
    for name in graph.inputs:
        shapes[name], dtypes[name] = graph.shapes[name], graph.dtypes[name]
    wanted = [output for node in graph.nodes for output in node.outputs if output]

    def measure(names: Sequence[str]) -> None:
        values = _measured(graph, names)
        shapes.update({name: tuple(value.shape) for name, value in values.items()})
        dtypes.update({name: str(value.dtype) for name, value in values.items()})

    disputed = [output for node in graph.nodes if _is_disputed(node) for output in node.outputs if output]
    if disputed:
        measure(disputed)
    found_shapes, found_types = _inferred(graph, shapes, dtypes, disputed)
    shapes.update(found_shapes)
    dtypes.update(found_types)
    open_values = [name for name in wanted if name not in shapes]
    if open_values:
        measure(open_values)
    return replace(graph, shapes=shapes, dtypes=dtypes)


def _is_disputed(node: Node) -> bool:
    """Whether ONNX and ONNX Runtime may count the positions of the node's result differently: windows that begin outside, asked sizes."""
    automatic = str(node.attribute("auto_pad", "NOTSET")) in ("SAME_UPPER", "SAME_LOWER")
    if node.op in ("MaxPool", "AveragePool", "LpPool"):
        kernel = node.attribute("kernel_shape")
        strides = node.attribute("strides", ()) or (1,) * len(kernel)
        usual = max(node.attribute("dilations", ()) or (1,)) == 1 and all(s <= k for s, k in zip(strides, kernel))
        return bool(node.attribute("ceil_mode", 0)) or (automatic and not usual)
    return node.op == "ConvTranspose" and (automatic or bool(node.attribute("output_shape", ())))


def _inferred(
    graph: Graph, shapes: Mapping[str, Shape], dtypes: Mapping[str, str], measured: Sequence[str]
) -> tuple[dict[str, Shape], dict[str, str]]:
    """What ONNX infers of the values, given those `measured`: the nodes that make them are left out."""
    large = {k for k, v in graph.constants.items() if v.size > _SMALL or v.dtype.kind == "f"}
    inputs = [(name, shapes[name], dtypes[name]) for name in (*graph.inputs, *sorted(large), *measured)]
    small = {k: v for k, v in graph.constants.items() if k not in large}
    nodes = [node for node in graph.nodes if not set(measured).intersection(node.outputs)]
    proto = to_proto(nodes, inputs, [], small, graph.opset, graph.name)
    try:
        proto = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except Exception as error:
        raise ModelError(f"the shapes of the network cannot be worked out: {runtime.first_line(error)}") from error
    found: dict[str, Shape] = {}
    types: dict[str, str] = {}
    for value in proto.graph.value_info:
        tensor = value.type.tensor_type
        extents = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        if tensor.HasField("shape") and tensor.elem_type and all(e >= 0 for e in extents):
            found[value.name] = tuple(int(e) for e in extents)
            types[value.name] = numpy_type(tensor.elem_type)
    return found, types


def _measured(graph: Graph, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Values of one run on random input; an operator whose result is not an array stops it with a ModelError."""
    proto = graph_to_proto(drop_dead(replace(graph, outputs=tuple(names))), names)
    for value in proto.graph.output:
        value.ClearField("type")
    feeds = runtime.random_feeds([(n, graph.shapes[n], graph.dtypes[n]) for n in graph.inputs])
    values = runtime.run(proto.SerializeToString(), feeds, names)
    odd = [name for name, value in zip(names, values) if not isinstance(value, np.ndarray)]
    if odd:
        raise ModelError(f"value {odd[0]!r} is not an array; only arrays of numbers can be split")
    return dict(zip(names, values))


def check(graph: Graph, stage: str) -> Graph:
    """The graph with fresh shapes, after checking that it is well formed and that no value that survived changed shape or type.

    `stage` (a pass name) starts the message of the ModelError.
    """
    known = set(graph.inputs) | set(graph.constants) | {""}
    for node in graph.nodes:
        missing = [name for name in node.inputs if name not in known]
        if missing:
            raise ModelError(f"{stage}: node {node.name} ({node.op}) reads {missing[0]!r}, which nothing produces before it")
        again = [name for name in node.outputs if name and name in known]
        if again:
            raise ModelError(f"{stage}: node {node.name} ({node.op}) writes {again[0]!r}, which exists already")
        known.update(node.outputs)
    lost = [name for name in graph.outputs if name not in known]
    if lost:
        raise ModelError(f"{stage}: output {lost[0]!r} is not produced")
    fresh = with_shapes(graph)
    for name, shape in fresh.shapes.items():
        if name in graph.shapes and (tuple(graph.shapes[name]) != shape or graph.dtypes[name] != fresh.dtypes[name]):
            raise ModelError(
                f"{stage}: {name!r} was {graph.dtypes[name]}{list(graph.shapes[name])} and is {fresh.dtypes[name]}{list(shape)} now"
            )
    return fresh


def drop_dead(graph: Graph) -> Graph:
    """Without nodes whose results nothing reads."""
    wanted = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted.intersection(o for o in node.outputs if o):
            kept.append(node)
            wanted.update(node.inputs)
    return graph.with_nodes(reversed(kept), graph.constants)


def known_operators(graph: Graph) -> bool:
    """Whether every operator is in the table."""
    return all(ops.refusal(node.op) is None for node in graph.nodes)
