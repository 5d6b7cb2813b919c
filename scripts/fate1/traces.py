"""What a job leaves on disk: FATE Flow's own files, all of them text, and nothing in them as long as a key."""

from __future__ import annotations

import re
from pathlib import Path

from .checks import check
from .flow import Flow

WRITTEN = (".json", ".log", "_pid")
DATABASE = "registry.sqlite"  # the host's models
# A secret key is thousands of numbers. Written down it is not text, or one long word, or a long list; what FATE Flow writes has blanks.
LONG_WORD = re.compile(rb"[A-Za-z0-9+/=_\\-]{1500,}")
CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")  # none of which a log has; \x1b begins a colour
LONG_LIST = re.compile(rb"(?:-?[0-9]+(?:\.[0-9]*)?[,;\s]+){400,}")


def files(folder: Path) -> set[Path]:
    """Every file under a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}


def no_key(flow: Flow, job_id: str, known: set[Path]) -> None:
    """Looks through the job's folders, and HE_NN_HOME without the `known` files that were there before."""
    found = [path for folder in flow.folders(job_id) for path in sorted(files(folder))] + sorted(files(flow.home) - known)
    odd = [path.name for path in found if path.name != DATABASE and not path.name.endswith(WRITTEN)]
    check(len(found) > 5 and not odd, f"it left {len(found)} files of FATE Flow's own kinds (others: {', '.join(odd[:5]) or 'none'})")
    long = [path.name for path in found if may_hold_key(path.read_bytes(), is_text=path.name != DATABASE)]
    check(not long, f"and nothing in them is as long as a key (too long: {', '.join(long[:5]) or 'none'})")


def may_hold_key(data: bytes, is_text: bool = True) -> bool:
    """Whether a key could be in there, in whatever form.

    Zero bytes alone are none: two processes that write to one std.log, as FATE Flow's own do where a task is stopped twice, leave a hole.
    """
    if is_text:
        data = data.replace(b"\0", b"")
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return True
        if CONTROL.search(data):
            return True
    return bool(LONG_WORD.search(data) or LONG_LIST.search(data))
