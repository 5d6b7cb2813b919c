"""Accuracy of a network on labelled rows, plain and encrypted, with how sure that many rows can make one."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from he_backend.client.report import Report
from he_backend.client.rows import check_rows
from he_backend.errors import InputError, ParameterError
from he_backend.graph import Program, Reference
from he_backend.graph.card import Card
from he_backend.graph.quality import NO_CARD, Score, quality, score_of
from he_backend.local import infer
from he_backend.server.labelled import batch_of

MOST_ROWS = 512
_Z95 = 1.959963984540054  # of the normal distribution, both sides 2.5%


class Interval(NamedTuple):
    """A range of accuracies, 0 to 1."""

    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """Accuracy on the rows, its 95% interval, and seconds of the inference alone."""

    correct: int
    labels: int
    accuracy: float
    interval: Interval
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """A network on rows start_row to start_row + rows of its test set; `encrypted` and `report` are None when only the plain one ran."""

    model: str
    start_row: int
    rows: int
    test_rows: int
    plain: Measured
    encrypted: Measured | None = None
    report: Report | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values; intervals as [low, high]."""
        values = {**asdict(self), "report": None if self.report is None else self.report.to_dict()}
        if self.encrypted is not None:
            values["accuracy_loss"] = self.plain.accuracy - self.encrypted.accuracy
        return values


def wilson(correct: int, count: int) -> Interval:
    """The 95% interval of a share (Wilson, JASA 1927): right for shares near 0 and 1 and for few rows, where ±1.96σ is not."""
    if not 0 <= correct <= count or count < 1:
        raise ParameterError(f"{correct} of {count} is no share: give 0 to count, and a count of 1 or more")
    share, z2 = correct / count, _Z95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # Exactly 0 and 1 at the ends, where rounding would leave them slightly off.
    return Interval(0.0 if not correct else max(0.0, middle - half), 1.0 if correct == count else min(1.0, middle + half))


def plain_quality(program: Program, x: np.ndarray, y: np.ndarray, card: Card = NO_CARD) -> dict[str, float]:
    """How good the plain network is on rows x with labels y, as graph.quality. Raises InputError when they do not fit the model."""
    _one_input(program)
    rows = check_rows(x, program.inputs).slice(0, len(x))
    return quality(Reference(program).run(rows)[program.outputs[0].name], y, card)


def evaluate(
    program: Program,
    x: np.ndarray,
    y: np.ndarray,
    *,
    start_batch: int = 0,
    batch_size: int = MOST_ROWS,
    encrypted: bool = True,
    card: Card = NO_CARD,
    threads: int = 0,
    **options: Any,
) -> Evaluation:
    """The network on `batch_size` rows from row start_batch · batch_size on of a test set x [rows, ...]; y are labels as the card has them.

    Encrypted with both parties in this process; `options` are those of he_backend.infer. Seconds are of the inference, without keys and
    plans. Raises ParameterError and InputError for what is out of range or does not fit the model.
    """
    if type(batch_size) is not int or not 1 <= batch_size <= MOST_ROWS:
        raise ParameterError(f"batch_size: {batch_size!r}; allowed: 1 to {MOST_ROWS} rows")
    if type(start_batch) is not int or start_batch < 0:
        raise ParameterError(f"start_batch: {start_batch!r}; allowed: 0 or more")
    _one_input(program)
    batch = batch_of(x, y, start_batch, batch_size)
    rows = check_rows(batch.x, program.inputs).slice(0, len(batch.x))
    name = program.outputs[0].name
    reference = Reference(program, threads=threads)
    started = time.perf_counter()
    scores = reference.run(rows)[name]
    plain = _measured(score_of(scores, batch.y, card), time.perf_counter() - started)
    if not encrypted:
        return Evaluation(program.name, batch.start_row, len(batch.x), len(x), plain)
    result = infer(program, rows, threads=threads, **options)
    found = _measured(score_of(result.outputs[name], batch.y, card), result.report.seconds["total"])
    return Evaluation(program.name, batch.start_row, len(batch.x), len(x), plain, found, result.report)


def _measured(score: Score, seconds: float) -> Measured:
    return Measured(score.correct, score.labels, score.accuracy, wilson(score.correct, score.labels), seconds)


def _one_input(program: Program) -> None:
    if len(program.inputs) != 1:
        raise InputError(f"the model has {len(program.inputs)} inputs; a test set with one array x is for models with one")
