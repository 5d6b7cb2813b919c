"""A model file, bytes or ModelProto -> a ModelProto that is whole, of bounded size, and of an operator set that ONNX Runtime runs."""

from __future__ import annotations

import os
from typing import Any, Mapping, Union

import onnx
from google.protobuf.message import DecodeError
from onnx import helper, version_converter

from he_backend.errors import ModelError, Unsupported
from he_backend.graph import ops
from he_backend.graph.onnx_recurrent import time_first

Source = Union[str, "os.PathLike[str]", bytes, bytearray, onnx.ModelProto]

MAX_MODEL_BYTES = 1 << 30
OLDEST_OPSET = 7
_STANDARD = ("", "ai.onnx")
_FUSED_DOMAINS = ("com.microsoft", "com.microsoft.nchwc")


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
    model = time_first(_modern(model))
    _check_outputs(model)
    return model


def _check_outputs(model: onnx.ModelProto) -> None:
    """Every output must depend on an input (a subgraph may read any value, so nodes with one count as dependent)."""
    reached = {value.name for value in model.graph.input}
    for node in model.graph.node:
        nested = any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
        if nested or reached.intersection(node.input):
            reached.update(node.output)
    fixed = [value.name for value in model.graph.output if value.name not in reached]
    if fixed and len(model.graph.input):
        raise ModelError(f"output {fixed[0]!r} does not depend on any input; remove it from the model")


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
    version = opset_of(model)
    problems = []
    for position, node in enumerate(model.graph.node):
        if node.domain in _FUSED_DOMAINS:
            problems.append(
                Unsupported(
                    label(node, position),
                    node.op_type,
                    "is a fused operator of ONNX Runtime, made by its optimizer",
                    "take the model as it was before optimising; it is optimised here as far as it helps",
                )
            )
        elif node.domain not in _STANDARD:
            problems.append(
                Unsupported(
                    label(node, position),
                    node.op_type,
                    f"comes from the custom domain {node.domain!r}",
                    "export with standard ONNX operators only",
                )
            )
        elif not onnx.defs.has(node.op_type, version) and node.op_type not in ops.REWRITTEN:
            problems.append(Unsupported(label(node, position), node.op_type, f"is not an ONNX operator of opset {version}"))
        else:
            refused = ops.REFUSED.get(node.op_type)
            if refused and refused is not ops.REFUSED["If"]:  # ONNX Runtime decides an If whose condition is constant
                problems.append(Unsupported(label(node, position), node.op_type, refused.reason, refused.instead))
    if any(p.op not in ops.REFUSED for p in problems):
        raise ModelError("the model has operators that cannot be run:", problems)


def label(node: Any, position: int) -> str:
    """How a message names a node: its name, or its place and first output when it has none."""
    return node.name or f"#{position} ({next((o for o in node.output if o), '')})"


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set. Raises ModelError when the model names none."""
    versions = [int(entry.version) for entry in model.opset_import if entry.domain in _STANDARD]
    if not versions:
        raise ModelError("the model does not say which ONNX operator set it uses (opset_import is empty)")
    if max(versions) > onnx.defs.onnx_opset_version():
        raise ModelError(
            f"the model uses opset {max(versions)}; this onnx package knows up to {onnx.defs.onnx_opset_version()}: "
            "export with an older opset or install a newer onnx"
        )
    return max(versions)


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
