"""Real jobs on FATE 2.2: networks of the host's own on FATE's tables, Evaluation, the pipeline API, both services, a killed party."""

from __future__ import annotations

import csv
import json
import os
import subprocess

import numpy as np
import pytest

from he_backend import zoo
from he_backend.graph import Reference
from he_backend.server.registry import Registry
from he_backend.zoo.tabular import read_table, train_table
from he_nn.table import read_detail
from tests import processes
from tests.he_nn import fate_tables
from tests.he_nn.test_fate_job import PYTHON, TOP, left_over, pytestmark  # noqa: F401 - the same conditions hold here

TIMEOUT_S = 1200
DIGITS = 40
WHOLE = bool(os.environ.get("HE_NN_ALL_EXAMPLES"))  # every example as it stands, besides the modes


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A FATE home with the guest's tables in it and the host's networks, trained on its own, in its registry."""
    home = tmp_path_factory.mktemp("fate_modes")
    credit_host, _ = fate_tables.credit(home)
    student_host, _ = fate_tables.student(home)
    (home / "vehicle_scale_homo_guest.csv").write_bytes(fate_tables.table("vehicle_scale_homo_guest").read_bytes())
    x, y = zoo.shipped("CNN").load_test()
    digits = np.column_stack([np.arange(DIGITS), y[:DIGITS], x[:DIGITS].reshape(DIGITS, -1)])
    header = ",".join(["id", "y", *(f"x{index}" for index in range(digits.shape[1] - 2))])
    np.savetxt(
        home / "digits_test.csv", digits, delimiter=",", header=header, comments="", fmt=["%d", "%d", *["%g"] * (len(digits[0]) - 2)]
    )
    add(home, "Credit", read_table(credit_host, "y"), epochs=15)
    add(home, "Student", read_table(student_host, "y"), task="regression", epochs=50)
    add(home, "Vehicle", read_table(fate_tables.table("vehicle_scale_homo_host"), "y"))
    return home


def add(home, name, table, **options):
    model = train_table(table, **options)
    Registry(home / "models").add(model.onnx, name, test=(model.test_x, model.test_y), meta=model.card.to_dict())


@pytest.fixture(scope="module")
def server_home(tmp_path_factory, home):
    folder = tmp_path_factory.mktemp("he_server")
    record = Registry(home / "models").get("latest", "Vehicle")
    Registry(folder / "models").add(record.path, "Vehicle", test=record.test_path, meta=record.meta)
    return folder


@pytest.fixture(scope="module")
def checks(tmp_path_factory, home, server_home):
    """What the jobs came to, by name."""
    server = processes.server(server_home)
    client = processes.client(tmp_path_factory.mktemp("he_client"), server.http)
    try:
        command = [
            str(PYTHON),
            "-W",
            "ignore",
            "-m",
            "tests.he_nn.fate_modes",
            str(home),
            server.http,
            client.http,
            *(["examples"] if WHOLE else []),
        ]
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=TIMEOUT_S)
    finally:
        client.stop()
        server.stop()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = {line["check"]: line for line in map(json.loads, done.stdout.splitlines())}
    print(*(f"{name:<36} {line['seconds']:6.1f} s" for name, line in found.items() if "seconds" in line), sep="\n")
    return found


def uploaded(home, name):
    with open(home / f"{name}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def plain(home, model_type, rows):
    """What ONNX Runtime predicts for rows of a table."""
    registry = Registry(home / "models")
    record = registry.get("latest", model_type)
    x = np.array([[row[name] for name in record.meta["features"]] for row in rows], np.float32)
    return next(iter(Reference(registry.model_bytes(record)).run(x).values()))


def metric(check, task, name):
    return [one for one in check["metrics"][task] if one["name"] == name]


def evaluated(check):
    values = metric(check, "evaluation_0", "evaluation")[0]["data"]["he_nn_inference_0"]["test_set"]
    flat = [one for part in values for one in (part if isinstance(part, list) else [part])]
    return {one["metric"]: one["val"] for one in flat}


def test_credit_default_is_predicted_encrypted_and_evaluated_by_fate(checks, home):
    check = checks["credit"]
    assert check["status"] == "success", check["failures"]
    rows = uploaded(home, "default_credit_homo_guest")
    chance = plain(home, "Credit", rows).reshape(-1)
    table = {row["id"]: row for row in check["tables"]["he_nn_inference_0"]}

    assert sorted(table) == sorted(row["id"] for row in rows)
    got = np.array([float(table[row["id"]]["predict_score"]) for row in rows])
    np.testing.assert_allclose(got, chance, atol=5e-3)
    clear = np.abs(chance - 0.5) > 5e-3
    assert ([int(table[row["id"]]["predict_result"]) for row in rows] == (chance > 0.5))[clear].all()
    assert [table[row["id"]]["label"] for row in rows] == [row["y"] for row in rows]
    assert set(read_detail(table[rows[0]["id"]]["predict_detail"])) == {"0", "1"}
    assert evaluated(check)["auc"] > 0.7
    presets = [metric(check, f"he_nn_{name}_0", "summary")[0]["data"]["preset"] for name in ("load", "eval", "inference")]
    assert presets == ["N13_L8", "N12_L4", "custom_enc_param"]  # the last from the file beside the dsl


def test_a_vehicle_is_predicted_by_a_job_of_the_pipeline_api(checks, home):
    check = checks["vehicle"]
    assert check["status"] == "success", check["failures"]
    rows = uploaded(home, "vehicle_scale_homo_guest")
    due = plain(home, "Vehicle", rows).argmax(axis=1)
    table = {row["id"]: row for row in check["tables"]["he_nn_inference_0"]}

    agreement = np.mean([int(table[row["id"]]["predict_result"]) == label for row, label in zip(rows, due)])
    assert agreement > 0.99
    summary = metric(check, "he_nn_inference_0", "summary")[0]["data"]
    assert summary["preset"] == "N12_L4" and summary["task"] == "multi" and summary["is_encryption"] is True
    assert evaluated(check)["multi_accuracy"] == pytest.approx(summary["accuracy"])


def test_a_students_grade_is_predicted_and_fate_measures_a_regression(checks, home):
    check = checks["student"]
    assert check["status"] == "success", check["failures"]
    rows = uploaded(home, "student_homo_guest")
    due = plain(home, "Student", rows).reshape(-1)
    table = {row["id"]: row for row in check["tables"]["he_nn_inference_0"]}

    got = np.array([float(table[row["id"]]["predict_score"]) for row in rows])
    np.testing.assert_allclose(got, due, atol=0.05)
    truth = np.array([float(row["y"]) for row in rows])
    assert evaluated(check)["rmse"] == pytest.approx(np.sqrt(np.mean((got - truth) ** 2)), abs=1e-4)
    summary = metric(check, "he_nn_inference_0", "summary")[0]["data"]
    assert summary["task"] == "regression" and evaluated(check)["r2_score"] == pytest.approx(summary["r2"], abs=1e-4)


EXAMPLES = ("model_load", "model_eval", "model_inference", "vehicle", "model_client_inference", "model_service_inference")


@pytest.mark.skipif(not WHOLE, reason="minutes more: make test-fate2")
@pytest.mark.parametrize("name", EXAMPLES)  # all_in_one is the demo's; credit and student have tests of their own
def test_the_other_examples_run_as_they_stand(checks, name):
    check = checks[f"example {name}"]
    assert check["status"] == "success", check["failures"]

    assert all(metric(check, task, "summary") for task in check["metrics"])
    rows = {"model_inference": DIGITS, "vehicle": 413, "model_client_inference": 1, "model_service_inference": 1}
    assert [len(table) for table in check["tables"].values()] == ([rows[name]] if name in rows else [])
    if name == "model_inference":
        assert metric(check, "he_nn_inference_0", "summary")[0]["data"]["accuracy"] > 0.9


def test_the_board_finds_a_table_and_a_curve(checks):
    """By the rules of FATE-Board 2.x: the metric named summary is a table; those whose type contains loss are a curve by step."""
    check = checks["credit"]
    summary = metric(check, "he_nn_inference_0", "summary")[0]["data"]

    assert all(isinstance(value, (str, int, float, bool)) for value in summary.values())
    assert {"accuracy", "rounds", "bytes_up", "bytes_down", "seconds_total", "engine", "preset", "round_1_ms", "round_3_ms"} <= set(summary)
    curve = [point for one in check["metrics"]["he_nn_inference_0"] if "loss" in (one["type"] or "") for point in one["data"]]
    assert [point["step"] for point in curve] == [0, 1, 2, 3]
    assert [round(point["metric"]) for point in curve] == [0, 33, 67, 100]
    assert [point["timestamp"] for point in curve] == sorted(point["timestamp"] for point in curve)
    assert curve[-1]["timestamp"] > curve[0]["timestamp"]  # posted while the task ran, not at its end
    assert all(metric(check, task, "summary") for task in ("he_nn_load_0", "he_nn_eval_0"))
    host = next(one for one in check["host_metrics"]["he_nn_inference_0"] if one["name"] == "summary")["data"]
    assert host["calls"] == summary["rounds"] + 3 and "accuracy" not in host


def test_the_boards_other_questions_are_answered(checks):
    found = checks["board"]

    assert {"summary", "progress", "round_ms"} <= {key["name"] for key in found["keys"]}
    (table,) = found["display"]
    assert len(table["data"]) >= 100 and all(any("'0': " in str(cell) for cell in row) for row in table["data"])
    assert any("environment test passed" in line for line in found["log"]) and any("100% done" in line for line in found["log"])


def test_the_services_take_the_hosts_place(checks, home):
    check = checks["services"]
    assert check["status"] == "success", check["failures"]
    rows = uploaded(home, "vehicle_scale_homo_guest")
    due = plain(home, "Vehicle", rows).argmax(axis=1)

    table = {row["id"]: int(row["predict_result"]) for row in check["tables"]["server_encrypted_table"]}
    assert np.mean([table[row["id"]] == label for row, label in zip(rows, due)]) > 0.99
    for name in ("server_plain_file", "client_encrypted_file"):
        by_id = {int(row["match_id"]): int(row["predict_result"]) for row in check["tables"][name]}
        assert np.mean([by_id[index] == due[index] for index in range(50)]) >= 0.98
    figures = {name: metric(check, name, "summary")[0]["data"] for name in check["tables"]}
    assert [figures[name]["is_encryption"] for name in figures] == [True, False, True]
    assert figures["client_encrypted_file"]["preset"] == "custom_enc_param" and figures["server_encrypted_table"]["preset"] == "N12_L4"


@pytest.mark.parametrize("role", ["host", "guest"])
def test_a_killed_party_ends_the_job(checks, role):
    check = checks[f"killed {role}"]

    assert check["status"] == "failed" and set(check["states"].values()) == {"failed"}
    assert check["workers"] == [] and check["seconds"] < 90


def test_nothing_is_left_running_and_no_row_in_the_logs(checks, home):
    assert left_over(home) == []
    rows = uploaded(home, "default_credit_homo_guest")
    needles = [",".join(list(row.values())[2:8]).encode() for row in rows[:50]]
    logs = [path for path in (home / "logs" / checks["credit"]["job_id"]).rglob("*") if path.is_file()]
    assert len(logs) > 10 and not [path for path in logs if any(needle in path.read_bytes() for needle in needles)]


def test_the_jobs_left_configuration_and_artifacts_and_nothing_else(checks, home):
    """Keys are in memory alone; of the killed job too there is nothing but FATE's own configuration and process numbers."""
    files = [path for path in (home / "jobs").rglob("*") if path.is_file()]
    odd = [path for path in files if path.suffix != ".yaml" and path.parent.name != "pid" and not path.name.endswith(("_model", "_metric"))]

    assert len(files) > 50 and odd == []
    for path in files:
        if path.name.endswith("json_model"):
            assert set(json.loads(path.read_text())) >= {"model_id", "model_name", "model_type", "preset"}
