"""A link that can be given up from another thread: what waits for it ends, and nothing is tried again."""

from __future__ import annotations

import contextlib
import threading
from typing import Iterable, Iterator

from he_backend.errors import Cancelled, TransportError
from he_backend.protocol.transport import Link


class StoppableLink:
    """A link; after `stop`, calls under way and later ones raise Cancelled."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stopped = threading.Event()

    def exchange(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The inner link's answer."""
        try:
            self._check()
            yield from self._link.exchange(frames)
        except TransportError:
            self._check()
            raise

    def stop(self) -> None:
        """Gives the connection up."""
        self._stopped.set()
        self.close()

    def close(self) -> None:
        """Closes the inner link."""
        with contextlib.suppress(Exception):
            self._link.close()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Cancelled("the inference was stopped")
