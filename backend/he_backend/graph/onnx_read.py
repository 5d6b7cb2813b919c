"""A model file, bytes or ModelProto -> a ModelProto that is whole, of bounded size, and of an operator set that ONNX Runtime runs."""

from __future__ import annotations

import os
from typing import Any, Mapping, Union

import onnx
from google.protobuf.message import DecodeError
from onnx import helper, version_converter

from he_backend.errors import ModelError
from he_backend.graph.onnx_norms import plain_norms
from he_backend.graph.onnx_recurrent import time_first
from he_backend.graph.operators import is_undefined, operator_problems, opset_of

Source = Union[str, "os.PathLike[str]", bytes, bytearray, onnx.ModelProto]

MAX_MODEL_BYTES = 1 << 30
OLDEST_OPSET = 7
_STANDARD = ("", "ai.onnx")
_SIZES = ("Shape", "Size")


def read(source: Source) -> onnx.ModelProto:
    """The model as a fresh ModelProto. Raises ModelError when it is missing, too large, not ONNX, or not whole."""
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    else:
        model = _parse(_bytes(source))
    _check_whole(model)
    if len(model.functions):
        model = _inline(model)
    _check_operators(model)
    model = plain_norms(time_first(_modern(model)))
    _check_outputs(model)
    return model


def _check_outputs(model: onnx.ModelProto) -> None:
    """Every output must depend on an input's values (a subgraph may read any value, so nodes with one count as dependent)."""
    reached = {value.name for value in model.graph.input}
    sized: set[str] = set()  # what depends on their sizes alone
    for node in model.graph.node:
        nested = any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
        if node.op_type in _SIZES and node.domain in _STANDARD:
            sized.update(node.output)
        elif nested or reached.intersection(node.input):
            reached.update(node.output)
        elif sized.intersection(node.input):
            sized.update(node.output)
    fixed = [value.name for value in model.graph.output if value.name not in reached]
    if fixed and len(model.graph.input):
        reason = "tells sizes of arrays and nothing of their values" if fixed[0] in sized else "does not depend on any input"
        raise ModelError(f"output {fixed[0]!r} {reason}; remove it from the model")


def _bytes(source: Any) -> bytes:
    if isinstance(source, (bytes, bytearray)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if not os.path.isfile(path):
            raise ModelError(f"model file {path!r} does not exist; give the path of an .onnx file")
        if os.path.getsize(path) > MAX_MODEL_BYTES:
            raise ModelError(f"model file {path!r} is larger than {MAX_MODEL_BYTES} bytes")
        with open(path, "rb") as file:
            data = file.read()
    else:
        raise ModelError(f"a model is an .onnx path, bytes or an onnx.ModelProto, not {type(source).__name__}")
    if len(data) > MAX_MODEL_BYTES:
        raise ModelError(f"the model is larger than {MAX_MODEL_BYTES} bytes")
    return data


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError("this is not an ONNX model (its protobuf does not parse): it may be truncated or of another kind") from error
    return model


def _check_whole(model: onnx.ModelProto) -> None:
    if not model.HasField("graph") or not len(model.graph.output):
        raise ModelError("this is not an ONNX model: it has no graph, or the graph has no outputs")
    if not len(model.graph.node):
        raise ModelError("the model has no operators: there is nothing to compute")
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        tensors += [a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise ModelError(
                f"constant {tensor.name!r} is stored in another file; save the model as one file "
                "(onnx.save(onnx.load(path), out, save_as_external_data=False))"
            )
    if len(model.graph.sparse_initializer):
        raise ModelError("the model has sparse constants; save them dense")


def _inline(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        raise ModelError(f"the functions inside the model cannot be expanded: {error}") from error


def _check_operators(model: onnx.ModelProto) -> None:
    """Refuse what ONNX itself does not define: no schema, no shapes, nothing to check against."""
    if any(is_undefined(node, opset_of(model)) for node in model.graph.node):
        more = open_sizes(model)
        summary = f"{more}; and these cannot be run:" if more else "the model has operators that cannot be run:"
        raise ModelError(summary, operator_problems(model))


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """Opset 7 at least, because ONNX Runtime has kernels only from there; and no initializer that is an input too."""
    if opset_of(model) < OLDEST_OPSET:
        try:
            ranks = _ranks(model)
            model = version_converter.convert_version(model, OLDEST_OPSET)
            _channel_slopes(model, ranks)
        except Exception as error:
            raise ModelError(
                f"the model uses opset {opset_of(model)} and cannot be converted to {OLDEST_OPSET}: {error}; export it again"
            ) from error
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)  # from there initializers need not be inputs
    version = opset_of(model)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", version))
    return model


def open_sizes(model: onnx.ModelProto, dims: Mapping[str, int] | None = None) -> str:
    """What to say of axes other than the row axis whose size nothing gives; "" when there are none."""
    missing, example = [], ""
    for value in model.graph.input:
        for axis, extent in enumerate(value.type.tensor_type.shape.dim):
            symbol = extent.dim_param
            known = (extent.HasField("dim_value") and extent.dim_value > 0) or not axis
            if known or f"{value.name}:{axis}" in (dims or {}) or (symbol and symbol in (dims or {})):
                continue
            missing.append(f"input {value.name!r} axis {axis}" + (f" ({symbol!r})" if symbol else ""))
            example = example or symbol or f"{value.name}:{axis}"
    if not missing:
        return ""
    return (
        f"these sizes are open: {', '.join(missing)}; encrypted shapes are fixed, so give them, for example "
        f"dims={{{example!r}: 128}} (only axis 0 may stay open: it counts rows)"
    )


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Number of axes of every value whose shape onnx can infer."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}


def _channel_slopes(model: onnx.ModelProto, ranks: Mapping[str, int]) -> None:
    """Before opset 7 a PRelu slope [C] meant one per channel (axis 1); since then it broadcasts from the right: make it [C, 1, …]."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "PRelu" or node.input[1] not in tensors:
            continue
        slope = tensors[node.input[1]]
        if len(slope.dims) == 1 and slope.dims[0] > 1 and ranks.get(node.input[0], 0) > 2:
            slope.dims.extend([1] * (ranks[node.input[0]] - 2))
