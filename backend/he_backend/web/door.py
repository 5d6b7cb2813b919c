"""The door of an HTTP service: who calls, how many at a time, how slowly; what came of it is counted and logged.

It stands before the service, so nothing of a request's body is read before its caller is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Iterator, Mapping, MutableMapping

from fastapi import FastAPI

from he_backend.access.callers import MONITOR, Caller
from he_backend.access.gate import Gate
from he_backend.errors import HeError, NotPermitted, Unauthenticated
from he_backend.web import answers
from he_backend.web.answers import QueueFull, TooSlow
from he_backend.web.callers import calling
from he_backend.web.metrics import Metrics

# What needs no token: probes of load balancers, documents, and the page, which holds no data of its own.
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico")
OPEN_BELOW = ("/page/",)
METRICS_PATH = "/metrics"
_DRAIN_BYTES, _DRAIN_S = 16 << 20, 3.0
_NOBODY = Caller("nobody", MONITOR)
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class DoorLimits:
    """Requests at a time, those that wait for an inference included, and seconds that a request may stand still while it is sent."""

    requests: int = 256
    idle_s: float = 60.0


class Door:
    """A FastAPI service behind a gate. `metrics` are counted here and shown at /metrics, to admins and monitors."""

    def __init__(self, app: FastAPI, gate: Gate, metrics: Metrics, limits: DoorLimits = DoorLimits()) -> None:
        self._app, self._gate, self._metrics, self._limits = app, gate, metrics, limits
        self._paths = frozenset(str(getattr(route, "path", "")) for route in app.routes) | {METRICS_PATH}
        self._requests = self._admitted = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._requests += 1
        # Where many are under way, nobody's unwanted body is waited for.
        exchange = _Exchange(receive, send, self._limits.idle_s, _closes(scope) and self._requests <= self._limits.requests)
        caller, place = _NOBODY, 0 if _is_open(scope) else 1
        try:
            try:
                caller = self._admit(scope)
            except HeError as problem:
                _log.warning("refused: %s", problem, extra=_about(scope, caller))
                self._metrics.refused(type(problem).__name__)
                await answers.refusal(problem)(scope, exchange.receive, exchange.send)
                return
            # Those that were refused, and probes, take nobody's place.
            with calling(caller), self._taken(place):
                if scope["path"] == METRICS_PATH and scope["method"] == "GET":
                    await self._metrics.response()(scope, exchange.receive, exchange.send)
                else:
                    await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._requests -= 1
            self._told(scope, caller, exchange)

    def _admit(self, scope: Scope) -> Caller:
        """The caller; raises HeError where the request goes no further."""
        path, is_open = scope["path"], _is_open(scope)
        authorization = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
        try:
            caller = self._gate.admit(authorization)
        except Unauthenticated:
            if not is_open:
                raise
            caller = _NOBODY
        if is_open:
            return caller
        if path == METRICS_PATH:
            if not (caller.is_admin or caller.role == MONITOR):
                raise NotPermitted(f"the metrics need a token with role admin or monitor; token {caller.name!r} has role {caller.role}")
            return caller
        if caller.role == MONITOR:
            raise NotPermitted(f"token {caller.name!r} has role {MONITOR}: it reads the metrics and nothing else")
        if self._admitted >= self._limits.requests:
            raise QueueFull(f"{self._limits.requests} requests are under way, more are not taken; ask again in a few seconds")
        return caller

    @contextlib.contextmanager
    def _taken(self, places: int) -> Iterator[None]:
        self._admitted += places
        try:
            yield
        finally:
            self._admitted -= places

    def _told(self, scope: Scope, caller: Caller, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.started
        self._metrics.answered(scope["path"] if scope["path"] in self._paths else "other", exchange.status, seconds)
        status = {"status": exchange.status, "seconds": round(seconds, 4)}
        level = logging.WARNING if exchange.status == 403 else logging.INFO
        _log.log(level, "%s %s", scope["method"], scope["path"][:200], extra={**_about(scope, caller), **status})


class _Exchange:
    """A request's way in and its answer's way out."""

    def __init__(self, receive: Receive, send: Send, idle_s: float, closes: bool) -> None:
        self.started, self.status = time.perf_counter(), 0
        self._receive, self._send, self._idle_s, self._closes = receive, send, idle_s, closes
        self._complete = False

    async def receive(self) -> Message:
        """The next piece; while the body is not complete, it must come in time. Raises TooSlow."""
        if self._complete:
            return await self._receive()  # only the end of the connection can follow
        try:
            message = await asyncio.wait_for(self._receive(), self._idle_s)
        except asyncio.TimeoutError:
            raise TooSlow(f"the request stood still for {self._idle_s:g} s") from None
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """A piece of the answer; answers are no business of caches, and are what their type says."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            there = {name.lower() for name, _ in message.get("headers", ())}
            message = {**message, "headers": [*message.get("headers", ()), *(pair for pair in _HEADERS if pair[0] not in there)]}
        elif self._closes and not self._complete and not message.get("more_body", False):
            await self._drain()
        await self._send(message)

    async def _drain(self) -> None:
        """Takes a little of a body that nobody wants: the connection closes after the answer, which a peer that still sends would miss."""
        end, taken = time.monotonic() + _DRAIN_S, 0
        while not self._complete and taken < _DRAIN_BYTES:
            try:
                message = await asyncio.wait_for(self._receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                return
            taken += len(message.get("body", b""))
            self._complete = message["type"] != "http.request" or not message.get("more_body", False)


def _is_open(scope: Scope) -> bool:
    return scope["method"] in ("GET", "HEAD") and (scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_BELOW))


def _closes(scope: Scope) -> bool:
    """Whether the connection ends with this answer; where it goes on, the server itself takes the rest of the body."""
    return any(name == b"connection" and b"close" in value.lower() for name, value in scope["headers"])


def _about(scope: Scope, caller: Caller) -> Mapping[str, Any]:
    client = scope.get("client") or ("", 0)
    return {"path": scope["path"][:200], "caller": caller.name, "peer": str(client[0])}
