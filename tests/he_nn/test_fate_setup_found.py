"""Which FATE he_nn_setup.sh takes where FATE_PROJECT_BASE, --base, --python and the PATH name more than one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.he_nn.fate_setup_project import outside_of_fate, project


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    outside_of_fate(monkeypatch)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.fixture
def base(tmp_path):
    return project(tmp_path / "fate")


@pytest.fixture
def python(tmp_path, monkeypatch):
    """An interpreter that says it has FATE Flow 2.2.0 in it."""
    from fate_setup import deployment

    path, inspect = tmp_path / "fate2" / "bin" / "python", deployment.inspect
    path.parent.mkdir(parents=True)
    told = deployment.Python(path, (3, 11, 7), path.parent.parent, {"fate-flow": "2.2.0"})
    monkeypatch.setattr(deployment, "inspect", lambda one: told if Path(one) == path else inspect(one))
    return path


@pytest.mark.parametrize("place", ["fate2", "fate"], ids=["of FATE 2.x", "of FATE 1.x"])
def test_a_python_with_fate_2_counts_for_more_than_the_environment(python, base, monkeypatch, place):
    from fate_setup import deployment

    monkeypatch.setenv("FATE_PROJECT_BASE", str(base.parent / place))  # FATE 2.x's bin/init_env.sh exports it

    found = deployment.find(python=str(python))

    assert not found.is_fate_1 and found.version == "2.2.0" and found.python.path == python


def test_fate_2_on_the_path_counts_for_more_than_a_folder_that_is_no_fate_1(python, base, monkeypatch):
    from fate_setup import deployment

    flow = python.with_name("fate_flow")
    flow.write_text("#!/bin/sh\n")
    flow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{python.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FATE_PROJECT_BASE", str(python.parents[1]))
    assert deployment.find().version == "2.2.0"

    monkeypatch.setenv("FATE_PROJECT_BASE", str(base))
    assert deployment.find().base == base.resolve()


def test_a_python_without_fate_2_is_that_of_the_project_in_the_environment(base, monkeypatch):
    from fate_setup import deployment

    monkeypatch.setenv("FATE_PROJECT_BASE", str(base))

    found = deployment.find(python=str(base / "venv/bin/python"))

    assert found.is_fate_1 and found.base == base.resolve()


def test_fate_1_with_a_python_of_fate_2_is_refused(python, base):
    from fate_setup import deployment

    with pytest.raises(deployment.SetupError, match=r"is FATE 1\.11\.5, and .* has FATE Flow 2\.2\.0 in it: name the Python"):
        deployment.find(str(python), str(base))
