"""A program without encryption, in plain floating point: what every engine must come close to."""

from __future__ import annotations

from typing import Any, Mapping, Union

import numpy as np

from he_backend.graph.affine import lower
from he_backend.graph.program import Program
from he_backend.graph.steps import StepRunner

Rows = Union[np.ndarray, Mapping[str, np.ndarray]]


def run_program(program: Program, rows: Rows, dtype: Any = np.float64, threads: int = 1) -> dict[str, np.ndarray]:
    """Output name -> [rows, *shape] for rows [rows, *shape] of the one input, or by input name.

    Segments are computed in float64 and their results rounded to `dtype` on the way back to the client; steps as ONNX says.
    """
    values = by_name(program, rows)
    count = len(next(iter(values.values())))
    for index, step in enumerate(program.steps):
        values.update(StepRunner(step, threads).run(values, count))
        if index < len(program.segments):
            segment = program.segments[index]
            results = lower(segment, program.shapes).apply([values[name].reshape(count, -1) for name in segment.inputs])
            for name, result in zip(segment.outputs, results):
                values[name] = result.astype(dtype).reshape(count, *program.shapes[name])
    return {spec.name: values[spec.name].astype(spec.dtype) for spec in program.outputs}


def by_name(program: Program, rows: Rows) -> dict[str, np.ndarray]:
    """The rows as name -> array."""
    if isinstance(rows, Mapping):
        return {spec.name: np.asarray(rows[spec.name]) for spec in program.inputs}
    assert len(program.inputs) == 1, "rows of several inputs are given by name"
    return {program.inputs[0].name: np.asarray(rows)}
