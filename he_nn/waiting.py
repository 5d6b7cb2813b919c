"""What a task's log says while it waits for the other party, so that a party whose process was killed is not met with silence.

A platform's receive blocks, and FATE ends a task whose peer is gone by SIGKILL, seconds after the peer's end: no code of the task runs
then, and what is in its log by that time is all that its owner will read.
"""

from __future__ import annotations

import threading

from .channel import Channel
from .roles import Tracker

FIRST_S = 2.0  # FATE Flow looks for dead processes every 5 s, twice, 3 s apart
MOST_S = 60.0
LONG_S = 30.0  # no party waits for the other for so long while the other waits for it, unless what was sent is lost
_IF_BOTH = (
    ". If its log says the same of this party, nothing crosses between the two: look at FATE's federation (a broker's queues and "
    "policies), stop the job and submit it again"
)


class Watched:
    """A channel whose waits for `peer` are told to the tracker: after `first_s` seconds, and again each time that they have doubled."""

    def __init__(self, channel: Channel, tracker: Tracker, peer: str, first_s: float = FIRST_S) -> None:
        self._channel, self._tracker, self._peer, self._first_s = channel, tracker, peer, first_s

    def send(self, data: bytes) -> None:
        """Hands an object over."""
        self._channel.send(data)

    def notify(self, data: bytes) -> None:
        """Hands over what nobody may read."""
        self._channel.notify(data)

    def receive(self) -> bytes:
        """The next object; waits for it."""
        came = threading.Event()
        watch = threading.Thread(target=self._watch, args=(came,), name="he_nn-waiting", daemon=True)
        watch.start()
        try:
            return self._channel.receive()
        finally:
            came.set()
            watch.join()

    def _watch(self, came: threading.Event) -> None:
        waited, next_s = 0.0, self._first_s
        while not came.wait(next_s):
            waited += next_s
            self._tracker.log(
                f"nothing came from the {self._peer} for {waited:g} s: it computes, or its task has ended; the log of its task, and FATE "
                f"Flow's log of the job, say which{_IF_BOTH if waited >= LONG_S else ''}"
            )
            next_s = min(waited, MOST_S)
