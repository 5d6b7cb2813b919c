"""What `make test-fate1` checks with: that it would see a key on disk, a party's processes, and tables where FATE brings none."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.he_nn.fate_setup_project import project

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(TOP / "scripts"))


def key():
    return np.random.default_rng(0).integers(-1, 2, 2048)


def lines(array):
    return "\n".join(map(str, array.tolist())).encode()


FORMS = {
    "bytes": lambda: key().astype(np.int8).tobytes(),
    "positive": lambda: (key() + 1).astype(np.uint8).tobytes(),
    "words": lambda: key().astype(np.int64).tobytes(),
    "base64": lambda: b'{"a": "' + base64.b64encode(key().astype(np.int8).tobytes()) + b'"}',
    "hexadecimal": lambda: b"key " + key().astype(np.int8).tobytes().hex().encode(),
    "escaped": lambda: repr(key().astype(np.int8).tobytes()).encode(),
    "json": lambda: json.dumps(key().tolist()).encode(),
    "floats": lambda: json.dumps(key().astype(float).tolist()).encode(),
    "lines": lambda: lines(key()),
    "numpy": lambda: np.array2string(key(), threshold=1 << 20).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_seen_in_whatever_form(form):
    from fate1.traces import may_hold_key

    assert may_hold_key(b"[INFO] a line of the log\n" + FORMS[form]())


def test_a_log_is_none():
    from fate1.traces import may_hold_key

    line = "[INFO] [2026-01-01 12:00:00,123] [202601011200] [12:34] - [tracker.log] [line:30]: {'a': 1, 'b': [1, 2, 3]}\n"
    assert not may_hold_key((line * 500).encode())
    assert not may_hold_key(b"\0" * 5000 + line.encode())


def test_what_a_job_left_is_looked_through(tmp_path):
    from fate1.traces import files, no_key

    base, home, job = tmp_path / "fate", tmp_path / "home", "2026"
    for name in ("jobs/2026/guest/config.json", *(f"logs/2026/guest/{index}.log" for index in range(6))):
        path = base / "fateflow" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    home.mkdir()
    (home / "rows.npy").write_bytes(b"\0\1")
    flow = SimpleNamespace(home=home, folders=lambda job_id: [base / "fateflow" / kind / job_id for kind in ("jobs", "logs")])
    known = files(home)

    no_key(flow, job, known)

    (home / "key.bin").write_bytes(b"secret")
    with pytest.raises(SystemExit):
        no_key(flow, job, known)
    (home / "key.bin").rename(home / "key.log")
    (home / "key.log").write_bytes(FORMS["json"]())
    with pytest.raises(SystemExit):
        no_key(flow, job, known)


def test_a_partys_processes_are_told_apart():
    from fate1.flow import processes_of

    script = "import time; print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, "task_executor.py", "--job_id", "job77", "--role", "host"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ})
    try:
        assert process.stdout.readline() == b"up\n"  # before its first instruction its command line may read empty
        assert processes_of("job77") == processes_of("job77", "host") == [process.pid]
        assert processes_of("job77", "guest") == processes_of("job78") == []
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_made_up_tables_stand_in_for_missing_ones(tmp_path, capsys, classes):
    from fate1.tables import Subject, _tables

    from he_backend.zoo.tabular import read_table, train_table

    subject = Subject("Some", "some_guest", "some_host", 6, classes, 100, 200)

    rows = _tables(tmp_path, subject, tmp_path / "guest.csv", tmp_path / "host.csv")

    assert "made-up tables" in capsys.readouterr().out and rows == 200
    guest, host = (read_table(tmp_path / f"{name}.csv", "y") for name in ("guest", "host"))
    assert guest.features == host.features and len(guest.x) == 200 and not np.array_equal(guest.x, host.x[:200])
    model = train_table(host, task=("regression", "", "binary", "", "multi")[classes])
    assert model.figures.get("test_acc", model.figures.get("r2")) > 0.8


def test_fates_own_tables_are_taken_where_they_are(tmp_path, capsys):
    from fate1.tables import Subject, _tables

    for name in ("a_guest", "a_host"):
        (tmp_path / f"{name}.csv").write_text("id,y,x0\n" + "".join(f"{i},{i % 2},{i}.5\n" for i in range(9)))

    rows = _tables(tmp_path, Subject("A", "a_guest", "a_host", 1, 2, 1, 5), tmp_path / "guest.csv", tmp_path / "host.csv")

    assert rows == 5 and capsys.readouterr().out == ""
    assert len((tmp_path / "guest.csv").read_text().splitlines()) == 6 and len((tmp_path / "host.csv").read_text().splitlines()) == 10


def test_without_a_deployment_it_says_so():
    done = subprocess.run(
        [sys.executable, str(TOP / "scripts" / "fate1_jobs.py")],
        env={**os.environ, "FATE_PROJECT_BASE": ""},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0 and "test-fate1 skipped" in done.stdout


class Rest:
    """A FATE Flow's tables, by namespace and name, behind its commands and endpoints. `fails`: it no longer answers."""

    def __init__(self, tables):
        self.tables, self.confs, self.fails = set(tables), [], False

    def command(self, *arguments):
        if arguments[:2] == ("data", "upload"):
            upload = json.loads(Path(arguments[3]).read_text())
            self.tables.add((upload["namespace"], upload["table_name"]))
        if arguments[:2] == ("job", "submit"):
            self.confs.append(json.loads(Path(arguments[3]).read_text()))
        return {"retcode": 0, "data": {"job_id": "1"}}

    def rest(self, endpoint, body):
        from fate_setup.deployment import SetupError

        if self.fails:
            raise SetupError("FATE Flow does not answer")
        if endpoint == "job/query":
            return {"data": [{"f_status": "success"}]}
        table = body["namespace"], body["table_name"]
        if endpoint == "table/delete":
            self.tables.discard(table)
        return {"retcode": 0, "data": {"exist": int(table in self.tables)}}


