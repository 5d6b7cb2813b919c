"""Reports to FATE 1.x: the task's log, its metrics while it runs, and its summary.

FATE-Board shows a module that it does not know in two ways: a metric whose name contains `loss` is a curve under the tab LOSS, called by
what stands before `_loss`; all others are rows of one table, whose columns are the keys of its first row. So there is one row, `summary`,
with one column for each figure, and each series is a curve.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from federatedml.model_base import Metric, MetricMeta
from federatedml.util import LOGGER

NAMESPACE = "he_nn"
SUMMARY = "summary"
CURVE = "_loss"  # what makes FATE-Board draw a curve


class FateTracker:
    """Reports in the name of a runner, which is a federatedml ModelBase."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._started: set[str] = set()
        self._steps = 0

    def log(self, text: str) -> None:
        """A line of the task's log."""
        LOGGER.info(text)

    def progress(self, done: int, total: int) -> None:
        """A point of the curve `progress`, in percent, at once."""
        percent = 100.0 * done / max(1, total)
        LOGGER.info(f"{percent:.0f}% done")
        self._points("progress", "percent", [(self._steps, percent)])
        self._steps += 1

    def series(self, name: str, values: Sequence[float]) -> None:
        """A curve with a point for each step."""
        if len(values):
            self._points(name, "step", [(index, float(value)) for index, value in enumerate(values)])

    def summary(self, values: Mapping[str, Any]) -> None:
        """The row that FATE-Board shows, and the component's summary (`flow component get-summary`)."""
        shown = {name: value for name, value in values.items() if value is not None}
        LOGGER.info(f"summary: {shown}")
        meta = MetricMeta(name=SUMMARY, metric_type="HE_NN_SUMMARY", extra_metas={"unit_name": "figure"})
        self._model.callback_meta(SUMMARY, NAMESPACE, meta)
        self._model.callback_metric(SUMMARY, NAMESPACE, [Metric(name, value) for name, value in shown.items()])
        self._model.set_summary(shown)

    def _points(self, name: str, unit: str, points: Sequence[tuple[int, float]]) -> None:
        curve = name + CURVE
        if curve not in self._started:
            self._started.add(curve)
            self._model.callback_meta(curve, NAMESPACE, MetricMeta(name=name, metric_type="LOSS", extra_metas={"unit_name": unit}))
        self._model.callback_metric(curve, NAMESPACE, [Metric(index, value) for index, value in points])
