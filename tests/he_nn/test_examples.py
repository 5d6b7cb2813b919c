"""The job files in dsl_examples: both forms say the same, and name what the documentation says they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from he_nn.params import COMPONENTS
from he_nn.translate import MODULES, read_job, to_dag

EXAMPLES = Path(__file__).resolve().parents[2] / "dsl_examples"
NAMES = sorted(path.name[: -len("_conf.json")] for path in EXAMPLES.glob("*_conf.json"))


def job(name):
    return read_job(str(EXAMPLES / f"{name}_conf.json"), str(EXAMPLES / f"{name}_dsl.json"))


def tasks(name):
    return to_dag(job(name))["dag"]["tasks"]


@pytest.mark.parametrize("name", NAMES)
def test_the_dag_of_fate_2_is_the_job_of_fate_1(name):
    yaml = pytest.importorskip("yaml")

    written = yaml.safe_load((EXAMPLES / f"{name}_dag.yaml").read_text(encoding="utf-8"))

    assert written == to_dag(job(name)), "scripts/example_dags.py writes the DAG files anew"


def test_there_is_a_dag_for_each_job_and_no_other():
    assert sorted(path.name[: -len("_dag.yaml")] for path in EXAMPLES.glob("*_dag.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_components(name):
    for task in tasks(name).values():
        if task["component_ref"] in COMPONENTS:
            COMPONENTS[task["component_ref"]].of(task["parameters"])


@pytest.mark.parametrize(("name", "kind", "table"), [("he_nn_credit", "binary", "default_credit_homo_guest"),
                                                     ("he_nn_vehicle", "multi", "vehicle_scale_homo_guest"),
                                                     ("he_nn_student", "regression", "student_homo_guest")])  # fmt: skip
def test_the_table_examples_chain_load_eval_inference_and_evaluation(name, kind, table):
    found = tasks(name)

    assert list(found) == ["he_nn_load_0", "he_nn_eval_0", "he_nn_inference_0", "evaluation_0"]
    assert found["evaluation_0"]["parameters"] == {"default_eval_setting": kind}
    assert found["he_nn_inference_0"]["inputs"]["data"]["input_data"]["data_warehouse"]["name"] == table
    assert found["he_nn_inference_0"]["parameters"]["is_encryption"] is True
    assert found["he_nn_load_0"]["parameters"]["is_init"] is False


def test_each_mode_has_an_example():
    ways = {name: tasks(name)["he_nn_inference_0"]["parameters"] for name in NAMES if "he_nn_inference_0" in tasks(name)}

    assert [name for name, values in ways.items() if values.get("client")] == ["he_nn_model_client_inference"]
    assert [name for name, values in ways.items() if values["server_url"] and not values.get("client")] == ["he_nn_model_service_inference"]
    assert "he_nn_model_inference" in [name for name, values in ways.items() if not values["server_url"]]


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_known_to_both_versions(name):
    modules = {component["module"] for component in json.loads((EXAMPLES / f"{name}_dsl.json").read_text())["components"].values()}

    assert {module.lower() for module in modules} <= {*MODULES, "reader", "datatransform"}
