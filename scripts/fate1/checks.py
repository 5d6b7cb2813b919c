"""What a run finds, said line by line; a wrong finding ends it."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any, Callable

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = TOP / "dsl_examples"


def check(holds: bool, what: str) -> None:
    """Prints a finding; a wrong one ends the run."""
    print(("ok      " if holds else "WRONG   ") + what, flush=True)
    if not holds:
        raise SystemExit(1)


def note(what: str) -> None:
    """Prints what is neither right nor wrong."""
    print(f"note    {what}", flush=True)


def wait_for(true: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """What `true` gives once it is something."""
    end = time.monotonic() + timeout_s
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > end:
            check(False, f"{what} within {timeout_s:.0f} s")
        time.sleep(0.5)


def listens(host: str, port: int) -> bool:
    """Whether someone takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
