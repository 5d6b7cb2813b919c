"""Runs a service until it is told to stop, and then ends it in order."""

from __future__ import annotations

import signal
import socket
import ssl
from typing import Any, Callable

import uvicorn

from he_backend.errors import TransportError
from he_backend.web.connections import connections

GRACE_S = 10


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises TransportError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)
    except OSError as problem:
        found.close()
        raise TransportError(f"cannot listen on {host}:{port}: {problem.strerror}; choose another port or host") from None
    return found


def run(
    app: Any,
    listener: socket.socket,
    on_stop: Callable[[], object],
    tls: ssl.SSLContext | None = None,
    grace_s: int = GRACE_S,
    *,
    idle_s: float,
    most_waiting: int,
) -> None:
    """Serves until SIGINT or SIGTERM: new connections are refused, requests under way get `grace_s`; then `on_stop` is called.

    A request's head must come within `idle_s`; connections that ask nothing make room for new ones beyond `most_waiting`.
    """

    def ignore(*_: Any) -> None:
        """uvicorn takes the signals while it runs, and newer versions raise them again afterwards."""

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, ignore)
    protocol: Any = connections(most_waiting, idle_s)
    config = uvicorn.Config(
        app,
        log_config=None,  # the service's own (web/logs.py)
        access_log=False,
        timeout_graceful_shutdown=grace_s,
        server_header=False,
        # One HTTP implementation, whatever else is installed; how many requests there may be is the door's business, which answers for it.
        http=protocol,
        ws="none",
    )
    config.load()
    config.ssl = tls  # made by ourselves: one way for all versions of uvicorn
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        on_stop()
