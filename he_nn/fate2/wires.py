"""What lies between two sites on one machine: a router of FATE Flow's requests by receiver, and a relay that keeps what crosses it."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Mapping

from .standalone import HOST

HEADER = "dest-party-id"
_PASSED_OVER = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}  # of one hop, not of the message
_PIECE_BYTES = 1 << 16


class Router:
    """Passes each HTTP request on to the site that its header `dest-party-id` names, as nginx does in a deployment of FATE.

    `sites`: party id -> port on loopback. Without the header, or for a party that is not there, the answer is 400. Bodies of requests and
    answers are kept in the file `record`.
    """

    def __init__(self, sites: Mapping[str, int], record: Path) -> None:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_bytes(b"")
        handler = type("Handler", (_Handler,), {"sites": dict(sites), "record": record, "lock": threading.Lock()})
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="router", daemon=True)

    def __enter__(self) -> Router:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    sites: Mapping[str, int] = {}
    record: Path
    lock: threading.Lock

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        port = self.sites.get(self.headers.get(HEADER, ""))
        if port is None:
            self._answer(400, {}, f"{HEADER} names no site; there are {', '.join(self.sites)}".encode())
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _PASSED_OVER}
        connection = http.client.HTTPConnection(HOST, port, timeout=300)
        try:
            connection.request(self.command, self.path, body or None, headers)
            reply = connection.getresponse()
            content = reply.read()
            self._keep(body, content)
            self._answer(reply.status, dict(reply.getheaders()), content)
        except (OSError, http.client.HTTPException) as problem:
            self._answer(502, {}, f"the site at port {port} does not answer ({type(problem).__name__})".encode())
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _PASSED_OVER:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _keep(self, *bodies: bytes) -> None:
        with self.lock, open(self.record, "ab") as stream:
            stream.writelines(body + b"\n" for body in bodies)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: each site has its own log of requests."""


class Relay:
    """A TCP relay in front of a port of loopback; all bytes of both directions go into `folder`, a file for each connection and direction.

    Files are named `000-there` (from who connected) and `000-back`. The relay copies; it understands nothing of what it carries.
    """

    def __init__(self, target_port: int, folder: Path) -> None:
        self._target_port, self.folder = target_port, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._lock, self._count = threading.Lock(), 0
        self._thread = threading.Thread(target=self._accept, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._thread.join()

    def recorded(self) -> list[Path]:
        """The files so far."""
        return sorted(self.folder.glob("[0-9]*-*"))

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                far = socket.create_connection((HOST, self._target_port), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open += [near, far]
                number, self._count = self._count, self._count + 1
            for source, sink, way in ((near, far, "there"), (far, near, "back")):
                arguments = (source, sink, self.folder / f"{number:03d}-{way}")
                threading.Thread(target=_copy, args=arguments, name="relay", daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket, path: Path) -> None:
    """Copies until either side has ended."""
    with open(path, "wb") as record, suppress(OSError):
        while True:
            piece = source.recv(_PIECE_BYTES)
            if not piece:
                break
            record.write(piece)
            record.flush()
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
