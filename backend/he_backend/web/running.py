"""Runs a service until it is told to stop, and then ends it in order."""

from __future__ import annotations

import logging
import signal
import socket
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


def run(app: Any, listener: socket.socket, on_stop: Callable[[], object]) -> None:
    """Serves until SIGINT or SIGTERM: new connections are refused, requests under way get GRACE_S seconds; then `on_stop` is called."""

    def ignore(*_: Any) -> None:
        """uvicorn takes the signals while it runs, and newer versions raise them again afterwards."""

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, ignore)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every damaged form, which is answered with 400 anyway
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        on_stop()
