"""Run by test_evaluation in FATE's environment: FATE's own Evaluation on prediction frames of all three kinds, as JSON."""

from __future__ import annotations

import json
import tempfile

import numpy as np
from fate.arch.computing.backends.standalone import CSession
from fate.arch.context import Context
from fate.arch.federation.backends.standalone import StandaloneFederation
from fate.components.components.evaluation import evaluate
from fate.ml.evaluation.tool import get_binary_metrics, get_multi_metrics, get_regression_metrics
from fate.ml.utils.predict_tools import LABEL, PREDICT_RESULT, PREDICT_SCORE

from he_backend.graph.card import Card
from he_nn.artifact import ModelArtifact
from he_nn.fate2.binding import prediction_frame
from he_nn.guest import Inferred
from he_nn.table import from_columns, predictions

IDS = [f"id{index}" for index in range(40)]


def frame_of(context, outputs, labels, card):
    rows = from_columns(IDS, {"x0": np.arange(40.0)}, labels)
    return prediction_frame(context, Inferred(rows, predictions(outputs, card), ModelArtifact("i", "n", "t", "p")), None)


def measured(found):
    values = found.to_dict() if hasattr(found, "to_dict") else found
    flat = [one for part in values for one in (part if isinstance(part, list) else [part])]
    return {one["metric"]: one["val"] for one in flat if isinstance(one["val"], (int, float))}


def main():
    rng = np.random.default_rng(0)
    chance, labels = rng.uniform(size=40), rng.integers(0, 2, 40)
    scores, classes = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    values, due = rng.normal(size=40), rng.normal(size=40)
    with tempfile.TemporaryDirectory() as folder:
        session, party = CSession("evaluation_checks", data_dir=folder, options={}), ("guest", "9999")
        context = Context(computing=session, federation=StandaloneFederation(session, "evaluation_checks", party, [party]))
        cases = {
            "binary": (get_binary_metrics, PREDICT_SCORE, chance[:, None], labels, Card(task="binary", classes=(0, 1))),
            "multi": (get_multi_metrics, PREDICT_RESULT, scores, classes, Card()),
            "regression": (get_regression_metrics, PREDICT_SCORE, values[:, None], due, Card()),
        }
        result = {}
        for name, (metrics, column, outputs, truth, card) in cases.items():
            frame = frame_of(context, outputs, truth, card)
            result[name] = {**measured(evaluate(frame, metrics(), column, LABEL)["test_set"]), "columns": list(frame.schema.columns)}
    given = {"chance": chance, "labels": labels, "scores": scores, "classes": classes, "values": values, "due": due}
    print(json.dumps({**result, "given": {name: array.tolist() for name, array in given.items()}}))


if __name__ == "__main__":
    main()