FATES = {("experiment", name) for name in ("digits_test", "default_credit_homo_guest", "vehicle_scale_homo_guest", "student_homo_guest")}


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """A Flow whose FATE has its example tables, and no training."""
    from fate1 import tables
    from fate1.flow import Flow

    stand_in = Rest(FATES)
    monkeypatch.setattr(Flow, "command", lambda self, *arguments: stand_in.command(*arguments))
    monkeypatch.setattr(Flow, "rest", lambda self, endpoint, body: stand_in.rest(endpoint, body))
    monkeypatch.setattr(Flow, "python", lambda self, *arguments: "")
    monkeypatch.setattr(tables, "_network", lambda *given: None)
    flow = Flow(SimpleNamespace(base=tmp_path), "127.0.0.1:1", tmp_path, {})
    flow.stand_in = stand_in
    return flow


def test_the_examples_read_tables_of_the_checks_own_which_it_removes(flow):
    from fate1.tables import prepared

    with prepared(flow) as counts:
        assert {("he_nn_check", name) for name in counts} | FATES == flow.stand_in.tables and len(counts) == 4
        for path in sorted((TOP / "dsl_examples").glob("*_conf.json")):
            flow.start(path.name[: -len("_conf.json")])
            assert read_by(flow.stand_in.confs[-1]) <= flow.stand_in.tables - FATES
            original = json.loads(path.read_text())
            assert {name for _, name in read_by(original)} == {name for _, name in read_by(flow.stand_in.confs[-1])}

    assert flow.stand_in.tables == FATES


def read_by(conf):
    parameters = conf["component_parameters"]
    parties = [components for by_number in parameters.get("role", {}).values() for components in by_number.values()]
    components = [values for one in [parameters["common"], *parties] for values in one.values()]
    return {(values["table"]["namespace"], values["table"]["name"]) for values in components if "table" in values}


