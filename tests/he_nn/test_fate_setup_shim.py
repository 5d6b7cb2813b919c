"""The file among FATE 1.x's components, on the stand-in of the platform: FATE Flow imports it to start, whatever has become of he_nn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.he_nn.fate1_job import PLATFORM
from tests.he_nn.fate_setup_project import TOP

SHIM = TOP / "scripts" / "fate_setup" / "files" / "he_nn.py"
# As FATE 1.9 to 1.11 do: list the metas among a module's members, then ask the registry for what a job names.
LIST = """
import importlib, inspect, logging, sys
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
from federatedml.components.components import ComponentMeta
shim = importlib.import_module("he_nn_shim")
print("listed", sorted(meta.alias[1] for name, meta in inspect.getmembers(shim, lambda one: isinstance(one, ComponentMeta))))
for name in ("HeNNLoad", "HeNNEval", "HeNNInference", "he-nn-load", "he-nn-eval", "he-nn-inference"):
    meta = ComponentMeta.get_meta(name)
    print(sorted(meta.get_supported_roles()))
    for use in (lambda: meta.get_param_obj("one_0"), lambda: meta.get_run_obj_name("guest"), lambda: meta.get_run_obj_name("host")):
        try:
            use()
            print("usable")
        except ImportError as problem:
            print("refused", problem)
"""


def ran(tmp_path, he_nn):
    (tmp_path / "he_nn_shim.py").write_text(SHIM.read_text())
    if he_nn:
        (tmp_path / "he_nn").mkdir()
        (tmp_path / "he_nn" / "__init__.py").write_text(he_nn)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [tmp_path, PLATFORM, TOP / "backend", TOP]))}
    done = subprocess.run([sys.executable, "-c", LIST], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_fate_lists_the_components(tmp_path):
    said = ran(tmp_path, "")

    assert said[0] == "listed ['he-nn-eval', 'he-nn-inference', 'he-nn-load']"
    assert said.count("usable") == 18 and said.count("['guest', 'host']") == 6


@pytest.mark.parametrize("he_nn", ["raise RuntimeError('not today')", "import not_there"])
def test_fate_flow_starts_where_he_nn_is_broken_or_gone(tmp_path, he_nn):
    said = ran(tmp_path, he_nn)

    assert said[0].startswith("WARNING the components he-nn-load, he-nn-eval and he-nn-inference are left out: he-nn cannot be imported")
    assert said[1] == "listed []"
    refused = [line for line in said if line.startswith("refused he-nn cannot be imported in FATE's Python")]
    assert len(refused) == 18 and all("run he_nn_setup.sh again" in line and "--uninstall" in line for line in refused)
    assert said.count("['guest', 'host']") == 6
