"""he_nn_setup.sh: which FATE it finds, what it would place, what it takes out, and what it refuses; without network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.he_nn.fate_setup_project import TOP, files_of, installed, outside_of_fate, project


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    outside_of_fate(monkeypatch)


@pytest.fixture
def base(tmp_path):
    return project(tmp_path / "fate")


@pytest.mark.parametrize("place", ["fate/python", "python"])
@pytest.mark.parametrize("version", ["1.9.0", "1.10.0", "1.11.5"])
def test_a_project_tells_its_version_and_python(tmp_path, place, version):
    from fate_setup import deployment

    found = deployment.find(base=str(project(tmp_path / "fate", version, place)))

    assert found.is_fate_1 and found.version == version
    assert found.federatedml == (tmp_path / "fate" / place / "federatedml").resolve()
    assert found.python.version[:2] == sys.version_info[:2] and "pip" in found.python.packages


def test_the_project_of_the_environment_is_found(base, monkeypatch):
    from fate_setup import deployment

    monkeypatch.setenv("FATE_PROJECT_BASE", str(base))

    assert deployment.find().base == base.resolve()


def test_a_project_in_a_usual_place_is_found(base, monkeypatch):
    from fate_setup import deployment

    monkeypatch.setattr(deployment, "USUAL_PLACES", (f"{base.parent}/fa*",))
    monkeypatch.setenv("PATH", "/usr/bin")

    assert deployment.find().base == base


@pytest.mark.parametrize(("version", "problem"), [("1.8.0", "is FATE 1.8.0; served are 1.9 to 1.11"), ("2.0.0", "is FATE 2.0.0")])
def test_another_fate_is_refused(tmp_path, version, problem):
    from fate_setup import deployment

    with pytest.raises(deployment.SetupError, match=problem):
        deployment.find(base=str(project(tmp_path / "fate", version)))


def test_a_folder_or_interpreter_that_is_none_is_refused(tmp_path, base):
    from fate_setup import deployment

    with pytest.raises(deployment.SetupError, match="is not the folder of a FATE 1.x"):
        deployment.find(base=str(tmp_path / "nothing"))
    with pytest.raises(deployment.SetupError, match="does not run as a Python"):
        deployment.find(base=str(base), python="/bin/true")
    (base / "bin" / "init_env.sh").unlink()
    with pytest.raises(deployment.SetupError, match="name it with --python"):
        deployment.find(base=str(base))


def test_uninstall_takes_out_exactly_what_install_placed(base, monkeypatch, capsys):
    before = files_of(base)
    assert installed(base, monkeypatch) == 0
    during = files_of(base)
    compiled = base / "fate/python/federatedml/components/__pycache__" / "he_nn.cpython-38.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"")

    added = set(during) - set(before)
    assert "fate/python/federatedml/components/he_nn.py" in added
    assert {"fate/python/federatedml/he_nn/test/he_nn_params_test.py", "examples/dsl/v2/he_nn/he_nn_all_in_one_dsl.json"} <= added
    assert "service.sh restart" in capsys.readouterr().out

    assert installed(base, monkeypatch, "--uninstall") == 0
    assert files_of(base) == before and not list(base.rglob("he_nn*")) and not (base / "examples/dsl/v2/he_nn").exists()
    assert installed(base, monkeypatch, "--uninstall") == 1


def test_a_second_installation_changes_nothing(base, monkeypatch):
    from fate_setup import record

    assert installed(base, monkeypatch) == 0
    first, noted = files_of(base), (base / "venv" / f"{base.name}.json").read_text()

    assert installed(base, monkeypatch) == 0

    assert files_of(base) == first and (base / "venv" / record.NAME).read_text() == noted
    assert set(json.loads(noted)["packages"]) == {"he-nn", "onnx"}


def test_a_file_of_someone_else_is_not_overwritten(base, monkeypatch, capsys):
    theirs = base / "fate/python/federatedml/components/he_nn.py"
    theirs.write_text("# another plugin\n")

    assert installed(base, monkeypatch) == 1

    assert theirs.read_text() == "# another plugin\n" and "was not placed by this script" in capsys.readouterr().err
    assert not (base / "venv" / f"{base.name}.json").exists()


def test_the_provider_stands_alone_in_its_folder(base, monkeypatch):
    from fate_setup import provider

    asked = []
    monkeypatch.setattr(provider, "post", lambda *given: asked.append(given) or {"retcode": 0})

    assert installed(base, monkeypatch, "--provider") == 0

    ((address, endpoint, body),) = asked
    assert (address, endpoint, body["name"]) == ("127.0.0.1:9381", "provider/register", "fate_sql")
    path = Path(body["path"])
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert (path / "components" / "components.py").is_file() and (path / "components" / "he_nn.py").is_file()
    assert not (base / "fate/python/federatedml/components/he_nn.py").exists()


def test_packages_keep_their_versions_or_the_installation_fails(base, monkeypatch):
    from dataclasses import replace

    from fate_setup import deployment, packages

    found = deployment.find(base=str(base))
    commands = []
    monkeypatch.setattr(packages, "_run", lambda command, what: commands.append(command))
    after = {**found.python.packages, "he-nn": "0.1.0", "pip": "9.9"}
    monkeypatch.setattr(packages, "inspect", lambda path: replace(found.python, packages=after))

    with pytest.raises(deployment.SetupError, match=r"have changed: pip \S+ -> 9\.9"):
        packages.install(found, TOP, [])

    assert "--constraint" in commands[-1]


def test_nothing_is_built_among_the_sources(base, monkeypatch):
    """pip writes where it builds, and would install what an earlier build of other code had left there."""
    from fate_setup import deployment, packages

    found, seen = deployment.find(base=str(base)), {}

    def run(command, what):
        place = Path(command[-1])
        if what != "install":
            return
        seen[place] = {str(path.relative_to(place)) for path in place.rglob("*")}

    monkeypatch.setattr(packages, "_run", run)
    monkeypatch.setattr(packages, "inspect", lambda path: found.python)
    packages.install(found, TOP, [])

    ((place, names),) = seen.items()
    assert TOP not in (place, *place.parents) and not place.exists()
    assert {"setup.py", "conf/N13_L8.json", "he_nn/guest.py", "backend/native/module.cpp", "backend/he_backend/zoo/weights"} <= names
    assert not [name for name in names if name.endswith(".so") or "__pycache__" in name or name.startswith(("build", "."))]


def test_folders_are_relative_to_where_the_user_is(base):
    command = ["bash", str(TOP / "he_nn_setup.sh"), "--base", "fate", "--uninstall"]

    ran = subprocess.run(
        command, cwd=base.parent, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}, capture_output=True, text=True
    )

    assert f"FATE 1.11.5 at {base.resolve()}" in ran.stdout and "has put nothing into" in ran.stderr


@pytest.fixture
def board(tmp_path):
    """A FATE-Board 2.x as its package unpacks, with one of FATE's own descriptions."""
    folder = tmp_path / "fateboard"
    (folder / "dag").mkdir(parents=True)
    (folder / "dag" / "psi.yaml").write_text("component:\n  name: psi\n")
    return folder


