"""What goes into FATE's Python: he-nn and what it needs beside FATE's own packages, none of which is changed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Collection, Iterator

from .deployment import Deployment, Python, SetupError, inspect

NAME = "he-nn"
SOURCES = ("setup.py", "pyproject.toml", "README.md", "he_nn", "backend", "conf")  # what setup.py reads
NEEDED_PIP = (22, 2)  # the first that can say what it would do
PIP_WHEEL = "pip<24.1"  # runs on Python 3.8, and takes the metadata of FATE's older packages


def plan(deployment: Deployment, root: Path, ours: Collection[str]) -> dict[str, str]:
    """Name -> version of each package that would be installed, he-nn included. Raises SetupError when one that is not `ours` would have to
    change."""
    python = deployment.python
    if not deployment.is_fate_1:
        return {**{pin.partition("==")[0]: pin.partition("==")[2] for pin in missing_2(deployment, root, ours)}, NAME: version_of(root)}
    with _pip(python) as pip, _pins(python, ours) as pins, sources(root) as copy, tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        _run([*pip, "install", "--dry-run", "--report", str(report), "--quiet", *_constrained(pins), str(copy)], "plan")
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    wanted = {_canonical(one["metadata"]["name"]): one["metadata"]["version"] for one in found}
    wanted[NAME] = version_of(root)
    return wanted


def install(deployment: Deployment, root: Path, ours: Collection[str]) -> None:
    """Installs he-nn and what it needs; of what is there, those that are `ours` from before may be raised.

    Raises SetupError when pip fails or another package was changed. What it has installed until then, `added` tells.
    """
    before = deployment.python.packages
    if deployment.is_fate_1:
        with _pip(deployment.python) as pip, _pins(deployment.python, ours) as pins, sources(root) as copy:
            # pip installs a folder also where the same version is there, and takes the earlier he-nn out only when the new one is built.
            _run([*pip, "install", "--quiet", *_constrained(pins), str(copy)], "install")
    else:
        pip = [str(deployment.python.path), "-m", "pip"]
        missing = missing_2(deployment, root, ours)
        if missing:
            _run([*pip, "install", "--quiet", "--no-deps", *missing], "install")
        with sources(root) as copy:
            _run([*pip, "install", "--quiet", "--no-deps", "--force-reinstall", str(copy)], "install")
    after = inspect(str(deployment.python.path)).packages
    theirs = {name: version for name, version in before.items() if name != NAME and name not in ours}
    changed = [f"{name} {version} -> {after.get(name, 'gone')}" for name, version in theirs.items() if after.get(name) != version]
    if changed:
        raise SetupError("packages that were there before have changed: " + ", ".join(changed))


def added(deployment: Deployment) -> list[str]:
    """The names of the packages that are there now and were not when the deployment was looked at."""
    return sorted(set(inspect(str(deployment.python.path)).packages) - set(deployment.python.packages))


def remove(deployment: Deployment, names: list[str]) -> list[str]:
    """Removes packages; gives the names of those that were there."""
    there = [name for name in names if name in deployment.python.packages]
    if there:
        _run([str(deployment.python.path), "-m", "pip", "uninstall", "--quiet", "--yes", *there], "uninstall")
    return there


def missing_2(deployment: Deployment, root: Path, ours: Collection[str]) -> list[str]:
    """The pins of conf/fate-2.2-requirements.txt for he_backend that FATE 2.2's Python lacks, or has an older one of that is `ours`."""
    lines = (root / "conf" / "fate-2.2-requirements.txt").read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("# What he_backend needs there"))
    pins = [line.strip() for line in lines[start:] if "==" in line and not line.startswith("#")]
    there = deployment.python.packages

    def lacks(pin: str) -> bool:
        name, version = _canonical(pin.partition("==")[0]), pin.partition("==")[2]
        return name not in there or (name in ours and _release(there[name]) < _release(version))

    return [pin for pin in pins if lacks(pin)]


def version_of(root: Path) -> str:
    """he-nn's version."""
    text = (root / "backend" / "he_backend" / "version.py").read_text(encoding="utf-8")
    match = re.search(r"VERSION\s*=\s*[\"']([^\"']+)", text)
    return match.group(1) if match else ""


@contextlib.contextmanager
def sources(root: Path) -> Iterator[Path]:
    """A copy of the sources to build from: pip builds where they lie, and what an earlier build left there would be installed with them."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / NAME
        copy.mkdir()
        for name in SOURCES:
            if (root / name).is_dir():
                shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info"))
            else:
                shutil.copy2(root / name, copy / name)
        yield copy


def _constrained(pins: str) -> list[str]:
    return ["--prefer-binary", "--constraint", pins]


@contextlib.contextmanager
def _pins(python: Python, ours: Collection[str]) -> Iterator[str]:
    """A constraints file with everything that is installed, so that nothing of it moves but `ours`, which a later he-nn may need newer."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as stream:
        free = {NAME, "pip", *ours}
        stream.writelines(f"{name}=={version}\n" for name, version in python.packages.items() if name not in free)
        stream.flush()
        yield stream.name


@contextlib.contextmanager
def _pip(python: Python) -> Iterator[list[str]]:
    """A pip that can plan: the interpreter's own, or a newer one that runs from its wheel and is not installed."""
    own = [str(python.path), "-m", "pip"]
    if _release(python.packages.get("pip", "0")) >= NEEDED_PIP:
        yield own
        return
    with tempfile.TemporaryDirectory() as folder:
        _run([*own, "download", "--quiet", "--no-deps", "--dest", folder, PIP_WHEEL], "fetch a newer pip")
        wheel = next(Path(folder).glob("pip-*.whl"))
        yield [str(python.path), str(wheel / "pip")]


def _release(version: str) -> tuple:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str], what: str) -> None:
    """Runs pip; what it says goes to the terminal only when it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": ""}
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if ran.returncode != 0:
        print(ran.stdout, file=sys.stderr)
        raise SetupError(f"pip could not {what}; it says why above. FATE's own packages stay as they are")
