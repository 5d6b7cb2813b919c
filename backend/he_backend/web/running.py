"""Runs a service until it is told to stop, and then ends it in order."""

from __future__ import annotations

import signal
import socket
import ssl
from typing import Any, Callable

import uvicorn

from he_backend.errors import TransportError

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
    most_connections: int | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM: new connections are refused, requests under way get `grace_s`; then `on_stop` is called."""

    def ignore(*_: Any) -> None:
        """uvicorn takes the signals while it runs, and newer versions raise them again afterwards."""

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, ignore)
    config = uvicorn.Config(
        app,
        log_config=None,  # the service's own (web/logs.py)
        access_log=False,
        timeout_graceful_shutdown=grace_s,
        server_header=False,
        limit_concurrency=most_connections,
    )
    config.load()
    config.ssl = tls  # made by ourselves: one way for all versions of uvicorn
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        on_stop()