@pytest.fixture
def fate_2(tmp_path, monkeypatch):
    """What runs the command on a FATE 2.2 whose packages are only said to be installed; gives its exit status."""
    from fate_setup import __main__ as command
    from fate_setup import deployment, packages

    found = deployment.Deployment("2.2.0", deployment.Python(Path(sys.executable), (3, 11, 7), tmp_path, {"fate-flow": "2.2.0"}))
    monkeypatch.setattr(command, "find", lambda *given: found)
    monkeypatch.setattr(packages, "install", lambda deployment, root, ours: None)
    monkeypatch.setattr(packages, "added", lambda deployment: ["he-nn"])
    monkeypatch.setattr(packages, "remove", lambda deployment, names: names)
    monkeypatch.setattr(command, "_import_components", lambda deployment: None)
    return lambda *options: command.main(list(options))


def test_the_board_of_fate_2_is_given_descriptions_and_keeps_them_until_uninstallation(fate_2, board, capsys):
    before = files_of(board)

    assert fate_2() == 0 and files_of(board) == before
    assert "--board FOLDER" in capsys.readouterr().out
    assert fate_2("--board", str(board)) == 0
    placed = files_of(board)
    assert fate_2() == 0 and files_of(board) == placed
    assert {name: content for name, content in placed.items() if name not in before} == {
        f"dag/he-nn-{name}.yaml": (TOP / "he_nn/fate2/component_define" / f"he-nn-{name}.yaml").read_bytes()
        for name in ("load", "eval", "inference")
    }
    assert fate_2("--uninstall") == 0 and files_of(board) == before


def test_a_board_that_is_gone_is_not_made_anew(fate_2, board):
    assert fate_2("--board", str(board)) == 0
    shutil.rmtree(board)

    assert fate_2() == 0 and not board.exists()
    assert fate_2("--uninstall") == 0


def test_a_folder_that_is_no_board_is_refused(fate_2, tmp_path, base, monkeypatch, capsys):
    assert fate_2("--board", str(tmp_path)) == 1
    assert "has no folder dag" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    assert installed(base, monkeypatch, "--board", str(tmp_path)) == 1
    assert "--board is for FATE 2.x" in capsys.readouterr().err


def test_without_a_fate_the_script_says_what_to_do_and_changes_nothing(tmp_path):
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path), "FATE_PROJECT_BASE": str(tmp_path)}

    ran = subprocess.run(["bash", str(TOP / "he_nn_setup.sh"), "--dry-run"], env=environment, capture_output=True, text=True)

    assert ran.returncode == 1 and "is not the folder of a FATE 1.x" in ran.stderr
    assert os.listdir(tmp_path) == []


def test_the_placed_unit_tests_print_failed_where_an_import_is_broken(tmp_path):
    for path in sorted((TOP / "scripts" / "fate_setup" / "files" / "unit").rglob("*_test.py")):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
        ran = subprocess.run([sys.executable, "-S", str(path)], env=environment, capture_output=True, text=True)
        assert ran.returncode == 1 and "FAILED" in ran.stdout, path.name


def test_the_placed_unit_tests_print_ok_on_the_stand_in():
    from tests.he_nn.fate1_job import PLATFORM

    for path in sorted((TOP / "scripts" / "fate_setup" / "files" / "unit").rglob("*_test.py")):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [PLATFORM, TOP / "backend", TOP]))}
        ran = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True)
        assert ran.stderr.rstrip().endswith("OK"), ran.stderr


def test_the_self_check_runs_an_encrypted_inference(capsys):
    from he_nn import selfcheck

    assert selfcheck.main() == 0
    assert "the predictions are those of the plain network" in capsys.readouterr().out
