"""Files and folders that a command will write: tried before its work, and what is wrong with them told by the option that names them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from he_backend.errors import HeError, InputError


def check_file(option: str, path: str | None, endings: Sequence[str] = ()) -> None:
    """Raises InputError for a file that cannot be written, or whose name ends in none of `endings`. None: the option was not given."""
    if path is None:
        return
    if endings and not path.endswith(tuple(endings)):
        raise InputError(f"{option}: {path}; allowed: a name that ends in {' or '.join(endings)}")
    with writing(option, path):
        target = os.path.realpath(path)
        known = os.path.exists(target)
        if known and not os.path.isfile(target):
            return  # a device or a pipe: opening it may wait
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o666))
        finally:
            if not known:
                with suppress(OSError):
                    os.unlink(target)


def check_folder(option: str, path: str) -> None:
    """Raises InputError for a folder that cannot be written to or made."""
    with writing(option, path):
        folder = Path(os.path.realpath(path))
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if not there.is_dir():
            raise NotADirectoryError(0, f"{there} is not a folder")
        with tempfile.TemporaryFile(dir=there):
            pass


@contextmanager
def writing(option: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """What goes wrong with writing what an option names, as InputError."""
    try:
        yield
    except HeError:
        raise
    except (OSError, ValueError) as problem:
        raise InputError(f"{option}: {os.fspath(path)} cannot be written: {getattr(problem, 'strerror', None) or problem}") from None
