"""The user's rows at the door: right names, shapes, types, finite; otherwise an error that says which input is wrong, never a value."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from he_backend.errors import InputError
from he_backend.graph.fitting import check_fitting
from he_backend.graph.model import ValueSpec


@dataclass(frozen=True)
class RowFile:
    """The array of an .npy file, read a slice of rows at a time, so that memory does not grow with the file."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int  # bytes before the first value

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        each = math.prod(self.shape[1:])
        with open(self.path, "rb") as file:
            file.seek(self.offset + start * each * self.dtype.itemsize)
            values = np.fromfile(file, self.dtype, (stop - start) * each)
        if len(values) != (stop - start) * each:
            raise InputError(f"rows: {self.path} became shorter while it was read")
        return values.reshape((stop - start, *self.shape[1:]))


@dataclass(frozen=True)
class CheckedRows:
    """Rows that fit a model: of every input the same number, each of the right shape and type, all finite."""

    specs: tuple[ValueSpec, ...]
    sources: Mapping[str, Any]  # arrays or RowFiles
    count: int

    def __len__(self) -> int:
        return self.count

    def slice(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """name -> array [stop - start, *shape] of the input's type."""
        return {
            spec.name: np.ascontiguousarray(self.sources[spec.name][start:stop], dtype=spec.dtype).reshape((-1, *spec.shape))
            for spec in self.specs
        }

    def slices(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Slices of up to `rows` rows, in order."""
        for start in range(0, self.count, rows):
            yield self.slice(start, min(self.count, start + rows))


def load_rows(path: str | os.PathLike[str]) -> Any:
    """The rows of an .npy file (read as they are needed), or the arrays by name of an .npz; pickled objects are refused.

    Raises InputError.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"rows: there is no file {file}; give an .npy file (or an .npz with the input names)")
    try:
        mapped = np.load(file, allow_pickle=False, mmap_mode="r")
        if isinstance(mapped, np.memmap) and mapped.flags.c_contiguous and mapped.ndim:
            return RowFile(file, mapped.shape, mapped.dtype, int(mapped.offset))
        if isinstance(mapped, np.ndarray):
            return np.array(mapped)
        with mapped:
            return {name: mapped[name] for name in mapped.files}
    except Exception:  # noqa: BLE001 - numpy and zipfile raise a dozen kinds for damaged files
        raise InputError(f"rows: {file} is not a numpy array of numbers (.npy or .npz, without Python objects)") from None


def count_rows(rows: Any) -> int:
    """How many rows there seem to be, before they are checked; at least 1."""
    sources = list(rows.values()) if isinstance(rows, Mapping) else [rows]
    return max([len(source) for source in sources if getattr(source, "shape", None) or isinstance(source, (list, tuple))] or [1])


def check_rows(rows: Any, specs: Sequence[ValueSpec]) -> CheckedRows:
    """Rows for a model's inputs: an array or RowFile [rows, *shape] for one input, or a mapping by input name.

    Raises InputError naming the input for a wrong shape, a type that is not real numbers, NaN or infinity, numbers that the model's type
    cannot hold, or no rows at all.
    """
    if not isinstance(rows, Mapping):
        if len(specs) != 1:
            raise InputError(f"the model has {len(specs)} inputs ({', '.join(s.name for s in specs)}): give the rows of each by name")
        rows = {specs[0].name: rows}
    wrong = sorted(set(rows) ^ {spec.name for spec in specs})
    if wrong:
        raise InputError(f"inputs {', '.join(wrong)} do not match the model's: {', '.join(spec.name for spec in specs)}")
    sources = {name: source if isinstance(source, RowFile) else _array(name, source) for name, source in rows.items()}
    for spec in specs:
        _check_source(sources[spec.name], spec)
    counts = {name: len(source) for name, source in sources.items()}
    if len(set(counts.values())) != 1:
        raise InputError("the inputs have different numbers of rows: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    count = next(iter(counts.values()))
    if count == 0:
        raise InputError("there are no rows: give at least one")
    return CheckedRows(tuple(specs), sources, count)


def _check_source(source: Any, spec: ValueSpec) -> None:
    if source.dtype.kind not in "fiub" or source.dtype.itemsize > 8:
        raise InputError(f"input {spec.name}: the type is {source.dtype}; real numbers are expected, such as {spec.dtype}")
    flat = len(source.shape) == 2 and source.shape[1] == spec.size  # rows may be given flat
    if (source.shape[1:] != tuple(spec.shape) and not flat) or not source.shape:
        raise InputError(f"input {spec.name}: the shape is {source.shape}; expected is (rows, {', '.join(map(str, spec.shape))})")
    if source.dtype.kind == "f" and np.dtype(spec.dtype).kind in "iu":
        raise InputError(f"input {spec.name}: the type is {source.dtype}; integers ({spec.dtype}) are expected")
    check_fitting(source, spec)


def _array(name: str, source: Any) -> np.ndarray:
    """The rows as an array. Raises InputError when they are none."""
    try:
        return np.asarray(source)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"input {name}: the rows are no array of numbers; give every row the same shape") from None
