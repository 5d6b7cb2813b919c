"""ONNX Runtime, which can report to its makers, does not where it works for us."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.processes import TOP

PROGRAM = """
import he_backend as he
from he_backend import zoo
network = zoo.shipped("MLP", "digits")
he.infer(str(network.onnx_path), network.load_test()[0][:2], preset="N11_L1")
"""


def test_an_inference_leaves_no_trace_of_telemetry(tmp_path):
    path = os.pathsep.join([str(TOP / "backend"), str(TOP)])
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment.update(PYTHONPATH=path, HOME=str(tmp_path), TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"))

    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, "the session and device ids of its telemetry are files"
