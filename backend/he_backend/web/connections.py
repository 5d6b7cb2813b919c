"""The connections of an HTTP service: a head of a request that does not come is not waited for, and idle ones make room for others."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections import OrderedDict
from typing import Any, Callable

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger(__name__)


class Waiting:
    """The connections on which no request is under way, oldest first. Beyond `most` of them the oldest is cut off: a peer that opens
    connections without end pushes out its own, and those that ask something are answered.
    """

    def __init__(self, most: int, idle_s: float) -> None:
        self.idle_s, self._most = idle_s, most
        self._there: OrderedDict[Connection, None] = OrderedDict()

    def enter(self, connection: Connection) -> None:
        """A connection waits for a request's head, or goes on waiting."""
        self._there.setdefault(connection, None)
        while len(self._there) > self._most:
            self._there.popitem(last=False)[0].cut()

    def leave(self, connection: Connection) -> None:
        """A request is under way on the connection, or it has ended."""
        self._there.pop(connection, None)


class Connection(H11Protocol):
    """uvicorn's connection, which the whole head of a request must reach within `idle_s` of `waiting`."""

    def __init__(self, waiting: Waiting, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._waiting, self._begun = waiting, False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """It is there, and has asked nothing."""
        super().connection_made(transport)
        self._waiting.enter(self)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._waiting.leave(self)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A piece of a head, or of a body."""
        super().data_received(data)
        if self._is_busy():
            self._waiting.leave(self)
            self._stop_timer()
            return
        if self.conn.their_state is h11.SEND_BODY:  # of a request that is answered already: its sender does not stand still
            self._stop_timer()
        self._begun = True
        self._await_head()

    def on_response_complete(self) -> None:
        """The answer is on its way. uvicorn itself closes what then stays silent."""
        super().on_response_complete()
        if not self._is_busy():
            self._waiting.enter(self)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, in the envelope."""
        self._refuse(400, "Bad Request", "this is not an HTTP/1.1 request; see /docs")

    def cut(self) -> None:
        """Ends it at once."""
        self._stop_timer()
        self.transport.abort()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._waiting.idle_s, self._too_slow)

    def _stop_timer(self) -> None:
        self._begun = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing() or self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()
        elif self._begun:
            _log.info("a request's head was not complete within %g s", self._waiting.idle_s)
            self._refuse(408, "Request Timeout", f"the request's head was not complete within {self._waiting.idle_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, code: int, phrase: str, message: str) -> None:
        """Answers outside of any request and closes."""
        if not self._is_busy():
            body = json.dumps({"code": code, "data": {"error": "http"}, "message": message}).encode("ascii")
            head = f"HTTP/1.1 {code} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()


def connections(most_waiting: int, idle_s: float) -> Callable[..., Connection]:
    """What makes the connections of one service."""
    return functools.partial(Connection, Waiting(most_waiting, idle_s))
