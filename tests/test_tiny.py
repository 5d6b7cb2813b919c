"""The whole thing, small and fast: a network is split, rows are encrypted, predictions agree. Run this one first."""

from __future__ import annotations

import numpy as np

import he_backend as he
from tests.parties import digits


def test_encrypted_digits_agree_with_the_plain_network():
    program, rows, _ = digits(rows=32)

    result = he.infer(program, rows, engine="seal", preset="N11_L1")

    assert result.output.shape == (32, 10)
    assert result.report.agreement == 1.0
    assert result.report.bits_of_precision >= result.report.expected_bits
    assert result.report.rounds == len(program.segments)


def test_the_clear_engine_is_exact_but_for_rounded_weights():
    program, rows, _ = digits(rows=32)
    result = he.infer(program, rows, engine="clear", preset="N11_L1")
    assert result.report.max_abs_error < 1e-2 * np.abs(result.output).max()
    assert result.report.agreement == 1.0
