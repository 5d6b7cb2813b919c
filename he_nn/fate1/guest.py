"""The data owner's runners: load, eval and inference in the guest's task."""

from __future__ import annotations

import functools
from typing import Any

from ..artifact import ModelArtifact
from ..guest import DataOwner
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
        return DataOwner(tracker).evaluate(channel, self.model_param.checked(), artifact_of(cpn_input))


class HeNNInferenceGuest(HeNNRunner):
    """he-nn-inference; its predictions are the data output."""

    module, param, is_guest = "HeNNInference", HeNNInferenceParam, True

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Predicts the rows of the input table, or of file_inference."""
        table = table_of(cpn_input)
        rows = None if table is None else functools.partial(rows_of, table)  # read when the host hears of what is wrong with it
        done = DataOwner(tracker).infer(channel, self.model_param.checked(), rows, artifact_of(cpn_input))
        self.data_output = prediction_table(done, table)
        return done.artifact
