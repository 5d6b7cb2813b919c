"""The model owner's runners: they answer the guest's task. Nothing here can reach the guest's half, where the secret key is."""

from __future__ import annotations

from typing import Any

from he_backend.server.registry import Registry, default_root

from ..artifact import ModelArtifact
from ..host import ModelOwner
from .channel import FateChannel
from .params import HeNNEvalParam, HeNNInferenceParam, HeNNLoadParam
from .runner import HeNNRunner
from .tracker import FateTracker


class HeNNLoadHost(HeNNRunner):
    """he-nn-load."""

    module, param = "HeNNLoad", HeNNLoadParam

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Binds a model."""
        return _owner(tracker).load(channel, self.model_param.checked())


class HeNNEvalHost(HeNNRunner):
    """he-nn-eval."""

    module, param = "HeNNEval", HeNNEvalParam

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Evaluates a model on this party's test rows."""
        return _owner(tracker).evaluate(channel, self.model_param.checked())


class HeNNInferenceHost(HeNNRunner):
    """he-nn-inference."""

    module, param, takes_table = "HeNNInference", HeNNInferenceParam, True

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Computes on the guest's ciphertexts."""
        return _owner(tracker).infer(channel, self.model_param.checked())


def _owner(tracker: FateTracker) -> ModelOwner:
    return ModelOwner(lambda: Registry(default_root()), tracker)
