"""Networks nobody here made: the 80 layer models and mnist_8, against the outputs their publishers computed."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.errors import ModelError
from he_backend.graph import Reference, convert, run_program
from tests.layer_models import layer_cases, mnist_8_cases, rows_of

WANTED = 60


def matches(program, case):
    """Whether the split program and the plain reference both give the published outputs to float32 rounding."""
    rows = rows_of(program, case)
    for results in (run_program(program, rows), Reference(program).run(rows)):
        for got, wanted in zip(results.values(), case.outputs):
            scale = max(1.0, float(np.abs(wanted).max()))
            if got.size != wanted.size or float(np.abs(got.reshape(wanted.shape) - wanted).max()) > 1e-5 * scale:
                return False
    return True


def test_layer_models_match_or_are_refused_with_a_reason():
    matched, refused, wrong = [], {}, []
    for case in layer_cases():
        try:
            program = convert(case.model, name=case.name)
        except ModelError as error:
            refused[case.name] = error.problems
            continue
        (matched if matches(program, case) else wrong).append(case.name)
    print(f"layer models: {len(matched)} match, {len(refused)} refused ({', '.join(refused)}), {len(wrong)} wrong")
    assert wrong == []
    assert all(problems for problems in refused.values())
    assert len(matched) >= WANTED


def test_refused_embeddings_match_when_published():
    cases = [case for case in layer_cases() if "Embedding" in case.name]
    assert len(cases) == 2
    assert all(matches(convert(case.model, public_embeddings=True), case) for case in cases)


@pytest.mark.parametrize("index", range(3))
def test_mnist_8(index):
    case = mnist_8_cases()[index]
    program = convert(case.model)
    assert matches(program, case)
    assert program.rounds == 3
    assert all(step.batched for step in program.steps)


def test_mnist_8_runs_on_many_rows_at_once():
    cases = mnist_8_cases()
    program = convert(cases[0].model)
    rows = np.concatenate([case.inputs[0] for case in cases])
    wanted = np.concatenate([case.outputs[0] for case in cases])
    reference = Reference(program)
    assert reference.batched
    for results in (run_program(program, rows), reference.run(rows)):
        got = results[program.outputs[0].name]
        assert float(np.abs(got - wanted).max()) <= 1e-5 * float(np.abs(wanted).max())
