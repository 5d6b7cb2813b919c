"""What lies between two sites on one machine: a router of FATE Flow's requests by receiver, and a relay that keeps what crosses it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Mapping, TypeVar

from .standalone import HOST

HEADER = "dest-party-id"
_PASSED_OVER = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}  # of one hop, not of the message
_PIECE_BYTES = 1 << 16
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)
S = TypeVar("S", bound="_Server")


class _Passing(BaseHTTPRequestHandler):
    """Passes requests on to a port of loopback; `_port` says which, None for nowhere."""

    def _port(self) -> int | None:
        raise NotImplementedError

    def _nowhere(self) -> str:
        return "there is nothing here"

    def _exchange(self, port: int, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of the answer; raises OSError or HTTPException where there is none."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _PASSED_OVER}
        connection = http.client.HTTPConnection(HOST, port, timeout=300)
        try:
            connection.request(self.command, self.path, body or None, headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        port = self._port()
        if port is None:
            self._answer(400, {}, self._nowhere().encode())
            return
        try:
            answer = self._exchange(port, body)
        except (OSError, http.client.HTTPException) as problem:
            answer = (502, {}, f"the site at port {port} does not answer ({type(problem).__name__})".encode())
        self._answer(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _PASSED_OVER:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: each site has its own log of requests."""


class _Server:
    """An HTTP server on an ephemeral port of loopback while its `with` block lasts."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name=type(self).__name__, daemon=True)

    def __enter__(self: S) -> S:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Router(_Server):
    """Passes each HTTP request on to the site that its header `dest-party-id` names, as nginx does in a deployment of FATE.

    `sites`: party id -> port on loopback. Without the header, or for a party that is not there, the answer is 400. Bodies of requests and
    answers are kept in the file `record`.
    """

    def __init__(self, sites: Mapping[str, int], record: Path) -> None:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_bytes(b"")
        super().__init__(type("Handler", (_Routing,), {"sites": dict(sites), "record": record, "lock": threading.Lock()}))


class _Routing(_Passing):
    sites: Mapping[str, int] = {}
    record: Path
    lock: threading.Lock

    def _port(self) -> int | None:
        return self.sites.get(self.headers.get(HEADER, ""))

    def _nowhere(self) -> str:
        return f"{HEADER} names no site; there are {', '.join(self.sites)}"

    def _exchange(self, port: int, body: bytes) -> tuple[int, dict[str, str], bytes]:
        answer = super()._exchange(port, body)
        with self.lock, open(self.record, "ab") as stream:
            stream.writelines(one + b"\n" for one in (body, answer[2]))
        return answer


class Management(_Server):
    """In front of the management port of a RabbitMQ: settings that the broker refuses for a fault of its own are asked again.

    FATE 2.2 does not look at the answer when it links a queue to the other site's. RabbitMQ 3.10 gives 500 once in a while, when queues of
    an earlier task are removed at that moment (rabbit_federation_link_sup: noproc), and the two parties would wait for each other for ever.
    """

    def __init__(self, port: int) -> None:
        super().__init__(type("Handler", (_Repeating,), {"target": port}))


class _Repeating(_Passing):
    target = 0

    def _port(self) -> int | None:
        return self.target

    def _exchange(self, port: int, body: bytes) -> tuple[int, dict[str, str], bytes]:
        answer = super()._exchange(port, body)
        for pause_s in _PAUSES_S if self.command == "PUT" else ():
            if answer[0] < 500:
                break
            time.sleep(pause_s)
            answer = super()._exchange(port, body)
        return answer


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