@pytest.mark.parametrize("fails", [True, False])
def test_the_tables_of_a_run_that_ends_early_are_removed_or_named(flow, capsys, fails):
    from fate1.checks import check
    from fate1.tables import prepared

    with pytest.raises(SystemExit):
        with prepared(flow):
            flow.stand_in.fails = fails
            check(False, "something")

    assert ("flow table delete -n he_nn_check -t digits_test" in capsys.readouterr().out) == fails
    assert fails or flow.stand_in.tables == FATES


def test_a_reader_of_one_party_reads_the_checks_own_table_too():
    from fate1.flow import _read_own_tables

    conf = {"component_parameters": {"role": {"host": {"0": {"reader_0": {"table": {"name": "a", "namespace": "experiment"}}}}}}}

    _read_own_tables(conf)

    assert conf["component_parameters"]["role"]["host"]["0"]["reader_0"]["table"] == {"name": "a", "namespace": "he_nn_check"}


@pytest.mark.parametrize(
    ("packages", "files", "out"),
    [
        ({"he-nn": "0.1.0"}, {"/other/federatedml": []}, "with --uninstall, for /other/federatedml"),
        ({"he-nn": "0.1.0"}, {}, "-m pip uninstall he-nn"),
        ({}, {}, ""),
    ],
)
def test_he_nn_that_came_in_another_way_is_refused_and_left(tmp_path, monkeypatch, capsys, packages, files, out):
    import fate1_jobs
    from fate_setup import deployment, record

    base = project(tmp_path / "fate")
    found = deployment.find(base=str(base))
    python = deployment.Python(found.python.path, (3, 8, 18), tmp_path, packages)
    found = deployment.Deployment("1.11.5", python, base, found.federatedml)
    record.Record(tmp_path / record.NAME, [], {found.key if key == "the same" else key: paths for key, paths in files.items()}).save()
    monkeypatch.setattr(fate1_jobs.deployments, "find", lambda **given: found)
    monkeypatch.setattr(fate1_jobs, "snapshot", lambda found: sys.exit("it begins"))
    monkeypatch.setenv("FATE_PROJECT_BASE", str(base))

    if not out:
        with pytest.raises(SystemExit, match="it begins"):
            fate1_jobs.main()
        return
    assert fate1_jobs.main() == 1
    said = capsys.readouterr().err
    assert "he-nn is in" in said and out in said and "install it again afterwards" in said


@pytest.mark.parametrize("before", [True, False])
def test_he_nn_that_was_installed_before_stays(tmp_path, monkeypatch, capsys, before):
    import fate1_jobs
    from fate_setup import deployment, record

    base, calls = project(tmp_path / "fate"), []
    found = deployment.find(base=str(base))
    python = deployment.Python(found.python.path, (3, 8, 18), tmp_path, {"he-nn": "0.1.0"} if before else {})
    found = deployment.Deployment("1.11.5", python, base, found.federatedml)
    record.Record(tmp_path / record.NAME, [], {found.key: []} if before else {}).save()
    monkeypatch.setattr(fate1_jobs.deployments, "find", lambda **given: found)
    monkeypatch.setattr(fate1_jobs, "setup", lambda found, *options: calls.append(options))
    monkeypatch.setattr(fate1_jobs, "snapshot", lambda found: [])
    monkeypatch.setattr(fate1_jobs, "surroundings", lambda found, home: {})
    monkeypatch.setattr(fate1_jobs, "unit_tests", lambda found, environment: None)
    monkeypatch.setattr(fate1_jobs, "flow_server", lambda found, environment: contextlib.nullcontext("127.0.0.1:1"))
    monkeypatch.setattr(fate1_jobs, "services", lambda home: contextlib.nullcontext(("", "")))
    monkeypatch.setattr(fate1_jobs, "Flow", lambda *given: None)
    monkeypatch.setattr(fate1_jobs, "jobs", lambda *given: {})
    monkeypatch.setenv("FATE_PROJECT_BASE", str(base))

    assert fate1_jobs.main() == 0
    assert calls == [(), ("--check",), *([] if before else [("--uninstall",)])]
    assert ("stays" in capsys.readouterr().out) == before
