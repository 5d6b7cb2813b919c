"""Who is let in: the check that both the HTTP API and the ciphertext channel make of every call."""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
from typing import Protocol

from he_backend.access.callers import ADMIN, LOCAL, Caller
from he_backend.access.tokens import TokenFile
from he_backend.errors import EngineError, ParameterError, Unauthenticated

BEARER = "Bearer "
_log = logging.getLogger(__name__)
_SIMULATION = Caller("simulated client", ADMIN)


class Gate(Protocol):
    """Tells who calls."""

    def admit(self, authorization: str) -> Caller:
        """The caller behind an Authorization header or its like ('' where none came). Raises Unauthenticated."""
        ...


class OpenGate:
    """Everyone is the local caller: for parties in one process, and for tests."""

    def admit(self, authorization: str) -> Caller:
        """The local caller."""
        return LOCAL


class TokenGate:
    """Lets in who has a token of the file. While the file has none, everyone is let in as the local caller, unless `required`;
    so it is without a file.

    Once it has had one, it stays closed to callers without a token for as long as the process lives, even when the last is removed.
    `inner_token` is known to this process alone: for its own simulated clients.
    """

    def __init__(self, tokens: TokenFile | None, required: bool = False) -> None:
        self.inner_token = secrets.token_urlsafe(32)
        self._tokens, self._required = tokens, required
        self._lock = threading.Lock()

    @property
    def required(self) -> bool:
        """Whether callers need a token."""
        with self._lock:
            self._required = self._required or (self._tokens is not None and bool(self._tokens.list()))
            return self._required

    def admit(self, authorization: str) -> Caller:
        """The caller behind `Bearer TOKEN`. Raises Unauthenticated; EngineError when the file cannot be read: then nobody is let in."""
        token = authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER.lower() else ""
        if token and hmac.compare_digest(token.encode("utf-8", "replace"), self.inner_token.encode()):
            return _SIMULATION
        try:
            if not self.required:
                return LOCAL
            if token and self._tokens is not None:
                return self._tokens.check(token)
        except ParameterError as problem:
            _log.error("nobody is let in: %s", problem)
            raise EngineError("the service cannot check tokens now; its log says why") from None
        raise Unauthenticated("a token is needed: send the header Authorization: Bearer TOKEN (clients read it from HE_NN_TOKEN)")
