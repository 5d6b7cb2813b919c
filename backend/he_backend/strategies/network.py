"""`Network`: an ONNX network as a plain value that can be trained: its nodes, what is learned in it, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from he_backend.errors import ModelError

GELU = "Gelu"


@dataclass(frozen=True)
class Op:
    """One operator. An input named "" is an optional input left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A network with one input and the scores as its first output; nodes are in topological order."""

    proto: onnx.ModelProto = field(repr=False)  # the model it was read from: its inputs, outputs, opset and metadata
    ops: tuple[Op, ...]
    learned: Mapping[str, np.ndarray] = field(repr=False)  # float32
    constants: Mapping[str, np.ndarray] = field(repr=False)

    @property
    def input(self) -> str:
        return str(self.proto.graph.input[0].name)

    @property
    def output(self) -> str:
        return str(self.proto.graph.output[0].name)


def read(model: bytes) -> Network:
    """The network of an ONNX file. Float initializers are what is learned; float16 ones count as the float32 they are cast to.

    x/√2 -> Erf -> +1 -> ·x -> ·0.5   ->   Gelu (the exporter's spelling of it; the operator itself is younger than opset 17).
    Raises ModelError when the network has several inputs, or initializers among its inputs only.
    """
    proto = onnx.load_from_string(model)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    given = [value.name for value in proto.graph.input if value.name not in arrays]
    if len(given) != 1:
        raise ModelError(f"the network has {len(given)} inputs ({', '.join(given)}); a strategy that trains it takes networks with one")
    learned = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    constants = {name: array for name, array in arrays.items() if array.dtype.kind != "f"}
    ops = []
    for node in proto.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
        elif node.op_type == "Cast" and node.input[0] in learned and attributes["to"] == onnx.TensorProto.FLOAT:
            learned[node.output[0]] = learned.pop(node.input[0])
        else:
            ops.append(Op(node.op_type, tuple(node.input), tuple(node.output), attributes))
    learned = {name: np.array(array, np.float32) for name, array in learned.items()}
    used = {name for op in ops for name in op.inputs}
    kept = tuple(_with_gelu(ops, constants))
    del proto.graph.node[:], proto.graph.initializer[:]
    return Network(proto, kept, {k: v for k, v in learned.items() if k in used}, constants)


def write(network: Network) -> bytes:
    """The network as an ONNX file."""
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    used = {name for op in network.ops for name in op.inputs}
    arrays = {name: array for name, array in {**network.constants, **network.learned}.items() if name in used}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items())
    for number, op in enumerate(network.ops):
        proto.graph.node.append(helper.make_node(op.op, op.inputs, op.outputs, name=f"{op.op}_{number}", **op.attributes))
    return bytes(proto.SerializeToString())


def _with_gelu(ops: list[Op], constants: Mapping[str, np.ndarray]) -> list[Op]:
    readers: dict[str, list[Op]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    makers = {name: op for op in ops for name in op.outputs}
    last: dict[int, Op] = {}
    gone: set[int] = set()
    for erf in ops:
        if erf.op != "Erf":
            continue
        chain = _gelu_chain(erf, makers, readers, constants)
        if chain:
            source = chain[0].inputs[0]
            last[id(chain[-1])] = Op(GELU, (source,), chain[-1].outputs)
            gone.update(id(op) for op in chain[:-1])
    return [last.get(id(op), op) for op in ops if id(op) not in gone]


def _gelu_chain(
    erf: Op, makers: Mapping[str, Op], readers: Mapping[str, list[Op]], constants: Mapping[str, np.ndarray]
) -> tuple[Op, ...] | None:
    """Div, Erf, Add, Mul, Mul of 0.5·x·(1 + erf(x/√2)); None when an Erf is part of something else."""

    def only(name: str, op: str) -> Op | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].op == op else None

    def is_constant(name: str, value: float) -> bool:
        return name in constants and constants[name].size == 1 and bool(np.isclose(float(constants[name].reshape(-1)[0]), value))

    divide = makers.get(erf.inputs[0])
    if divide is None or divide.op != "Div" or not is_constant(divide.inputs[1], 2**0.5):
        return None
    add = only(erf.outputs[0], "Add")
    if add is None or not any(is_constant(name, 1.0) for name in add.inputs):
        return None
    product = only(add.outputs[0], "Mul")
    if product is None or divide.inputs[0] not in product.inputs:
        return None
    half = only(product.outputs[0], "Mul")
    if half is None or not any(is_constant(name, 0.5) for name in half.inputs):
        return None
    return divide, erf, add, product, half
