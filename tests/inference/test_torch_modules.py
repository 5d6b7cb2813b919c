"""PyTorch's own layers and well-known designs with random weights, encrypted, against ONNX Runtime and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import he_backend as he
from he_backend.ckks.engines import available

torch = pytest.importorskip("torch")

from tests.graph.test_torch_import import MODULES, randomised  # noqa: E402 - needs torch
from tests.torch_modules import OWN  # noqa: E402

ALL = {**{name: entry[:2] for name, entry in MODULES.items()}, **OWN}
ROWS = 4


@pytest.fixture(scope="module", params=ALL)
def case(request):
    """Program, rows and what PyTorch computes for them."""
    make, shape = ALL[request.param]
    torch.manual_seed(0)
    module = randomised(make()).eval()
    rows = torch.randn(ROWS, *shape)
    with torch.no_grad():
        due = module(rows).numpy()
    return he.convert(module, rows[:2]), rows.numpy(), due


@pytest.mark.parametrize("engine", [engine for engine in ("clear", "native") if engine in available()])
def test_modules_agree_encrypted_to_the_precision_promised(case, engine):
    program, rows, due = case

    result = he.infer(program, rows, engine=engine, bits=16)

    size = max(1.0, float(np.abs(due).max()))
    error = float(np.abs(result.output.reshape(due.shape) - due).max())
    print(
        f"{program.name} {engine}: {program.rounds} rounds, {result.report.bits_of_precision:.1f} bits of {result.report.expected_bits:.1f}"
    )
    assert error <= 2.0**-result.report.expected_bits * size + 1e-5 * size  # against PyTorch
    assert result.report.bits_of_precision >= result.report.expected_bits  # against ONNX Runtime
