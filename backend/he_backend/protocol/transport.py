"""Links: what carries the frames of a call. In memory, counted, retried; gRPC is in grpc_transport.py."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, Protocol, TypeVar

from he_backend.errors import TransportError
from he_backend.protocol.messages import RoundRequest, decode

T = TypeVar("T")
Handler = Callable[[Iterator[bytes]], Iterator[bytes]]


class Link(Protocol):
    """A way to a server. `exchange` sends one call's frames and gives the answer's as they come; it raises TransportError."""

    def exchange(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The frames of the answer. Closing the iterator early cancels the call."""
        ...

    def close(self) -> None:
        """Gives up the connection; no call may follow."""
        ...


class MemoryLink:
    """A server in the same process: the handler runs in the caller's thread, as far as frames are asked for."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._closed = False

    def exchange(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The handler's answer."""
        if self._closed:
            raise TransportError("the link is closed")
        return self._handler(iter(frames))

    def close(self) -> None:
        """Refuses later calls."""
        self._closed = True


@dataclass(frozen=True)
class Traffic:
    """What went over a link so far; bytes are those of frames, before the transport's own framing."""

    calls: int = 0
    rounds: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0
    received_frames: int = 0
    received_bytes: int = 0


class CountingLink:
    """A link that counts what passes, repeated attempts included, and keeps every frame when `record` is set."""

    def __init__(self, link: Link, *, record: bool = False) -> None:
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self._link = link
        self._record = record
        self._traffic = Traffic()
        self._lock = threading.Lock()

    @property
    def traffic(self) -> Traffic:
        """The counts up to now."""
        return self._traffic

    def exchange(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The inner link's answer."""
        return self._count_received(self._link.exchange(self._count_sent(frames)))

    def close(self) -> None:
        """Closes the inner link; counts and records stay."""
        self._link.close()

    def _count_sent(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        first = True
        for frame in frames:
            is_round = first and isinstance(decode(frame), RoundRequest)
            self._add(calls=int(first), rounds=int(is_round), sent_frames=1, sent_bytes=len(frame))
            first = False
            if self._record:
                self.sent.append(frame)
            yield frame

    def _count_received(self, frames: Iterator[bytes]) -> Iterator[bytes]:
        for frame in frames:
            self._add(received_frames=1, received_bytes=len(frame))
            if self._record:
                self.received.append(frame)
            yield frame

    def _add(self, **more: int) -> None:
        with self._lock:
            now = self._traffic
            self._traffic = Traffic(**{name: value + more.get(name, 0) for name, value in vars(now).items()})


@dataclass(frozen=True)
class Retry:
    """How often a call is tried in all, and the seconds before the second attempt; the pause doubles each time, up to 10 s."""

    attempts: int = 3
    backoff_s: float = 0.2


def retry(call: Callable[[], T], policy: Retry, *, sleep: Callable[[float], object] = time.sleep) -> T:
    """The result of `call`, called again after a TransportError. Right for calls without effects, as all of the protocol's are."""
    for attempt in range(1, policy.attempts):
        try:
            return call()
        except TransportError:
            pause = min(10.0, policy.backoff_s * 2 ** (attempt - 1))
            sleep(pause * random.uniform(0.75, 1.25))  # so that clients of a restarted server do not come back all at once
    return call()
