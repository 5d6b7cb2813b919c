"""What he_nn_setup.sh asks of pip, and what it records of it when pip does not get to its end; without pip and network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.he_nn.fate_setup_project import TOP


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(TOP / "scripts"))


@pytest.fixture
def pip(monkeypatch):
    """A stand-in of pip in an interpreter: `there` is what is installed, `commands` what was asked; `answer(command)` may fail."""
    return Pip(monkeypatch)


class Pip:
    def __init__(self, monkeypatch):
        from fate_setup import packages

        self.there, self.commands, self.pinned = {"pip": "23.2.1", "numpy": "1.23.5"}, [], []
        self.answer = lambda command: None
        monkeypatch.setattr(packages, "_run", self.run)
        monkeypatch.setattr(packages, "inspect", lambda path: self.python())

    def python(self):
        from fate_setup import deployment

        return deployment.Python(Path(sys.executable), (3, 8, 18), Path(sys.prefix), dict(self.there))

    def run(self, command, what):
        self.commands.append([one for one in command if one != "--quiet"])
        if "--constraint" in command:
            pins = Path(command[command.index("--constraint") + 1]).read_text(encoding="utf-8")
            self.pinned.append(dict(line.split("==") for line in pins.split()))
        self.answer(command)

    def deployment(self, fate_1=True):
        from fate_setup import deployment

        found = deployment.Deployment("2.2.0", self.python())
        return replace(found, version="1.11.5", base=Path("/fate"), federatedml=Path("/fate/python/federatedml")) if fate_1 else found


@pytest.fixture
def command(pip, tmp_path, monkeypatch):
    """What runs the command on a deployment with the stand-in of pip and no files to place; gives the exit status."""
    from fate_setup import __main__ as command

    def run(*options, fate_1=False):
        found = pip.deployment(fate_1)
        found = replace(found, python=replace(found.python, prefix=tmp_path))
        monkeypatch.setattr(command, "find", lambda *given: found)
        return command.main(list(options))

    monkeypatch.setattr(command, "_import_components", lambda deployment: None)
    monkeypatch.setattr(command, "_planned", lambda *given: {})
    return run


def refused():
    from fate_setup.deployment import SetupError

    return SetupError("pip could not install")


def obeying(pip, onnx="", problem=None):
    """pip as it does what it is told, with a dependency of he-nn where it resolves; `problem` is raised as he-nn itself is built."""

    def answer(command):
        if "uninstall" in command:
            for name in command[command.index("--yes") + 1 :]:
                pip.there.pop(name)
            return
        pip.there.update(dict(one.split("==") for one in command if "==" in one))
        if "--no-deps" not in command and onnx:
            pip.there["onnx"] = onnx
        if command[-1].startswith("/"):
            if problem is not None:
                raise problem
            pip.there["he-nn"] = "0.1.0"

    return answer


@pytest.mark.parametrize("fate_1", [True, False])
def test_he_nn_is_not_taken_out_before_its_successor_is_built(pip, fate_1):
    from fate_setup import deployment, packages

    pip.there["he-nn"] = "0.1.0"
    pip.answer = obeying(pip, problem=refused())

    with pytest.raises(deployment.SetupError, match="could not install"):
        packages.install(pip.deployment(fate_1), TOP, [])

    assert not [command for command in pip.commands if "uninstall" in command]


@pytest.mark.parametrize("fate_1", [True, False])
@pytest.mark.parametrize("interrupted", [True, False])
def test_what_a_broken_installation_has_brought_is_taken_out(pip, command, fate_1, interrupted):
    before = dict(pip.there)
    problem = KeyboardInterrupt() if interrupted else refused()

    pip.answer = obeying(pip, "1.12.0", problem)
    assert command(fate_1=fate_1) != 0 and set(pip.there) > set(before)
    pip.answer = obeying(pip)
    assert command("--uninstall", fate_1=fate_1) == 0

    assert pip.there == before


def test_what_an_installation_has_brought_that_moved_a_package_is_taken_out(pip, command, capsys):
    def answer(one):
        obeying(pip, "1.12.0")(one)
        if "uninstall" not in one:
            pip.there["numpy"] = "2.0.0"

    pip.answer = answer

    assert command(fate_1=True) == 1 and "numpy 1.23.5 -> 2.0.0" in capsys.readouterr().err
    assert command("--uninstall", fate_1=True) == 0
    assert set(pip.there) == {"pip", "numpy"}


def test_where_pip_does_nothing_nothing_is_recorded(pip, command, tmp_path):
    def answer(one):
        raise refused()

    pip.answer = answer

    assert command(fate_1=True) == 1 and list(tmp_path.iterdir()) == []
    assert command("--uninstall", fate_1=True) == 1


def test_a_later_he_nn_may_raise_what_an_earlier_one_brought_and_nothing_else(pip, command):
    pip.answer = obeying(pip, "1.12.0")
    assert command(fate_1=True) == 0
    assert pip.pinned[-1] == {"numpy": "1.23.5"}

    pip.answer = obeying(pip, "1.17.0")
    assert command(fate_1=True) == 0

    assert pip.there["onnx"] == "1.17.0" and pip.pinned[-1] == {"numpy": "1.23.5"}


def test_on_fate_2_a_package_of_ours_that_is_older_than_the_pin_is_raised(pip, command):
    pip.answer = obeying(pip)
    assert command() == 0
    pins = dict(one.split("==") for one in pip.commands[0] if "==" in one)
    assert pins.items() <= pip.there.items() and "numpy" not in pins
    pip.there.update({"onnx": "1.9.0", "tenseal": "99.0"})

    assert command() == 0

    assert [one for one in pip.commands[2] if "==" in one] == [f"onnx=={pins['onnx']}"]
    assert pip.there["onnx"] == pins["onnx"] and pip.there["tenseal"] == "99.0"


def test_on_fate_2_a_package_of_someone_elses_is_left_as_it_is(pip, command):
    pip.there["onnx"] = "1.9.0"
    pip.answer = obeying(pip)

    assert command() == 0 and pip.there["onnx"] == "1.9.0"
    assert command("--uninstall") == 0 and pip.there["onnx"] == "1.9.0"
