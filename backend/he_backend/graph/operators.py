"""What can be told of a model's operators before anything is known of its shapes: all that cannot be run, at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from he_backend.errors import ModelError, Unsupported
from he_backend.graph import ops

_STANDARD = ("", "ai.onnx")
_FUSED_DOMAINS = ("com.microsoft", "com.microsoft.nchwc")
_FLOATING = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
# Not affine, and no rewrite takes weights out of them, whatever the shapes are.
_WEIGHT_FREE = frozenset(["Pow", "Mod", "Softmax", "ScatterND", "ScatterElements", "TopK", "CumSum", "BitShift", "Xor", "Or", "And"])


def operator_problems(model: onnx.ModelProto) -> list[Unsupported]:
    """Every node of the model that cannot be run whatever its operands are, in order."""
    version = opset_of(model)
    learned = {t.name: int(np.prod(t.dims, dtype=np.int64)) for t in model.graph.initializer if t.data_type in _FLOATING}
    found = []
    for position, node in enumerate(model.graph.node):
        problem = _problem(node, version, learned)
        if problem:
            found.append(Unsupported(label(node, position), node.op_type, problem.reason, problem.instead))
    return found


def is_operator(op_type: str, version: int) -> bool:
    """Whether ONNX itself has the operator in that opset. (`onnx.defs.has` takes no version before onnx 1.13.)"""
    try:
        onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return False
    return True


def is_undefined(node: Any, version: int) -> bool:
    """Whether ONNX itself does not define the node's operator, so that nothing can be told of its results."""
    return node.domain not in _STANDARD or (not is_operator(node.op_type, version) and node.op_type not in ops.REWRITTEN)


def with_operators(error: ModelError, model: onnx.ModelProto) -> ModelError:
    """The error with every other operator that cannot be run: a user mends a model once, not one message at a time."""
    told = {problem.node for problem in error.problems}
    more = [problem for problem in operator_problems(model) if problem.node not in told]
    if not more:
        return error
    summary = error.summary if error.problems else f"{error.summary}; and these cannot be run:"
    return type(error)(summary, [*error.problems, *more])


def _problem(node: Any, version: int, learned: dict[str, int]) -> ops.Refusal | None:
    if node.domain in _FUSED_DOMAINS:
        return ops.Refusal(
            "is a fused operator of ONNX Runtime, made by its optimizer",
            "take the model as it was before optimising; it is optimised here as far as it helps",
        )
    if node.domain not in _STANDARD:
        return ops.Refusal(f"comes from the custom domain {node.domain!r}", "export with standard ONNX operators only")
    if is_undefined(node, version):
        return ops.Refusal(f"is not an ONNX operator of opset {version}", "export with a newer opset, or write it with basic operators")
    if node.op_type in ops.REFUSED:
        # ONNX Runtime decides an If whose condition is constant.
        return ops.REFUSED[node.op_type] if ops.REFUSED[node.op_type] is not ops.REFUSED["If"] else None
    weights = [name for name in node.input if learned.get(name, 0) > 1]
    if node.op_type in _WEIGHT_FREE and weights:
        return ops.Refusal(
            f"is not affine in the data and has {learned[weights[0]]} weights ({weights[0]}), which would have to travel to the data owner",
            "use it without weights, or with one number",
        )
    return None


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
