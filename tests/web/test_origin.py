"""Which pages may make a browser ask a service."""

from __future__ import annotations

import asyncio
import json

import pytest

from he_backend.web.origin import SameOrigin


def status(origin, host, *, method="POST", server="127.0.0.1", allowed=()):
    """What the middleware answers with; 200 where it passes the request on."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    headers = [(b"host", host.encode())] + ([] if origin is None else [(b"origin", origin.encode())])
    scope = {"type": "http", "method": method, "path": "/", "headers": headers, "server": (server, 12995)}
    asyncio.run(SameOrigin(app, allowed)(scope, None, send))
    if len(sent) > 1:
        assert "--allow-origin" in json.loads(sent[1]["body"])["message"]
    return sent[0]["status"]


@pytest.mark.parametrize(
    "origin, host, more",
    [
        (None, "127.0.0.1:12995", {}),  # curl
        ("http://127.0.0.1:12995", "127.0.0.1:12995", {}),
        ("http://LocalHost:12995", "localhost:12995", {}),
        ("http://[::1]:12995", "[::1]:12995", {"server": "::1"}),
        ("http://he.example.org:12995", "he.example.org:12995", {"server": "192.0.2.7"}),
        ("https://he.example.org", "127.0.0.1:12995", {"allowed": ("https://he.example.org/",)}),
        ("http://other.example", "127.0.0.1:12995", {"method": "GET"}),
    ],
)
def test_these_pass(origin, host, more):
    assert status(origin, host, **more) == 200


@pytest.mark.parametrize(
    "origin, host, more",
    [
        ("http://other.example", "127.0.0.1:12995", {}),
        ("http://127.0.0.1:8000", "127.0.0.1:12995", {}),
        ("null", "127.0.0.1:12995", {}),
        ("http://[", "127.0.0.1:12995", {}),
        ("http://rebound.example:12995", "rebound.example:12995", {}),  # a name that its owner points at 127.0.0.1
        ("http://other.example", "he.example.org", {"server": "192.0.2.7"}),
        ("http://other.example", "he.example.org", {"server": "192.0.2.7", "allowed": ("https://he.example.org",)}),
    ],
)
def test_these_are_refused(origin, host, more):
    assert status(origin, host, **more) == 403
