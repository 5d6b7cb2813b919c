"""FATE 1.x's transfer variables as the Channel of he_nn: objects of bytes over whatever federation the deployment has."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from typing import Any, Sequence

from federatedml.transfer_variable.base_transfer_variable import BaseTransferVariables

from he_backend.errors import ParameterError

PATIENCE_S = 10.0  # that a failing guest waits for the host to have heard of it
LINGER_S = 1.0  # that a failing host leaves the guest for hearing that


class HeNNTransferVariable(BaseTransferVariables):
    """One variable for each direction, and one for the host's last word."""

    def __init__(self, flowid: int = 0) -> None:
        super().__init__(flowid)
        # FATE forgets all but the last objects of a variable, for loops in which each is read before the next: ours are sent ahead.
        self.guest_to_host = self._create_variable(name="guest_to_host", src=["guest"], dst=["host"]).disable_auto_clean()
        self.host_to_guest = self._create_variable(name="host_to_guest", src=["host"], dst=["guest"]).disable_auto_clean()
        self.host_heard = self._create_variable(name="host_heard", src=["host"], dst=["guest"])


class FateChannel:
    """The task's channel to the other party. A (variable, suffix) pair is used once, hence the counters.

    `hosts` are the job's host parties: one is taken, which is asked for when the first object is sent, as a job that goes through a
    service needs none.
    """

    def __init__(self, is_guest: bool, hosts: Sequence[Any] | None) -> None:
        variables = HeNNTransferVariable()
        both = (variables.guest_to_host, variables.host_to_guest)
        self._outgoing, self._incoming = both if is_guest else both[::-1]
        self._heard, self._is_guest = variables.host_heard, is_guest
        self._peer = "host" if is_guest else "guest"
        self._hosts = len(hosts or ())
        self._sent = self._received = 0

    def send(self, data: bytes) -> None:
        """Hands an object to the federation. Raises ParameterError when the job has not exactly one host."""
        if self._hosts != 1:
            raise ParameterError(f"the job has {self._hosts} host parties; embedded mode takes one model owner")
        self._outgoing.remote(data, role=self._peer, idx=0, suffix=(self._sent,))
        self._sent += 1

    def receive(self) -> bytes:
        """The peer's next object; waits for it."""
        data: bytes = self._incoming.get(idx=0, suffix=(self._received,))
        self._received += 1
        return data

    def part(self) -> None:
        """What a task that failed does before it ends, so that both parties' logs say why.

        A party that ends destroys what is under way in both directions, so the guest's last object may never reach the host, which FATE
        Flow would then end without a word. The guest waits, not for ever, until the host says that it has heard; the host leaves it time.
        """
        if self._is_guest and self._sent:
            listening = threading.Thread(target=contextvars.copy_context().run, args=(self._hear,), daemon=True)
            listening.start()
            listening.join(PATIENCE_S)
        elif not self._is_guest and self._received:
            with contextlib.suppress(Exception):  # what went wrong before matters more
                self._heard.remote(b"heard", role="guest", idx=0, suffix=(0,))
                time.sleep(LINGER_S)

    def _hear(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())  # FATE's standalone federation polls in the thread's loop
        with contextlib.suppress(Exception):
            self._heard.get(idx=0, suffix=(0,))
