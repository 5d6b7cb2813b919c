"""The error family: one class per thing a user can do about it.

Messages name the field or node, what came, what is allowed and what to do next. They never hold user rows, decrypted values or key
material, because FATE and the services show them on other people's screens.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence


class HeError(Exception):
    """Base of every error he_backend raises on purpose."""


class ParameterError(HeError, ValueError):
    """A parameter or option is outside what is allowed: change it and run again."""


class SecurityError(ParameterError):
    """A parameter set is below 128-bit security: take a stronger one."""


class InputError(HeError, ValueError):
    """The rows do not fit the model (shape, dtype, NaN or infinity, missing file): mend the data."""


class EngineError(HeError):
    """An engine is not available here or cannot do what was asked: install it or choose another."""


class CapacityError(HeError):
    """The values do not fit the modulus, or the work does not fit the memory budget: nothing was computed wrongly."""


class TransportError(HeError):
    """The other party cannot be reached or went away: the round may be sent again."""


class ProtocolError(HeError):
    """The other party sent something that the protocol does not allow, or speaks another version."""


class NotFoundError(HeError, LookupError):
    """A model, task or file that was named does not exist: list what there is."""


class Unauthenticated(HeError):
    """No token, or one that the service does not take: set HE_NN_TOKEN to one that its operator gave."""


class NotPermitted(HeError):
    """The caller is known and may not do this: ask the service's operator."""


class Cancelled(HeError):
    """The user stopped the work."""


class Unsupported(NamedTuple):
    """One node that cannot be run: its name, its operator, why, and the nearest replacement ('' when none)."""

    node: str
    op: str
    reason: str
    instead: str = ""


class ModelError(HeError, ValueError):
    """A model cannot be imported or split; `summary` says what is wrong with it as a whole, `problems` lists every unsupported node."""

    def __init__(self, message: str, problems: Sequence[Unsupported] = ()) -> None:
        self.summary, self.problems = message, tuple(problems)
        lines = [f"  {p.node} ({p.op}): {p.reason}" + (f"; instead: {p.instead}" if p.instead else "") for p in self.problems]
        super().__init__("\n".join([message, *lines]))
