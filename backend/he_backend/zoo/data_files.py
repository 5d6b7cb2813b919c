"""Where the data sets' files are, and what is said when one is not there."""

from __future__ import annotations

import os
from pathlib import Path

from he_backend.errors import NotFoundError


def data_folder() -> Path | None:
    """The folder that $HE_NN_DATA names; without it, ../shared/data beside the checkout when that exists; else None."""
    named = os.environ.get("HE_NN_DATA")
    if named:
        return Path(named)
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    return beside if beside.is_dir() else None


def data_file(folder: Path | None, place: str, name: str, source: str) -> Path:
    """The path FOLDER/place/name; `folder` is by default `data_folder()`.

    Raises:
        NotFoundError: the file is missing; the message names it and where it is published.
    """
    root = folder or data_folder()
    path = (root or Path("$HE_NN_DATA")) / place / name
    if root is None or not path.is_file():
        raise NotFoundError(f"missing {path}, published at {source}; set HE_NN_DATA to the folder that holds {place}/")
    return path
