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


def failing(command):
    from fate_setup.deployment import SetupError

    raise SetupError("pip could not install")


@pytest.mark.parametrize("fate_1", [True, False])
def test_he_nn_is_not_taken_out_before_its_successor_is_built(pip, fate_1):
    from fate_setup import deployment, packages

    pip.there["he-nn"] = "0.1.0"
    pip.answer = failing

    with pytest.raises(deployment.SetupError, match="could not install"):
        packages.install(pip.deployment(fate_1), TOP)

    assert not [command for command in pip.commands if "uninstall" in command]
