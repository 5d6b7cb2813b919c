"""What this script has put where, kept in FATE's Python so that --uninstall removes exactly that.

One Python may serve several FATE projects: packages go when the last of them is uninstalled.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from .deployment import Deployment, SetupError, changing

NAME = "he_nn_setup.json"
OLD_NAME = "he_nn_setup.installed"  # package names by line, of he-nn before there was FATE 1.x


@dataclass
class Record:
    """Packages by name, for each deployment the files and folders (folders before what is in them), and of files that a user may edit the
    hashes of what this script has put there: two while one is replaced. Files that were placed before there were hashes have none."""

    path: Path
    packages: list[str] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)
    hashes: dict[str, list[str]] = field(default_factory=dict)

    def add(self, key: str, packages: list[str]) -> None:
        """Notes packages that were installed for a deployment."""
        if packages:
            self.packages = sorted({*self.packages, *packages})
            self.files.setdefault(key, [])

    def forget(self, paths: list[str]) -> None:
        """Leaves files out that are there no more."""
        self.files = {key: [name for name in names if name not in paths] for key, names in self.files.items()}
        self.hashes = {name: hashes for name, hashes in self.hashes.items() if name not in paths}

    def save(self) -> None:
        """Writes the record, or removes it when it is empty. One that is there is whole at any time."""
        part = self.path.with_name(self.path.name + ".new")
        with changing(self.path):
            if self.packages or self.files:
                values = {"packages": sorted(self.packages), "files": self.files, "hashes": self.hashes}
                part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
                os.replace(part, self.path)
            elif self.path.exists():
                self.path.unlink()
            old = self.path.with_name(OLD_NAME)
            if old.exists():
                old.unlink()


def read(deployment: Deployment) -> Record:
    """The record in a deployment's Python, empty where there is none. Raises SetupError for one that is damaged."""
    path = deployment.python.prefix / NAME
    old = path.with_name(OLD_NAME)
    with changing(path):
        if path.is_file():
            return _parsed(path, path.read_bytes())
        if old.is_file():
            return Record(path, old.read_text(encoding="utf-8").split(), {"fate_flow": []})
    return Record(path)


def _parsed(path: Path, text: bytes) -> Record:
    try:
        values = json.loads(text.decode("utf-8"))
        packages, files, hashes = values["packages"], values["files"], values.get("hashes", {})
        lists = [packages, *files.values(), *hashes.values()]
    except (ValueError, LookupError, TypeError, AttributeError) as problem:
        raise _damaged(path, f"{type(problem).__name__}: {problem}") from None
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise _damaged(path, "a list of names is none")
    return Record(path, packages, files, hashes)


def _damaged(path: Path, reason: str) -> SetupError:
    return SetupError(
        f"{path}, where this script notes what it has put where, is damaged ({reason}): mend it, or move it away and install again; "
        "--uninstall then takes out what that installation places, and leaves packages that an earlier one had brought"
    )
