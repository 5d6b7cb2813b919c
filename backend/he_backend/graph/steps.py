"""Client steps on the data owner's side: checked before use, because a peer sent them, and run by ONNX Runtime."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from he_backend.errors import ModelError, ProtocolError, Unsupported
from he_backend.graph import ops, runtime
from he_backend.graph.element_types import numpy_type
from he_backend.graph.model import size_of
from he_backend.graph.program import Step

PUBLIC = "public:"  # names of constants that their owner published begin so; only these may hold several floating numbers
MAX_STEP_BYTES = 64 << 20
MAX_STEP_NODES = 20_000
MAX_ELEMENTS = 1 << 27  # of any value for one row
_SCALES = {"Resize": (1, 2), "Upsample": (1,)}  # floating operands that are sizes, not weights
_MOST_SCALES = 16
_VALUES_AT_ONCE = 1 << 23  # elements of the inputs and outputs of a step held by one call


def check_step(model: bytes) -> None:
    """Refuse a client step that could do anything but compute: what a peer sends is checked before ONNX Runtime sees it.

    Allowed: operators of `ops.STEP_OPS` from the standard domain, without subgraphs, other files or functions; floating constants of
    one element (several only in tables named "public:…"); a bounded number of nodes, bytes and elements.
    Raises ProtocolError when it is no ONNX network or too large, ModelError listing every node that is not allowed.
    """
    if len(model) > MAX_STEP_BYTES:
        raise ProtocolError(f"a client step has {len(model)} bytes; at most {MAX_STEP_BYTES} are allowed")
    try:
        proto = onnx.ModelProto.FromString(model)
    except DecodeError:
        raise ProtocolError("a client step is not an ONNX network") from None
    graph = proto.graph
    if not len(graph.node) or not len(graph.output):
        raise ProtocolError("a client step has no operators or no outputs")
    if len(graph.node) > MAX_STEP_NODES:
        raise ProtocolError(f"a client step has {len(graph.node)} operators; at most {MAX_STEP_NODES} are allowed")
    if len(proto.functions) or len(proto.training_info) or len(graph.sparse_initializer) or len(graph.quantization_annotation):
        raise ProtocolError("a client step may not have functions, training information, sparse or quantised constants")
    if any(entry.domain not in ("", "ai.onnx") for entry in proto.opset_import) or not len(proto.opset_import):
        raise ProtocolError("a client step may use the standard operator set only")
    problems = [problem for tensor in graph.initializer for problem in _tensor_problems(tensor, _scales(graph))]
    for node in graph.node:
        problems += _node_problems(node)
    if problems:
        raise ModelError("a client step is not allowed:", problems)
    _check_elements(proto)


def _scales(graph: onnx.GraphProto) -> set[str]:
    """Constants that nothing reads but a Resize, as its scales."""
    scales: set[str] = set()
    others: set[str] = set()
    for node in graph.node:
        for position, name in enumerate(node.input):
            (scales if position in _SCALES.get(node.op_type, ()) else others).add(name)
    return scales - others


def _tensor_problems(tensor: onnx.TensorProto, scales: set[str]) -> list[Unsupported]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
        return [Unsupported(tensor.name, "constant", "is stored in another file")]
    try:
        value = numpy_helper.to_array(tensor)
    except Exception:  # noqa: BLE001 - whatever malformed bytes cause
        return [Unsupported(tensor.name, "constant", "cannot be read")]
    if value.dtype.kind not in "fiub":
        return [Unsupported(tensor.name, "constant", f"has type {value.dtype}")]
    few = _MOST_SCALES if tensor.name in scales else 1
    if value.dtype.kind == "f" and value.size > few and not tensor.name.startswith(PUBLIC):
        return [Unsupported(tensor.name, "constant", f"has {value.size} floating numbers: weights do not belong in a client step")]
    return []


def _node_problems(node: onnx.NodeProto) -> list[Unsupported]:
    name = node.name or (node.output[0] if len(node.output) else "")
    if node.domain not in ("", "ai.onnx"):
        return [Unsupported(name, node.op_type, f"comes from the domain {node.domain!r}")]
    if node.op_type not in ops.STEP_OPS:
        return [Unsupported(name, node.op_type, "is not an operator that a client step may contain")]
    found = []
    for attribute in node.attribute:
        kind = attribute.type
        if kind == onnx.AttributeProto.TENSOR:
            found += _tensor_problems(attribute.t, set())
        elif kind == onnx.AttributeProto.FLOATS and len(attribute.floats) > _MOST_SCALES:
            found.append(Unsupported(name, node.op_type, f"its attribute {attribute.name} holds {len(attribute.floats)} numbers"))
        elif kind not in _PLAIN_ATTRIBUTES or attribute.ref_attr_name:
            found.append(Unsupported(name, node.op_type, f"its attribute {attribute.name} is not a number, text or tensor"))
    return found


_PLAIN_ATTRIBUTES = frozenset(
    getattr(onnx.AttributeProto, kind) for kind in ("FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS")
)


def _check_elements(proto: onnx.ModelProto) -> None:
    """No value whose size is known before running may be larger than MAX_ELEMENTS for one row."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # noqa: BLE001 - onnx's C++ raises bare classes
        raise ProtocolError("the shapes of a client step contradict each other") from None
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        extents = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if any(extent < 0 for extent in extents) or size_of(extents) > MAX_ELEMENTS:
            raise ProtocolError(f"value {value.name!r} of a client step is larger than {MAX_ELEMENTS} elements per row")


