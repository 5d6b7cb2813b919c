"""Errors as Failure messages and back. What the table does not name stays inside the process it happened in."""

from __future__ import annotations

from typing import Mapping

from he_backend import errors
from he_backend.protocol.messages import Failure

MOST_CHARACTERS = 8000

# Name on the wire -> the class it becomes here; special classes first, because the first that fits an error names it.
KINDS: Mapping[str, type[errors.HeError]] = {
    "security": errors.SecurityError,
    "parameter": errors.ParameterError,
    "model": errors.ModelError,
    "input": errors.InputError,
    "engine": errors.EngineError,
    "capacity": errors.CapacityError,
    "transport": errors.TransportError,
    "protocol": errors.ProtocolError,
    "not_found": errors.NotFoundError,
    "cancelled": errors.Cancelled,
    "unauthenticated": errors.Unauthenticated,
    "not_permitted": errors.NotPermitted,
}
INTERNAL = Failure("internal", "an error inside the other side's software, which its log describes; nothing was computed")


def failure_of(error: BaseException) -> Failure:
    """What a peer may learn of an error: kind and message of the errors we raise on purpose, nothing of any other."""
    for kind, cls in KINDS.items():
        if isinstance(error, cls):
            return Failure(kind, _printable(str(error)))
    return INTERNAL


def error_of(failure: Failure) -> errors.HeError:
    """The error to raise for a peer's Failure; ProtocolError where its kind is unknown."""
    text = f"the other side answered: {_printable(failure.message)}"
    if failure.kind == INTERNAL.kind:
        return errors.EngineError(text)
    return KINDS.get(failure.kind, errors.ProtocolError)(text)


def _printable(text: str) -> str:
    """Text for a log or terminal: no control characters, bounded."""
    clean = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
    return clean if len(clean) <= MOST_CHARACTERS else f"{clean[: MOST_CHARACTERS - 1]}…"
