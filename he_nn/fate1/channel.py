"""FATE 1.x's transfer variables as the Channel of he_nn: objects of bytes over whatever federation the deployment has."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from typing import Any, Sequence

from federatedml.transfer_variable.base_transfer_variable import BaseTransferVariables
from federatedml.util import LOGGER

from he_backend.errors import ParameterError

PATIENCE_S = 10.0  # that a failing guest waits for the host to have heard of it
LINGER_S = 1.0  # that both parties of a failed task stay for each other once the host has heard


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

    def notify(self, data: bytes) -> None:
        """Hands an object to every other party, if there is one; nobody waits for it to be read."""
        if self._hosts or not self._is_guest:
            self._outgoing.remote(data, role=self._peer, idx=-1, suffix=(0,))

    def part(self) -> None:
        """What a task that failed does before it ends, so that both parties' logs say why.

        A party that ends destroys what is under way in both directions, so the guest's last object may never reach the host, which FATE
        Flow would then end without a word. The guest waits, not for ever, until the host says that it has heard. Then both stay for the
        same time: the guest must get that word, and FATE Flow kills the party that has not ended when the other has.
        """
        if self._is_guest and self._sent:
            arguments = (self._hear, _event_loop())
            listening = threading.Thread(target=contextvars.copy_context().run, args=arguments, daemon=True)
            listening.start()
            listening.join(PATIENCE_S)
        elif not self._is_guest and self._received:
            with contextlib.suppress(Exception):  # what went wrong before matters more
                self._heard.remote(b"heard", role="guest", idx=0, suffix=(0,))
                time.sleep(LINGER_S)

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            self._heard.get(idx=0, suffix=(0,))
        except Exception as error:  # noqa: BLE001 - what went wrong before matters more, but that nobody waited must be seen
            LOGGER.warning(f"he-nn could not wait for the host to hear of the failure: {type(error).__name__}")
        else:
            time.sleep(LINGER_S)


def _event_loop() -> asyncio.AbstractEventLoop:
    """This thread's event loop: FATE's standalone federation keeps the one of its first `get`, and waits in no other."""
    try:
        return asyncio.get_event_loop()
    except RuntimeError:  # there was none, so no `get` either
        return asyncio.new_event_loop()
