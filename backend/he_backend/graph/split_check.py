"""The last look at a split network: every value is there when it is read, and every round's affine map gives what ONNX Runtime gives.

Steps are compared with ONNX Runtime where they are built; with the rounds compared here nothing of a program is taken on trust.
"""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from he_backend.errors import CapacityError, ModelError
from he_backend.graph.affine import AffineMap, lower
from he_backend.graph.model import Graph
from he_backend.graph.program import Program, Segment, Step

_VALUES_AT_ONCE = 1 << 22  # gathered values held at a time
# Of the sum of magnitudes that an element adds up: float32 rounds each by 6e-8, and layers multiplied into one add up in another order.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2
_SMALL = 1 << 20  # multiply-adds of a round that is compared on every run; a larger one is on one, which is enough and costs less


def check_program(program: Program, graph: Graph, traces: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Raises ModelError, naming the output and the round, when the split network computes something else than the graph.

    traces: the graph's values, by name, in runs of ONNX Runtime on one row each.
    """
    _check_order(program)
    for segment in program.segments:
        wrong = _wrong_value(segment, program, traces)
        if wrong:
            raise ModelError(
                f"output {_reached(graph, wrong)!r} would be wrong: {segment.name} gives something else for {wrong!r} than ONNX Runtime; "
                "this is an error of the splitter: please report it with the model"
            )


def _check_order(program: Program) -> None:
    """Every step and segment reads what was there before it."""
    known = {spec.name for spec in program.inputs}
    for index, step in enumerate(program.steps):
        parts: list[Step | Segment] = [step, *program.segments[index : index + 1]]
        for part in parts:
            missing = [name for name in part.inputs if name not in known]
            if missing:
                raise ModelError(f"round {index + 1} reads {missing[0]!r} before it is computed; please report it with the model")
            known.update(part.outputs)
    lost = [spec.name for spec in program.outputs if spec.name not in known]
    if lost:
        raise ModelError(f"output {lost[0]!r} is not computed; please report it with the model")


def _wrong_value(segment: Segment, program: Program, traces: Sequence[Mapping[str, np.ndarray]]) -> str:
    """The first value that the segment's affine map gets wrong; "" when there is none, or when no run has finite values there."""
    named = (*segment.inputs, *segment.outputs)
    finite = [one for one in traces if all(np.isfinite(np.asarray(one[name], np.float64)).all() for name in named)]
    if not finite:
        return ""
    try:
        affine = lower(segment, program.shapes)
    except CapacityError:
        return ""  # planning says so, with what can be done about it
    except (AssertionError, IndexError, ValueError) as error:
        raise ModelError(f"{segment.name} cannot be made an affine map ({error}); please report it with the model") from error
    rows = finite if affine.nonzeros <= _SMALL else finite[:1]
    return next((wrong for trace in rows for wrong in [_wrong_in(segment, affine, trace)] if wrong), "")


def _wrong_in(segment: Segment, affine: AffineMap, trace: Mapping[str, np.ndarray]) -> str:
    """The first value that the affine map gets wrong on one row; "" when there is none."""
    got, size = _with_sizes(affine, [np.asarray(trace[name], np.float64).ravel() for name in segment.inputs])
    start = 0
    for name, count in zip(segment.outputs, affine.out_sizes):
        part = slice(start, start + count)
        tolerance = _HALF_TOLERANCE if trace[name].dtype == np.float16 else _TOLERANCE
        error = np.abs(got[part] - np.asarray(trace[name], np.float64).ravel())
        if np.any(error > tolerance * size[part] + np.finfo(np.float32).tiny):
            return name
        start += count
    return ""


def _with_sizes(affine: AffineMap, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One row's outputs [elements], and of each the sum of the magnitudes that it adds up."""
    total, size = np.array(affine.bias, np.float64), np.abs(affine.bias)
    for block in affine.blocks:
        values = np.append(inputs[block.source], 0.0)  # index -1 reads the zero at the end
        magnitudes = np.abs(block.weights)
        groups, positions, depth = block.gather.shape
        step = max(1, _VALUES_AT_ONCE // max(1, groups * depth))
        for start in range(0, positions, step):
            read = values[block.gather[:, start : start + step]]
            places = block.scatter[:, start : start + step].ravel()
            total += np.bincount(places, np.matmul(read, block.weights).ravel(), len(total))
            size += np.bincount(places, np.matmul(np.abs(read), magnitudes).ravel(), len(total))
    return total, size


def _reached(graph: Graph, value: str) -> str:
    """The first output of the network that depends on a value."""
    reached = {value}
    for node in graph.nodes:
        if reached.intersection(node.inputs):
            reached.update(node.outputs)
    return next((name for name in graph.outputs if name in reached), value)
