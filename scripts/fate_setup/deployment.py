"""Finds a FATE deployment: where it is, which FATE, and the Python that it runs in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator, Mapping

USUAL_PLACES = (
    "/data/projects/fate",
    "/data/projects/standalone_fate*",
    "/data/projects/fate-*",
    "/opt/fate",
    "/fate",
    "~/fate",
    "~/standalone_fate*",
)
SERVED_1 = ((1, 9), (1, 11))
TELL = (
    "import json, sys\n"
    "from importlib import metadata\n"
    "found = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in metadata.distributions() if d.metadata['Name']}\n"
    "print(json.dumps({'version': list(sys.version_info[:3]), 'prefix': sys.prefix, 'packages': found}))\n"
)


class SetupError(Exception):
    """Why nothing was done, for the person at the terminal."""


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """Turns what the system says against a change of `path` into a SetupError that names it and says what to do."""
    try:
        yield
    except OSError as problem:
        named, reason = problem.filename or path, problem.strerror or problem
        raise SetupError(
            f"{named} cannot be read or changed ({reason}): see to its owner, its rights and the disk's space, then run this again; "
            "--uninstall takes out what was placed until now"
        ) from None


@dataclass(frozen=True)
class Python:
    """An interpreter and what is installed in it (name in lower case with dashes -> version)."""

    path: Path
    version: tuple
    prefix: Path
    packages: Mapping[str, str]


@dataclass(frozen=True)
class Deployment:
    """FATE `version` in `python`. `base` and `federatedml` are FATE 1.x's folders; None for FATE 2.x."""

    version: str
    python: Python
    base: Path | None = None
    federatedml: Path | None = None

    @property
    def is_fate_1(self) -> bool:
        """Whether this is FATE 1.x."""
        return self.federatedml is not None

    @property
    def key(self) -> str:
        """What the record of installed things knows it by."""
        return str(self.federatedml) if self.federatedml else "fate_flow"

    @property
    def where(self) -> str:
        """For messages."""
        return str(self.base) if self.base else str(self.python.prefix)


def find(python: str = "", base: str = "") -> Deployment:
    """The deployment that was named, or that FATE_PROJECT_BASE names, or FATE 2.x on the PATH, or one in the usual places.

    FATE 2.x's own bin/init_env.sh exports FATE_PROJECT_BASE too, so a Python with FATE Flow 2.x counts for more than that variable.
    """
    if base:
        return fate_1(Path(base).expanduser().resolve(), python)
    given = os.environ.get("FATE_PROJECT_BASE", "")
    project = Path(given).expanduser().resolve() if given else None
    if project is not None and federatedml_of(project) is not None and not python:
        return fate_1(project, python)
    flow = shutil.which("fate_flow")
    candidate = python or (str(Path(flow).parent / "python") if flow else "")
    found = inspect(candidate) if candidate else None
    if found is not None and has_fate_2(found):
        return fate_2(found)
    if project is not None:
        return fate_1(project, python)
    if found is not None and "fate-flow" in found.packages:
        return fate_2(found)
    for place in usual_places():
        return fate_1(place, python)
    if candidate:
        raise SetupError(f"{candidate} has no FATE Flow 2.x in it, and no FATE 1.x was found: set FATE_PROJECT_BASE to its folder")
    for name in ("python", "python3"):
        if shutil.which(name) and "fate-flow" in inspect(str(shutil.which(name))).packages:
            return fate_2(inspect(str(shutil.which(name))))
    raise SetupError(
        "no FATE was found: for FATE 1.9 to 1.11 set FATE_PROJECT_BASE to its folder, for FATE 2.2 name its interpreter with --python"
    )


def usual_places() -> Iterable[Path]:
    """Folders among the usual ones that hold FATE 1.x."""
    for pattern in USUAL_PLACES:
        path = Path(pattern).expanduser()
        for place in sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []:
            if federatedml_of(place) is not None:
                yield place


def federatedml_of(base: Path) -> Path | None:
    """The folder of the package federatedml under a FATE project's folder."""
    for place in ("fate/python", "python", "fate/fate/python"):
        if (base / place / "federatedml" / "components" / "components.py").is_file():
            return base / place / "federatedml"
    return None


def fate_1(base: Path, python: str) -> Deployment:
    """FATE 1.x under `base`. Raises SetupError when it is none, or not one of those served."""
    federatedml = federatedml_of(base)
    if federatedml is None:
        raise SetupError(f"{base} is not the folder of a FATE 1.x: there is no fate/python/federatedml and no python/federatedml in it")
    version = version_1(base)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not SERVED_1[0] <= numbers <= SERVED_1[1]:
        raise SetupError(f"{base} is FATE {version or 'of an unknown version (fate.env is missing)'}; served are 1.9 to 1.11 and 2.2")
    path = python or python_1(base)
    if not path:
        raise SetupError(f"the Python of {base} was not found (bin/init_env.sh names no venv): name it with --python")
    found = inspect(path)
    if found.version < (3, 8):
        raise SetupError(f"{path} is Python {'.'.join(map(str, found.version))}; he-nn needs 3.8 or newer")
    if has_fate_2(found):
        flow = found.packages["fate-flow"]
        raise SetupError(f"{base} is FATE {version}, and {path} has FATE Flow {flow} in it: name the Python of that FATE 1.x with --python")
    return Deployment(version, found, base, federatedml)


def version_1(base: Path) -> str:
    """FATE's version as its fate.env says, '' where there is none."""
    for path in (base / "fate.env", base / "fate" / "fate.env"):
        if path.is_file():
            match = re.search(r"^FATE=(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
            if match:
                return match.group(1)
    return ""


def python_1(base: Path) -> str:
    """The interpreter that bin/init_env.sh activates, or one in the places of FATE's own installers; '' where there is none."""
    script = base / "bin" / "init_env.sh"
    folders = []
    if script.is_file():
        folders += re.findall(r"^\s*(?:export\s+)?venv=[\"']?([^\"'\s]+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    folders += [str(base / "env/python/venv"), str(base / "env/python36/venv"), str(base / "common/python/venv")]
    folders += [os.environ["VIRTUAL_ENV"]] if os.environ.get("VIRTUAL_ENV") else []
    for folder in folders:
        path = Path(os.path.expandvars(folder)) / "bin" / "python"
        if path.is_file():
            return str(path)
    return ""


def has_fate_2(python: Python) -> bool:
    """Whether FATE Flow 2.x is in an interpreter."""
    return python.packages.get("fate-flow", "").startswith("2.")


def fate_2(python: Python) -> Deployment:
    """FATE 2.x in an interpreter. Raises SetupError when it is not 2.2."""
    version = python.packages["fate-flow"]
    if not has_fate_2(python):
        raise SetupError(f"FATE Flow {version} is in {python.prefix}; served are FATE 2.2, and 1.9 to 1.11 by FATE_PROJECT_BASE")
    return Deployment(version, python)


def inspect(path: str) -> Python:
    """What an interpreter says of itself. Raises SetupError when it does not run."""
    try:
        ran = subprocess.run([path, "-c", TELL], capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": ""})
        told = json.loads(ran.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        raise SetupError(f"{path} does not run as a Python of 3.8 or newer ({type(problem).__name__})") from None
    return Python(Path(path), tuple(told["version"]), Path(told["prefix"]), told["packages"])
