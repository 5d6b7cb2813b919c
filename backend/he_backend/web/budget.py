"""Bytes of the uploads that are under way, all together: what is not complete yet takes memory too."""

from __future__ import annotations

import contextlib
from typing import Callable, Iterator

from he_backend.web.answers import QueueFull


class Budget:
    """`most_bytes` for the bodies that are being received at a time. It belongs to one event loop."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self._taken = most_bytes, 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Takes bytes as they come, and gives all of them back at the end. What it yields raises QueueFull when others have the rest."""
        own = 0

        def take(count: int) -> None:
            nonlocal own
            if self._taken + count > self.most_bytes:
                others = self._taken - own
                raise QueueFull(
                    f"other uploads under way have {others} of the {self.most_bytes} bytes that this service takes at a time; "
                    "ask again in a few seconds"
                )
            own += count
            self._taken += count

        try:
            yield take
        finally:
            self._taken -= own
