"""The user's rows at the door: right names, shapes, types, finite; otherwise an error that says which input is wrong, never a value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from he_backend.errors import InputError
from he_backend.graph.model import ValueSpec


def load_rows(path: str | os.PathLike[str]) -> Any:
    """The array of an .npy file, or the arrays by name of an .npz; pickled objects are refused. Raises InputError."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"rows: there is no file {file}; give an .npy file (or an .npz with the input names)")
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError):
        raise InputError(f"rows: {file} is not a numpy array of numbers (.npy or .npz, without Python objects)") from None


def check_rows(rows: Any, specs: Sequence[ValueSpec]) -> dict[str, np.ndarray]:
    """name -> array [rows, *shape] of the input's type, for an array (one input) or a mapping by input name.

    Raises InputError naming the input for a wrong shape, a type that is not real numbers, NaN or infinity, or no rows at all.
    """
    if not isinstance(rows, Mapping):
        if len(specs) != 1:
            raise InputError(f"the model has {len(specs)} inputs ({', '.join(s.name for s in specs)}): give the rows of each by name")
        rows = {specs[0].name: rows}
    wrong = sorted(set(rows) ^ {spec.name for spec in specs})
    if wrong:
        raise InputError(f"inputs {', '.join(wrong)} do not match the model's: {', '.join(spec.name for spec in specs)}")
    checked = {spec.name: _check_array(np.asarray(rows[spec.name]), spec) for spec in specs}
    counts = {len(array) for array in checked.values()}
    if len(counts) != 1:
        raise InputError("the inputs have different numbers of rows: " + ", ".join(f"{name} {len(a)}" for name, a in checked.items()))
    if counts == {0}:
        raise InputError("there are no rows: give at least one")
    return checked


def _check_array(array: np.ndarray, spec: ValueSpec) -> np.ndarray:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise InputError(f"input {spec.name}: the type is {array.dtype}; real numbers are expected, such as {spec.dtype}")
    due = tuple(spec.shape)
    if array.shape[1:] != due:
        size = int(np.prod(due, dtype=np.int64))
        if array.ndim == 2 and array.shape[1] == size:
            array = array.reshape((len(array), *due))  # rows given flat
        else:
            raise InputError(f"input {spec.name}: the shape is {array.shape}; expected is (rows, {', '.join(map(str, due))})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array.reshape(len(array), -1)).all(axis=1)).sum())
        raise InputError(f"input {spec.name}: {bad} of {len(array)} rows have NaN or infinity; mend or leave out these rows")
    if np.dtype(spec.dtype).kind in "iu" and array.dtype.kind == "f":
        raise InputError(f"input {spec.name}: the type is {array.dtype}; integers ({spec.dtype}) are expected")
    return np.ascontiguousarray(array, dtype=spec.dtype)
