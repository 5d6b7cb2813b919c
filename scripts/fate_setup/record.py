"""What this script has put where, kept in FATE's Python so that --uninstall removes exactly that.

One Python may serve several FATE projects: packages go when the last of them is uninstalled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from .deployment import Deployment

NAME = "he_nn_setup.json"
OLD_NAME = "he_nn_setup.installed"  # package names by line, of he-nn before there was FATE 1.x


@dataclass
class Record:
    """Packages by name, and for each deployment the files and folders (folders before what is in them)."""

    path: Path
    packages: list[str] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)

    def add(self, key: str, packages: list[str]) -> None:
        """Notes packages that were installed for a deployment."""
        if packages:
            self.packages = sorted({*self.packages, *packages})
            self.files.setdefault(key, [])

    def save(self) -> None:
        """Writes the record, or removes it when it is empty."""
        if self.packages or self.files:
            text = json.dumps({"packages": sorted(self.packages), "files": self.files}, indent=1)
            self.path.write_text(text + "\n", encoding="utf-8")
        elif self.path.exists():
            self.path.unlink()
        old = self.path.with_name(OLD_NAME)
        if old.exists():
            old.unlink()


def read(deployment: Deployment) -> Record:
    """The record in a deployment's Python, empty where there is none."""
    path = deployment.python.prefix / NAME
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record(path, list(values["packages"]), dict(values["files"]))
    old = path.with_name(OLD_NAME)
    if old.is_file():
        return Record(path, old.read_text(encoding="utf-8").split(), {"fate_flow": []})
    return Record(path)
