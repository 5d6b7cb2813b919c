"""Answers are JSON, whatever a network gave."""

from __future__ import annotations

import json

import numpy as np
import pytest

from he_backend.web import answers, model_fields
from he_backend.web.tasks import Outcome


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_null_stands_for_what_is_no_number(dtype):
    outcome = Outcome(np.array([[np.nan, 0.5], [-np.inf, 1.0]], dtype), 0.1, {"rmse": float("nan"), "per_round": [{"x": np.inf}]}, "")
    what = dict.fromkeys(("inference_file", "inference_size", "is_encryption", "encryption_parameter", "model_name", "model_type"), "x")

    shown = model_fields.inference_answer("id", {**what, "model_id": "1"}, outcome)
    record = model_fields.record_answer({"inference_id": "id", "figures": outcome.figures, "outcome": outcome})

    for data in (shown, record):
        envelope = json.loads(answers.answer(data).body, parse_constant=no_constant)
        assert envelope["data"]["figures"] == {"rmse": None, "per_round": [{"x": None}]}
        values = json.loads(envelope["data"]["inference_result"], parse_constant=no_constant)
        assert values == [[None, 0.5], [None, 1.0]]
        assert np.isnan(np.asarray(values, np.float64)).sum() == 2


def test_whole_numbers_stay_whole():
    outcome = Outcome(np.array([[1, 2]]), 0.1, {}, "")

    assert model_fields.record_answer({"outcome": outcome})["inference_result"] == "[[1, 2]]"
