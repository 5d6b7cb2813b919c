"""Networks that nobody here made, encrypted, against the outputs that came with them."""

from __future__ import annotations

import numpy as np
import pytest

import he_backend as he
from he_backend.ckks.engines import ENGINES, available
from he_backend.errors import ModelError
from tests.layer_models import layer_cases, mnist_8_cases, rows_of

# Fewest of the 80 layer models that must match; the others must be refused with reasons.
LEAST_MATCHES = 60
HERE = [name for name in ENGINES if name in available()]


def outcome(case, engine, preset, packing):
    """'match', 'refused: …' or 'WRONG: …' of one case."""
    try:
        program = he.convert(case.model)
    except ModelError as refusal:
        assert refusal.problems, f"{case.name} was refused without naming nodes: {refusal}"
        return f"refused: {refusal.problems[0].op}: {refusal.problems[0].reason}"
    result = he.infer(program, rows_of(program, case), engine=engine, preset=preset, packing=packing)
    for spec, due in zip(program.outputs, case.outputs):
        got = result.outputs[spec.name] if program.row_wise else result.outputs[spec.name][0]
        allowed = 2.0**-result.report.expected_bits * max(1.0, float(np.abs(due).max(initial=0.0))) + 1e-5
        error = float(np.abs(got - due).max(initial=0.0)) if got.shape == due.shape else np.inf
        if error > allowed:
            return f"WRONG: {spec.name} {got.shape} is off by {error:.2e}, {allowed:.2e} allowed"
    return "match"


@pytest.mark.parametrize("engine, packing", [(e, p) for e in HERE for p in (("batch",) if e == "seal" else ("batch", "grid", "product"))])
def test_layer_models_match_or_are_refused(engine, packing):
    tally = {case.name: outcome(case, engine, "N11_L1", packing) for case in layer_cases()}

    matches = [name for name, result in tally.items() if result == "match"]
    print(f"\n{engine} {packing}: {len(matches)} of {len(tally)} layer models match")
    for name, result in tally.items():
        if result != "match":
            print(f"  {name}: {result}")
    assert not [name for name, result in tally.items() if result.startswith("WRONG")]
    assert len(matches) >= LEAST_MATCHES


# SEAL's million single multiplications of this network take half a minute under N11_L1, minutes under the others.
@pytest.mark.parametrize(
    "engine, preset, packing",
    [("seal", "N11_L1", "batch")]
    + [(e, p, packing) for e in HERE if e != "seal" for p in ("N11_L1", "N12_L4", "N13_L8") for packing in ("batch", "grid", "product")],
)
def test_mnist_8_reproduces_its_reference_outputs(engine, preset, packing):
    if engine not in HERE:
        pytest.skip(f"engine {engine} is not installed")
    cases = mnist_8_cases()
    rows, due = (np.concatenate([getattr(case, side)[0] for case in cases]) for side in ("inputs", "outputs"))

    result = he.infer(he.convert(cases[0].model), rows, engine=engine, preset=preset, packing=packing)

    error = float(np.abs(result.output - due).max())
    print(
        f"mnist_8 {engine} {preset} {packing}: largest error {error:.2e} of scores up to {np.abs(due).max():.0f}, "
        f"{result.report.rounds} rounds"
    )
    assert error <= 2.0**-result.report.expected_bits * np.abs(due).max()
    assert np.array_equal(result.output.argmax(axis=1), due.argmax(axis=1))
