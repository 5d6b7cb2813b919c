"""`Graph` and pieces of it back to ONNX."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from he_backend.graph.element_types import element_type
from he_backend.graph.model import Graph, Node

_IR_VERSION = 8  # old enough for every ONNX Runtime that is supported


def to_proto(
    nodes: Iterable[Node],
    inputs: Sequence[tuple[str, Sequence[Any] | None, str]],
    outputs: Sequence[tuple[str, Sequence[Any] | None, str]],
    constants: Mapping[str, np.ndarray],
    opset: int,
    name: str = "graph",
) -> onnx.ModelProto:
    """An ONNX model of these nodes. Inputs and outputs are (name, shape or None, numpy type); a shape may hold symbolic sizes."""
    values = [[helper.make_tensor_value_info(n, element_type(t), s) for n, s, t in group] for group in (inputs, outputs)]
    graph = helper.make_graph(
        [_node(node) for node in nodes],
        name,
        values[0],
        values[1],
        [numpy_helper.from_array(np.ascontiguousarray(v).reshape(np.shape(v)), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="he_nn")
    model.ir_version = _IR_VERSION if opset < 19 else 9 if opset < 21 else 10
    return model


def _node(node: Node) -> onnx.NodeProto:
    proto = helper.make_node(node.op, list(node.inputs), list(node.outputs), name=node.name)
    for key, value in node.attributes.items():
        if isinstance(value, (list, tuple)) and not len(value):
            proto.attribute.append(onnx.AttributeProto(name=key, type=onnx.AttributeProto.INTS))
        else:
            proto.attribute.append(helper.make_attribute(key, value))
    return proto


def graph_to_proto(graph: Graph, outputs: Sequence[str] | None = None, free_rows: bool = False) -> onnx.ModelProto:
    """The whole graph as ONNX; `free_rows` leaves axis 0 of the inputs open, `outputs` asks for other values than the graph's."""
    inputs = []
    for name in graph.inputs:
        shape: list[Any] = list(graph.shapes[name])
        if free_rows:
            shape[0] = "rows"
        inputs.append((name, shape, graph.dtypes[name]))
    wanted = [(name, None, graph.dtypes.get(name, "float32")) for name in (graph.outputs if outputs is None else outputs)]
    return to_proto(graph.nodes, inputs, wanted, graph.constants, graph.opset, graph.name)


def node_from_proto(proto: onnx.NodeProto, name: str) -> Node:
    """A node with its attributes as plain values; tensors stay TensorProto, subgraphs GraphProto."""
    attributes = {a.name: _attribute(a) for a in proto.attribute}
    return Node(proto.op_type, name, tuple(proto.input), tuple(proto.output), attributes)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return tuple(value)
    return value


def array_of(tensor: TensorProto) -> np.ndarray:
    """The tensor's values."""
    return numpy_helper.to_array(tensor)
