"""Real jobs on a real FATE 2.2, standalone on loopback: the demo, rows from a file, a failure, a cancelled job, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from he_backend import zoo
from he_backend.graph import Reference

TOP = Path(__file__).resolve().parents[2]
PYTHON = TOP / ".venv-fate" / "bin" / "python"
DEMO = [str(PYTHON), "-m", "he_nn.fate2.demo", "--model-type", "MLP", "--preset", "N11_L1"]
MARK = b"HE_NN_FATE_HOME="

pytestmark = [
    pytest.mark.fate,
    pytest.mark.skipif(sys.platform != "linux", reason="FATE 2.2 standalone runs on Linux"),
    pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-fate: scripts/fate_env.sh makes it"),
]


def run(*command, timeout_s=300):
    return subprocess.run(list(map(str, command)), cwd=TOP, capture_output=True, text=True, timeout=timeout_s)


def left_over(home):
    """Processes that belong to a home, as /proc tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if MARK + str(home).encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process.name, (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
        except OSError:  # gone meanwhile
            continue
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("fate")


@pytest.fixture(scope="module")
def demo(home):
    """The demo on a home of its own: (process, figures)."""
    done = run(*DEMO, "--home", home, "--json", home / "demo.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads((home / "demo.json").read_text())


@pytest.fixture(scope="module")
def checks(home, demo):
    """What the further jobs on one server came to, by name."""
    done = run(PYTHON, Path(__file__).with_name("fate_checks.py"), home, demo[1]["job_id"])
    assert done.returncode == 0, done.stdout + done.stderr
    return {line["check"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_the_job_predicts_encrypted_what_onnx_runtime_predicts(demo):
    done, figures = demo
    compared = figures["comparison"]

    assert compared["rows"] >= 512 and compared["clear_rows"] >= 512
    assert compared["clear_agreement"] == 1.0 and compared["max_abs_error"] < 1e-2
    assert compared["accuracy"] == pytest.approx(zoo.shipped("MLP").test_acc, abs=2e-3)
    assert figures["inference"]["is_encryption"] is True and figures["inference"]["engine"] in ("native", "seal")
    assert figures["inference"]["preset"] == "N11_L1" and figures["eval"]["agreement"] == 1.0
    assert figures["load"]["model_id"] == figures["eval"]["model_id"] == figures["inference"]["model_id"]
    assert "FATE's own Evaluation: multi_accuracy" in done.stdout
    assert figures["in_process_seconds"] > 0 and "the same in one process" in done.stdout


def test_the_demo_ends_its_processes(home, demo):
    assert left_over(home) == []


def test_the_logs_hold_no_row(home, demo):
    """The control: ids, which the demo's own upload job may log, are in the table that it wrote."""
    x, _ = zoo.shipped("MLP").load_test()
    needle = ",".join(repr(value) for value in x[100].tolist()[10:20]).encode()
    assert needle in (home / "upload" / "digits.csv").read_bytes()

    logs = [path for path in (home / "logs" / demo[1]["job_id"]).rglob("*") if path.is_file()]
    assert len(logs) > 10
    assert not [path for path in logs if needle in path.read_bytes()]


def test_both_sides_leave_metrics_for_the_board(checks):
    assert {"summary", "progress", "round_ms"} <= set(checks["metrics"]["guest"])
    assert "summary" in checks["metrics"]["host"]


def test_rows_from_a_file_are_predicted_in_order(checks):
    x, _ = zoo.shipped("MLP").load_test()
    plain = next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(x[:20]).values())).argmax(axis=1)

    assert checks["file"]["status"] == "success", checks["file"]["failures"]
    by_id = {int(row["match_id"]): int(row["predict_result"]) for row in checks["file"]["rows"]}
    assert [by_id[index] for index in range(20)] == plain.tolist()


def test_a_failed_task_tells_why_on_both_sides(checks):
    assert checks["failure"]["status"] == "failed"
    assert "there is no model 'not-there'" in checks["failure"]["failures"]
    assert set(checks["failure"]["states"].values()) == {"failed"}
    assert checks["failure"]["seconds"] < 120  # 15 s on a quiet machine


def test_a_guest_hears_of_a_host_that_goes_another_way(checks):
    assert checks["apart"]["status"] == "failed"
    assert "server_url: '127.0.0.1:9' at the host, and server_url: '' (embedded mode) at the guest" in checks["apart"]["failures"]


def test_cancelling_the_job_stops_both_sides(checks):
    assert checks["cancel"]["status"] == "canceled"
    assert checks["cancel"]["workers"] == []
    assert checks["cancel"]["seconds"] < 30


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_demo_ends_everything(home, demo, sign):
    process = subprocess.Popen([*DEMO, "--home", str(home)], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if "running" in line:
            break
    assert left_over(home)
    time.sleep(1)  # some way into the task

    os.kill(process.pid, sign)
    rest = process.stdout.read()

    assert process.wait(30) == 130, rest
    assert "every process of the demo has been ended" in rest
    assert left_over(home) == []
