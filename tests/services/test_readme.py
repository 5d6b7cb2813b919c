"""The README's two flows by curl, as they are written there; only addresses and the generated file name are those of the test."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from he_backend import zoo
from tests import processes

TOP = Path(__file__).resolve().parents[2]


def commands():
    """The README's commands that speak to the services, and the one that makes the rows, in order."""
    section = (TOP / "README.md").read_text(encoding="utf-8").partition("## As a service")[2].partition("\n## ")[0]
    blocks = "\n".join(re.findall(r"```\n(.*?)```", section, re.DOTALL))
    joined = re.sub(r"\n[ \t]+", " ", blocks)
    return [line for line in joined.splitlines() if line.startswith(("curl", "python -c"))]


def test_the_flows_of_the_readme_run_as_they_are_written(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    server = processes.server(tmp_path / "server")
    client = processes.client(tmp_path / "client", server.http)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (bin_folder / "python").chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": f"{TOP / 'backend'}:{TOP}", "no_proxy": "*"}
    answers, uploaded = {}, ""
    try:
        for command in commands():
            line = command
            for written, here in (("127.0.0.1:12993", server.http), ("127.0.0.1:12995", client.http), ("83d702rows.npy", uploaded)):
                line = line.replace(written, here)
            done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, (line, done.stderr)
            if line.startswith("curl"):
                envelope = json.loads(done.stdout)
                assert envelope["code"] == 200, (line, envelope)
                answers[re.search(r"/model/(\w+)", line).group(1)] = envelope["data"]
                uploaded = envelope["data"].get("inf_file_name", uploaded)
    finally:
        client.stop()
        server.stop()

    labels = zoo.shipped("MLP").load_test()[1][:8].tolist()
    scores = json.loads(answers["inference"]["inference_result"])
    assert set(answers) == {"load", "get_list", "test", "uploadfile", "inference", "get_inference"}
    assert [row.index(max(row)) for row in scores] == labels
    assert answers["test"]["is_enc"] is True and answers["test"]["test_acc"] > 0.95
    assert answers["get_inference"]["inference_list"][0]["inference_id"] == answers["inference"]["inference_id"]
