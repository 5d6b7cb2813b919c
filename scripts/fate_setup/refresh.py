"""Brings placed files up to date. One that was edited since is the user's: it is neither replaced nor removed."""

from __future__ import annotations

from pathlib import Path

from . import placing
from .placing import digest
from .record import Record


def refresh(known: Record, key: str, wanted: dict[Path, Path]) -> list[str]:
    """Places what is wanted, takes out what was placed earlier and is not; gives the files that it left because they were edited.

    Everything is recorded before it is done: a run that breaks off can be repeated, and taken out.
    """
    before = known.files.get(key, [])
    left = kept(known, before, wanted)
    stale = [path for path in before if Path(path).is_file() and Path(path) not in wanted and path not in left]
    fresh = {path: source for path, source in wanted.items() if str(path) not in left}
    hashes = {str(path): [digest(source)] for path, source in fresh.items() if placing.may_be_edited(source)}
    known.files[key] = list(dict.fromkeys([*before, *placing.to_make(fresh)]))
    known.hashes.update({path: ([digest(Path(path))] if Path(path).exists() else []) + new for path, new in hashes.items()})
    known.save()
    known.forget(placing.take_out(stale))
    placing.place(fresh)
    known.hashes.update(hashes)
    known.save()
    return left


def kept(known: Record, placed: list[str], wanted: dict[Path, Path]) -> list[str]:
    """Those of the placed files that hold neither what was placed nor what is wanted there now. One without hashes counts as unedited."""
    there = [(name, Path(name)) for name in placed if name in known.hashes and Path(name).is_file()]
    holding = [(name, digest(path), wanted.get(path)) for name, path in there]
    return [name for name, held, source in holding if held not in known.hashes[name] and (source is None or held != digest(source))]
