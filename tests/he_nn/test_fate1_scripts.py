"""What `make test-fate1` checks with: that it would see a key on disk, a party's processes, and tables where FATE brings none."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

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
