"""Random feed-forward networks, encrypted, against ONNX Runtime: to the precision that each plan promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import he_backend as he
from he_backend.ckks.engines import available
from he_backend.errors import CapacityError
from tests.graph.networks import networks, plain, rows_for

CASES = [
    ("clear", "batch", 40),
    ("clear", "grid", 40),
    ("clear", "product", 40),
    ("native", "batch", 40),
    ("native", "grid", 40),
    ("native", "product", 40),
    ("native", "auto", 20),
    ("seal", "auto", 12),
]


@pytest.mark.parametrize("engine, packing, examples", [case for case in CASES if case[0] in available()])
def test_random_networks_agree_with_onnx_runtime(engine, packing, examples):
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(model=networks(), preset=st.sampled_from(["N11_L1", "N12_L4", "N13_L8"]), seed=st.integers(0, 1000))
    def agrees(model, preset, seed):
        rows = rows_for(model, 3, seed)
        due = plain(model, rows)
        try:
            result = he.infer(he.convert(model), rows, engine=engine, preset=preset, packing=packing)
        except CapacityError:
            return
        used.update(result.report.packing)
        size = max(1.0, float(np.abs(due).max(initial=0.0)))
        error = float(np.abs(result.output - due).max(initial=0.0))
        ratios.append(-np.log2(max(error / size, 2.0**-52)) - result.report.expected_bits)
        assert error <= 2.0**-result.report.expected_bits * size + 1e-5 * size

    ratios: list[float] = []
    used: set[str] = set()
    agrees()
    assert packing == "auto" or packing in used
    print(f"\n{engine} {packing}: {len(ratios)} networks; bits beyond the promise: least {min(ratios):.1f}, median {np.median(ratios):.1f}")
