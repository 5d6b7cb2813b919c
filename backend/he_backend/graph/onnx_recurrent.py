"""Recurrent nodes in a model file: batch-first ones (layout 1), which ONNX Runtime has no kernels for, become time-first ones."""

from __future__ import annotations

import onnx
from onnx import helper

from he_backend.graph.ops import RECURRENT

_INPUTS = {0: (1, 0, 2), 5: (1, 0, 2), 6: (1, 0, 2)}  # x, initial hidden and cell state
_OUTPUTS = ((2, 0, 1, 3), (1, 0, 2), (1, 0, 2))  # [time, directions, batch, hidden] and the last states


def time_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """y = LSTM(x; layout 1)   ->   y = Transpose(LSTM(Transpose(x); layout 0)). Also GRU and RNN, and initial and last states."""
    nodes: list[onnx.NodeProto] = []
    changed = False
    for node in model.graph.node:
        layout = [a for a in node.attribute if a.name == "layout"]
        if node.op_type not in RECURRENT or node.domain not in ("", "ai.onnx") or not layout or layout[0].i != 1:
            nodes.append(node)
            continue
        changed = True
        nodes += _transposed(node)
    if not changed:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def _transposed(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    first = next(name for name in node.output if name)
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    kept = [attribute for attribute in inner.attribute if attribute.name != "layout"]
    del inner.attribute[:]
    inner.attribute.extend(kept)
    before, after = [], []
    for position, order in _INPUTS.items():
        if position < len(node.input) and node.input[position]:
            inner.input[position] = f"{first}/time_first/{position}"
            before.append(helper.make_node("Transpose", [node.input[position]], [inner.input[position]], perm=order))
    for position, name in enumerate(node.output):
        if name:
            inner.output[position] = f"{name}/time_first"
            after.append(helper.make_node("Transpose", [inner.output[position]], [name], perm=_OUTPUTS[position]))
    for position, new in enumerate((*before, *after)):
        new.name = f"{node.name or first}/time_first{position}"
    return [*before, inner, *after]