class StepRunner:
    """Runs one step on arrays [rows, *shape]; the ONNX Runtime session is made once. Raises ModelError when it cannot be."""

    def __init__(self, step: Step, threads: int = 1) -> None:
        self._step = step
        self._session: Any = runtime.open_session(step.model, threads) if step.model else None
        # [(name, sizes of the tensor for one row, type)]; the leading size counts `lead` tensor rows per row.
        self._inputs = _described(step.model, "input")
        self._outputs = _described(step.model, "output")

    def run(self, values: Mapping[str, np.ndarray], rows: int | None = None) -> dict[str, np.ndarray]:
        """The step's outputs, name -> [rows, *shape], from its inputs; other entries of `values` are ignored.

        rows: how many rows there are; taken from the first input when left out. Raises ModelError when an operator fails.
        """
        if self._session is None:
            return {}
        if rows is None:
            rows = len(values[self._step.inputs[0]]) if self._step.inputs else len(next(iter(values.values())))
        chunk = self._rows_at_once() if self._step.batched else 1
        parts = [self._run_rows(values, start, min(rows, start + chunk)) for start in range(0, max(rows, 1), chunk)]
        return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(self._step.outputs)}

    def _rows_at_once(self) -> int:
        each = sum(size_of(shape) for _, shape, _ in (*self._inputs, *self._outputs))
        return max(1, _VALUES_AT_ONCE // max(1, each))

    def _run_rows(self, values: Mapping[str, np.ndarray], start: int, stop: int) -> list[np.ndarray]:
        count = stop - start
        feeds = {}
        for name, shape, dtype in self._inputs:
            array = np.asarray(values[name][start:stop], dtype)
            feeds[name] = array.reshape((count * shape[0], *shape[1:]) if shape else ())
        quiet = runtime.quiet()
        try:
            results = self._session.run(list(self._step.outputs), feeds, quiet)
        except Exception as error:
            raise ModelError(f"a client step failed: {runtime.first_line(error)}") from error
        arrays = []
        for result, (name, shape, _) in zip(results, self._outputs):
            if result.size != count * size_of(shape):
                raise ModelError(f"a client step made {result.size} elements of {name!r} for {count} rows, not {count * size_of(shape)}")
            if self._step.batched and result.shape != (count * shape[0], *shape[1:]):
                raise ModelError(f"a client step made {name!r} of shape {result.shape} for {count} rows")
            arrays.append(result.reshape(count, *(shape[1:] if shape and shape[0] == 1 else shape)))
        return arrays


def _described(model: bytes, side: str) -> list[tuple[str, tuple[int, ...], str]]:
    """(name, sizes for one row, numpy type) of the inputs or outputs of a step; "rows*7" counts 7 for one row."""
    if not model:
        return []
    found = []
    for value in getattr(onnx.ModelProto.FromString(model).graph, side):
        shape = []
        for extent in value.type.tensor_type.shape.dim:
            symbol = extent.dim_param
            each = symbol.partition("*")[2] or "1"
            if not each.isdecimal() or len(each) > 9:
                raise ModelError(f"value {value.name!r} of a client step has an axis {symbol[:40]!r}; rows or rows*NUMBER is expected")
            shape.append(int(extent.dim_value) if not symbol else int(each))
        found.append((value.name, tuple(shape), numpy_type(value.type.tensor_type.elem_type)))
    return found
