"""What an inference cost, how precise it was, and who did what."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RoundReport:
    """One round over all chunks of rows: sizes per row, bytes each way, seconds by what was done."""

    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    in_elements: int
    out_elements: int
    level: int
    weight_bits: int
    bytes_up: int
    bytes_down: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """The figures of one inference. Seconds are wall-clock; `wire` is what a round waited beyond the server's own computing.

    With more than one lane the parts run at the same time: their seconds add up to more than the total.
    """

    model: str
    engine: str
    preset: str
    packing: tuple[str, ...]
    rows: int
    rounds: int
    bytes_up: int
    bytes_down: int
    seconds: dict[str, float]
    expected_bits: float
    peak_memory_bytes: int
    per_round: tuple[RoundReport, ...] = ()
    lanes: int = 1  # chunks of rows that were under way at a time
    # Against the plain network, where both are at hand:
    plain_seconds: float | None = None
    max_abs_error: float | None = None
    bits_of_precision: float | None = None
    agreement: float | None = None
    output: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The figures as one JSON object."""
        return json.dumps(self.to_dict())


@dataclass(frozen=True)
class Result:
    """Predictions (name -> array [rows, ...]) and what they cost."""

    outputs: dict[str, np.ndarray] = field(repr=False)
    report: Report

    @property
    def output(self) -> np.ndarray:
        """The first (often the only) output."""
        return next(iter(self.outputs.values()))


@dataclass(frozen=True)
class Comparison:
    """Encrypted predictions beside those of the plain network."""

    max_abs_error: float  # of any score
    bits_of_precision: float  # -log2 of the largest error over the largest score
    agreement: float  # share of rows with the same largest score in the first output; for one score, of rows within 1e-3


def compare(outputs: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> Comparison:
    """How outputs compare with those of the plain network, by output name."""
    pairs = [(np.asarray(outputs[name], np.float64), np.asarray(reference[name], np.float64)) for name in reference]
    error = max((float(np.abs(got - due).max(initial=0.0)) for got, due in pairs), default=0.0)
    size = max((float(np.abs(due).max(initial=0.0)) for _, due in pairs), default=0.0)
    bits = 52.0 if error == 0.0 else float(np.log2(size / error)) if size > 0.0 and np.isfinite(error) else 0.0
    got, due = pairs[0]
    if due.ndim > 1 and due.shape[-1] > 1:
        same = float((got.argmax(axis=-1) == due.argmax(axis=-1)).mean())
    else:
        same = float((np.abs(got - due) <= np.maximum(1e-3, 1e-3 * np.abs(due))).mean())
    return Comparison(error, min(52.0, bits), same)


def with_comparison(report: Report, compared: Comparison, plain_seconds: float) -> Report:
    """The report with the plain network's figures beside it."""
    return dataclasses.replace(
        report,
        plain_seconds=plain_seconds,
        max_abs_error=compared.max_abs_error,
        bits_of_precision=compared.bits_of_precision,
        agreement=compared.agreement,
    )
