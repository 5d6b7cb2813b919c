"""The data owner's runners: load, eval and inference in the guest's task."""

from __future__ import annotations

import functools
from typing import Any

from ..artifact import ModelArtifact
from ..guest import DataOwner
from ..table import Rows
from .channel import FateChannel
from .params import HeNNEvalParam, HeNNInferenceParam, HeNNLoadParam
from .runner import HeNNRunner, artifact_of, table_of
from .table import prediction_table, rows_of
from .tracker import FateTracker


class HeNNLoadGuest(HeNNRunner):
    """he-nn-load."""

    module, param, is_guest = "HeNNLoad", HeNNLoadParam, True

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Asks for a model."""
        return DataOwner(tracker).load(channel, self.model_param.checked())


class HeNNEvalGuest(HeNNRunner):
    """he-nn-eval."""

    module, param, is_guest = "HeNNEval", HeNNEvalParam, True

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Asks for an evaluation."""
        given = functools.partial(artifact_of, cpn_input)
        return DataOwner(tracker).evaluate(channel, self.model_param.checked(), given)


class HeNNInferenceGuest(HeNNRunner):
    """he-nn-inference; its predictions are the data output."""

    module, param, is_guest, takes_table = "HeNNInference", HeNNInferenceParam, True, True

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Predicts the rows of the input table, or of file_inference."""
        given = functools.partial(artifact_of, cpn_input)
        done = DataOwner(tracker).infer(channel, self.model_param.checked(), functools.partial(_rows, cpn_input), given)
        self.data_output = prediction_table(done, table_of(cpn_input))
        return done.artifact


def _rows(cpn_input: Any) -> Rows | None:
    table = table_of(cpn_input)
    return None if table is None else rows_of(table)
