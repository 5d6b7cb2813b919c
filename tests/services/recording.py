"""A TCP proxy that keeps what passes, and the check that it is TLS and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading


class RecordingProxy:
    """Passes connections to its own port on to `target` (HOST:PORT, set later) and keeps each direction's bytes."""

    def __init__(self):
        self.target, self.streams = "", []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def recorded(self):
        """Each direction of each connection."""
        return [bytes(stream) for stream in self.streams if stream]

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            host, port = self.target.split(":")
            far = socket.create_connection((host, int(port)))
            for source, sink in ((near, far), (far, near)):
                stream = bytearray()
                self.streams.append(stream)
                threading.Thread(target=_pass_on, args=(source, sink, stream), daemon=True).start()


def _pass_on(source, sink, stream):
    try:
        while data := source.recv(1 << 16):
            stream += data
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def is_tls(stream):
    """Whether a stream is whole TLS records (RFC 8446, section 5.1) from its first byte to its last."""
    at = 0
    while at + 5 <= len(stream):
        kind, version, size = stream[at], stream[at + 1 : at + 3], int.from_bytes(stream[at + 3 : at + 5], "big")
        if kind not in (20, 21, 22, 23) or version not in (b"\x03\x01", b"\x03\x03") or size > (1 << 14) + 256:
            return False
        at += 5 + size
    return at == len(stream) and at > 0
