"""Client steps as ONNX networks without weights, on many rows at once where that gives the same results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from he_backend.errors import ModelError
from he_backend.graph import ops, runtime
from he_backend.graph.model import Graph, Node
from he_backend.graph.onnx_export import graph_to_proto, to_proto
from he_backend.graph.program import Step
from he_backend.graph.steps import PUBLIC, StepRunner

_ROWS = 3  # rows on which running a step at once is compared with running it row by row


class StepNodes(NamedTuple):
    """A step before it is ONNX: values read from outside, values others read, nodes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]


def build_steps(graph: Graph, parts: Sequence[StepNodes], traces: Sequence[Mapping[str, np.ndarray]]) -> tuple[Step, ...]:
    """The steps as ONNX. A step is batched when three rows at once (those of `traces_of`) give what each row gives alone."""
    return tuple(_build(graph, part, traces) for part in parts)


def traces_of(graph: Graph, names: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """These values in runs of the whole network on random rows."""
    inputs = [(name, graph.shapes[name], graph.dtypes[name]) for name in graph.inputs]
    feeds = [runtime.random_feeds(inputs, seed) for seed in range(_ROWS)]
    wanted = [name for name in names if name not in graph.inputs]
    found = runtime.run_each(graph_to_proto(graph, wanted).SerializeToString(), feeds, wanted) if wanted else [[] for _ in feeds]
    return [{**{name: one[name] for name in names if name in one}, **dict(zip(wanted, values))} for one, values in zip(feeds, found)]


def _build(graph: Graph, part: StepNodes, traces: Sequence[Mapping[str, np.ndarray]]) -> Step:
    if not part.outputs:
        return Step((), ())
    rows = {name: _rows_of(graph, name, traces) for name in (*part.inputs, *part.outputs)}
    step = Step(part.inputs, part.outputs, _model(graph, part, batched=True), True)
    alone = replace(step, model=_model(graph, part, batched=False), batched=False)
    sized = part.inputs and all(graph.shapes[name] for name in (*part.inputs, *part.outputs))
    if sized and _same(step, rows) and (_differ(rows) or _same(step, _on_noise(alone, rows))):
        return step
    step = alone
    if not _same(step, rows):
        raise ModelError(f"the client step for {part.outputs[0]!r} does not compute what the network does; please report it with the model")
    return step


def _rows_of(graph: Graph, name: str, traces: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    return np.stack([trace[name].reshape(graph.spec(name).shape) for trace in traces])


def _same(step: Step, rows: Mapping[str, np.ndarray]) -> bool:
    """Whether the step gives the traced outputs."""
    try:
        results = StepRunner(step).run(rows, len(next(iter(rows.values()))))
    except ModelError:
        return False
    tolerance = 2e-2 if any(rows[name].dtype == np.float16 for name in step.outputs) else 1e-4
    return all(runtime.agree(results[name], rows[name], tolerance) for name in step.outputs)


def _differ(rows: Mapping[str, np.ndarray]) -> bool:
    """Whether no two of the traced rows are alike in any floating value: then mixed-up rows would be seen."""
    values = [array.reshape(len(array), -1) for array in rows.values() if array.dtype.kind == "f" and array[0].size]
    return bool(values) and all(np.any(array[i] != array[i - 1]) for array in values for i in range(len(array)))


def _on_noise(alone: Step, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs and outputs of a step run row by row, with noise for its floating inputs."""
    generator = np.random.default_rng(0)
    inputs = {name: rows[name] for name in alone.inputs}
    for name, value in inputs.items():
        if value.dtype.kind == "f":
            inputs[name] = generator.standard_normal(value.shape).astype(value.dtype)
    return {**inputs, **StepRunner(alone).run(inputs, _ROWS)}


def _model(graph: Graph, part: StepNodes, batched: bool) -> bytes:
    def described(name: str) -> tuple[str, Any, str]:
        shape: list[Any] = list(graph.shapes[name])
        if batched and shape:
            shape[0] = "rows" if shape[0] == 1 else f"rows*{shape[0]}"
        return name, shape, graph.dtypes[name]

    renamed = {name: PUBLIC + name for name in graph.public_tables}
    nodes = [replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)) for node in part.nodes]
    used = {name for node in part.nodes for name in node.inputs if name in graph.constants}
    constants = {renamed.get(name, name): graph.constants[name] for name in sorted(used)}
    outputs = [described(name) for name in part.outputs]
    return to_proto(nodes, [described(name) for name in part.inputs], outputs, constants, graph.opset, "step").SerializeToString()


def public_constants(graph: Graph, parts: Sequence[StepNodes]) -> tuple[str, ...]:
    """What of the model travels to the client in its steps: each constant's name and reason."""
    found: dict[str, str] = {}
    for part in parts:
        for node in part.nodes:
            for position, name in enumerate(node.inputs):
                value = graph.constants.get(name)
                if value is None:
                    continue
                if position in ops.SHAPE_INPUTS.get(node.op, ()):
                    continue
                if name in graph.public_tables:
                    reason = f"an embedding table of {value.size:,} numbers, published by its owner"
                elif value.dtype.kind == "f":
                    reason = f"one number of the architecture, in {node.op}"
                else:
                    reason = f"{'a mask' if value.dtype.kind == 'b' else 'indices'} in {node.op}"
                found.setdefault(name, reason)
    return tuple(f"{name}: {reason}" for name, reason in found.items())
