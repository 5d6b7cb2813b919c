"""A FATE 1.x project as its installers leave it, and he_nn_setup.sh's commands on it without pip."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def outside_of_fate(monkeypatch):
    """The scripts can be imported, and nothing tells of a FATE on this machine."""
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    for name in ("FATE_PROJECT_BASE", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)


def project(base, version="1.11.5", place="fate/python"):
    """A folder as FATE's installers leave it, with this Python as its own."""
    components = base / place / "federatedml" / "components"
    components.mkdir(parents=True)
    (components / "components.py").write_text("# FATE's\n")
    (base / "fate.env").write_text(f"FATE={version}\nFATEFlow=1.11.2\n")
    (base / "examples" / "dsl" / "v2").mkdir(parents=True)
    binaries = base / "venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    (base / "bin").mkdir()
    (base / "bin" / "init_env.sh").write_text(f"export PYTHONPATH=\nvenv={base}/venv\nsource ${{venv}}/bin/activate\n")
    (base / "conf").mkdir()
    (base / "conf" / "service_conf.yaml").write_text(
        "party_id:\nfateflow:\n  # a remark\n  host: 127.0.0.1\n  http_port: 9381\n  nginx:\n    host:\n"
    )
    return base


def installed(base, monkeypatch, *options):
    """The exit status of an installation whose packages are only said to be installed, in a Python of its own place."""
    from fate_setup import __main__ as command
    from fate_setup import packages

    monkeypatch.setattr(packages, "install", lambda deployment, root, ours: None)
    monkeypatch.setattr(packages, "added", lambda deployment: ["he-nn", "onnx"])
    monkeypatch.setattr(packages, "remove", lambda deployment, names: names)
    monkeypatch.setattr(command, "_import_components", lambda deployment: None)
    monkeypatch.setattr(command.record, "NAME", f"{base.name}.json")
    inspect = command.find
    monkeypatch.setattr(command, "find", lambda *given: moved(inspect(*given), base))
    return command.main(["--base", str(base), *options])


def moved(deployment, base):
    return replace(deployment, python=replace(deployment.python, prefix=base / "venv"))


def files_of(base):
    return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file() and "venv" not in path.parts}
