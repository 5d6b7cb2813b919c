"""The pipeline API's classes and their descriptions, compiled in FATE's environment (no job is run here)."""

from __future__ import annotations

import json
import subprocess

import pytest

from he_nn.params import COMPONENTS
from tests.he_nn.test_fate_job import PYTHON, TOP, pytestmark  # noqa: F401 - the same conditions hold here

DESCRIPTIONS = TOP / "he_nn" / "fate2" / "component_define"


def run(*command):
    done = subprocess.run([str(PYTHON), "-W", "ignore", *command], cwd=TOP, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found():
    return json.loads(run("-m", "tests.he_nn.pipeline_checks").splitlines()[-1])


def test_a_pipeline_compiles_to_the_tasks_of_the_components(found):
    tasks = found["dag"]["tasks"]

    assert {name: task["component_ref"] for name, task in tasks.items()} == {
        "he_nn_load_0": "he-nn-load",
        "he_nn_eval_0": "he-nn-eval",
        "he_nn_inference_0": "he-nn-inference",
        "evaluation_0": "evaluation",
    }
    assert tasks["he_nn_eval_0"]["parameters"] == {"model_type": "MLP", "server_url": "", "batch_size": 64, "is_encryption": True}
    inputs = tasks["he_nn_inference_0"]["inputs"]
    assert inputs["data"]["input_data"]["data_warehouse"]["parties"] == [{"role": "guest", "party_id": ["9999"]}]
    assert inputs["model"]["input_model"]["task_output_artifact"]["producer_task"] == "he_nn_eval_0"


def test_a_party_may_have_parameters_of_its_own(found):
    (party,) = found["dag"]["party_tasks"].values()

    assert party["parties"] == [{"role": "host", "party_id": ["10000"]}]
    assert party["tasks"]["he_nn_inference_0"]["parameters"]["encryption_parameters"] == "N11_L1"


def test_wrong_parameters_are_refused_before_a_job_is_submitted(found):
    assert "colour: no such parameter" in found["unknown"]
    assert "batch_size: 513; allowed: 1 to 512" in found["wrong"]
    assert "is_init: 'yes'; allowed: true or false" in found["party"]


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_the_descriptions_are_those_of_the_components(name, tmp_path):
    path = tmp_path / "description.yaml"

    run("-m", "fate.components", "component", "desc", "--name", name, "--save", str(path))

    assert path.read_text() == (DESCRIPTIONS / f"{name}.yaml").read_text(), "component desc --save writes it anew"
