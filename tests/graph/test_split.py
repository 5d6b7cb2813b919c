from __future__ import annotations

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from onnx import numpy_helper

from he_backend.graph import convert, run_program
from he_backend.graph.steps import check_step
from tests.graph.networks import networks, plain, rows_for


def close(got, wanted):
    """Equal to float32 rounding of sums in another order; what overflows does so in both."""
    assert got.shape == wanted.shape
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(got[~finite], wanted[~finite])
    scale = max(1.0, float(np.abs(wanted[finite]).max(initial=0.0)))
    assert float(np.abs(got[finite] - wanted[finite]).max(initial=0.0)) <= 2e-4 * scale


def only_output(program, rows):
    results = run_program(program, rows)
    return results[program.outputs[0].name]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=networks())
def test_random_networks_match_onnxruntime(model):
    rows = rows_for(model)
    program = convert(model)
    close(only_output(program, rows), plain(model, rows))
    assert_no_weights_travel(program)


def assert_no_weights_travel(program):
    """No floating constant of more than one element in any step, but for the scales of a Resize."""
    for step in program.steps:
        if not step.model:
            continue
        graph = onnx.ModelProto.FromString(step.model).graph
        scales = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:]}
        for tensor in graph.initializer:
            value = numpy_helper.to_array(tensor)
            assert value.dtype.kind != "f" or value.size <= 1 or tensor.name in scales, tensor.name
        check_step(step.model)
