"""Whose request is being answered. The door sets it; what depends on the caller asks here, in the request's own context only."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Iterator

from he_backend.access.callers import Caller

_CALLER: ContextVar[Caller] = ContextVar("he_nn_caller")


def current_caller() -> Caller:
    """The caller of the request that this code answers. Outside of one there is none, and nothing is permitted: raises LookupError."""
    return _CALLER.get()


@contextlib.contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Code inside answers a request of that caller."""
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)
