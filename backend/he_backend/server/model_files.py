"""Files of the model registry: read what users hand in, write what is kept so that a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from pathlib import Path
from typing import Tuple, Union

import numpy as np

from he_backend.errors import EngineError, InputError

Source = Union[bytes, str, "os.PathLike[str]"]
TestSet = Union[Source, Tuple[np.ndarray, np.ndarray]]
_log = logging.getLogger(__name__)


def read_source(source: Source, what: str) -> bytes:
    """The bytes, or those of the file at a path; raises InputError naming `what` it is when there are none."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    else:
        try:
            data = Path(source).expanduser().read_bytes()
        except (OSError, ValueError) as problem:  # ValueError: a path with a NUL character
            reason = getattr(problem, "strerror", problem)
            raise InputError(f"the {what} file {os.fspath(source)!r} cannot be read: {reason}") from None
    if not data:
        raise InputError(f"the {what} file is empty")
    return data


def pack_test_set(test: TestSet) -> bytes:
    """A test set as the bytes of an .npz, from such bytes, a path, or (x, y); raises InputError when it is none."""
    if isinstance(test, tuple):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, x=test[0], y=test[1])
        data = buffer.getvalue()
    else:
        data = read_source(test, "test set")
    unpack_test_set(data)
    return data


def unpack_test_set(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Arrays (x, y) with the same number of rows from the bytes of an .npz; raises InputError for anything else."""
    advice = "save it with numpy.savez(path, x=rows, y=labels)"
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            x, y = np.asarray(arrays["x"]), np.asarray(arrays["y"])  # a damaged member comes as bytes
    except Exception:  # noqa: BLE001 - numpy and zipfile raise a dozen kinds for damaged files
        raise InputError(f"the test set is not an .npz file with plain arrays x and y: {advice}") from None
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y) or not len(x):
        raise InputError(f"the test set has x of shape {x.shape} and y of shape {y.shape}, both need the same rows: {advice}")
    return x, y


def write_temporary(folder: Path, data: bytes) -> Path:
    """A new file in the folder under a name nobody looks for; raises EngineError when it cannot be written."""
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=str(folder))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            unlink(Path(name))
            raise
    except OSError as problem:
        raise _unwritable("the model folder", folder, problem) from None
    return Path(name)


def rename(temporary: Path, path: Path) -> None:
    """Gives a temporary file its name at once; raises EngineError when that fails."""
    try:
        os.replace(str(temporary), str(path))
    except OSError as problem:
        raise _unwritable("a file of the model folder", path, problem) from None


def _unwritable(what: str, path: Path, problem: OSError) -> EngineError:
    # Callers of the HTTP API hear the error, and where the models lie is not for them.
    _log.error("%s cannot be written: %s: %s", what, path, problem.strerror)
    return EngineError(f"{what} cannot be written: {problem.strerror}; the log says where it is")


def unlink(*paths: Path) -> None:
    """Removes the files that are there."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
