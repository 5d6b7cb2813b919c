"""Reports to FATE 1.x: the task's log, its metrics while it runs, and its summary.

FATE-Board shows a module that it does not know in two ways (src/transform/fn/metricsArrange.js of its front end): a metric whose name
contains `loss` is a curve under LOSS, called by its `curve_name`; all others are rows of one table, whose columns are the keys of its first
row. So there is one row, `summary`, with one column for each figure, and each series is a curve. A boolean would be an empty cell.
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
        """A point of the curve "progress (%)", at once."""
        percent = 100.0 * done / max(1, total)
        LOGGER.info(f"{percent:.0f}% done")
        self._points("progress", "progress (%)", [(self._steps, percent)])
        self._steps += 1

    def series(self, name: str, values: Sequence[float]) -> None:
        """A curve with a point for each step. A unit at the end of the name is shown as one: `round_ms` as "round (ms)"."""
        if len(values):
            what, _, unit = name.rpartition("_")
            shown = f"{what} ({unit})" if what else name
            self._points(name, shown, [(index, float(value)) for index, value in enumerate(values)])

    def summary(self, values: Mapping[str, Any]) -> None:
        """The row that FATE-Board shows, and the component's summary (`flow component get-summary`)."""
        shown = {name: value for name, value in values.items() if value is not None}
        LOGGER.info(f"summary: {shown}")
        meta = MetricMeta(name=SUMMARY, metric_type="HE_NN_SUMMARY", extra_metas={"unit_name": "figure"})
        self._model.callback_meta(SUMMARY, NAMESPACE, meta)
        self._model.callback_metric(SUMMARY, NAMESPACE, [Metric(name, _cell(value)) for name, value in shown.items()])
        self._model.set_summary(shown)

    def _points(self, name: str, shown: str, points: Sequence[tuple[int, float]]) -> None:
        curve = name + CURVE
        if curve not in self._started:
            self._started.add(curve)
            meta = MetricMeta(name=name, metric_type="LOSS", extra_metas={"unit_name": "step"})
            meta.update_metas({"curve_name": shown})
            # callback_meta of a ModelBase would call the curve by the metric's name.
            self._model.tracker.set_metric_meta(metric_namespace=NAMESPACE, metric_name=curve, metric_meta=meta)
        self._model.callback_metric(curve, NAMESPACE, [Metric(index, value) for index, value in points])


def _cell(value: Any) -> Any:
    return ("yes" if value else "no") if isinstance(value, bool) else value
