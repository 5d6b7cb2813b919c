"""Refuses what another site's page makes a browser send here: the services listen where their user's browser can reach them.

A page of any site can post to http://127.0.0.1:12995 without being able to read the answer; and a name that its owner points at 127.0.0.1
after the page was loaded (DNS rebinding) can read it too. A browser names the page's origin in every POST; curl and the Python client send
none.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Sequence
from urllib.parse import urlsplit

from he_backend.web import answers

_SAFE = ("GET", "HEAD")
_REFUSAL = (
    "origin {}: requests from pages of other sites are refused; open this service's own page by its address, "
    "or allow that origin (--allow-origin)"
)


class SameOrigin:
    """ASGI middleware: requests that change or read anything must come from this service's own page, from `allowed` origins (such as
    https://he.example.org, where a proxy serves the page under that name), or from no page at all.
    """

    def __init__(self, app: Any, allowed: Sequence[str] = ()) -> None:
        self._app, self._allowed = app, frozenset(one.rstrip("/").lower() for one in allowed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes the request on, or answers 403."""
        if scope["type"] == "http" and scope["method"] not in _SAFE:
            headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"] if name in (b"origin", b"host")}
            origin = headers.get(b"origin")
            if origin is not None and not self._own(origin, headers.get(b"host", ""), scope.get("server")):
                await answers.answer({"error": "origin"}, _REFUSAL.format(origin[:80]), 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _own(self, origin: str, host: str, server: Any) -> bool:
        if origin in self._allowed:
            return True
        try:
            name = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        if origin.partition("://")[2] != host:
            return False
        # Reached on a loopback address, the page's name must be one of loopback too: no other name can be trusted to stay where it points.
        return not (server and _loopback(str(server[0]))) or _loopback(name)


def _loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
