"""FATE 2.2's own Evaluation reads the prediction tables of all three kinds of networks, and comes to scikit-learn's figures."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score, roc_auc_score

from tests.he_nn.test_fate_job import PYTHON, TOP, pytestmark  # noqa: F401 - the same conditions hold here


@pytest.fixture(scope="module")
def found():
    command = [str(PYTHON), "-W", "ignore", "-m", "tests.he_nn.evaluation_checks"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def given(found):
    return {name: np.asarray(values) for name, values in found["given"].items()}


@pytest.mark.parametrize("task", ["binary", "multi", "regression"])
def test_the_table_has_the_platforms_columns(found, task):
    assert found[task]["columns"] == ["predict_score", "predict_result", "predict_detail", "type"]


def test_binary(found, given):
    assert found["binary"]["auc"] == pytest.approx(roc_auc_score(given["labels"], given["chance"]))


def test_multi(found, given):
    assert found["multi"]["multi_accuracy"] == pytest.approx(accuracy_score(given["classes"], given["scores"].argmax(axis=1)))


def test_regression(found, given):
    assert found["regression"]["rmse"] == pytest.approx(mean_squared_error(given["due"], given["values"]) ** 0.5)
    assert found["regression"]["r2_score"] == pytest.approx(r2_score(given["due"], given["values"]))
