"""FATE 1.x's transfer variables as the Channel of he_nn: objects of bytes over whatever federation the deployment has."""

from __future__ import annotations

from typing import Any, Sequence

from federatedml.transfer_variable.base_transfer_variable import BaseTransferVariables

from he_backend.errors import ParameterError


class HeNNTransferVariable(BaseTransferVariables):
    """One variable for each direction."""

    def __init__(self, flowid: int = 0) -> None:
        super().__init__(flowid)
        # FATE forgets all but the last objects of a variable, for loops in which each is read before the next: ours are sent ahead.
        self.guest_to_host = self._create_variable(name="guest_to_host", src=["guest"], dst=["host"]).disable_auto_clean()
        self.host_to_guest = self._create_variable(name="host_to_guest", src=["host"], dst=["guest"]).disable_auto_clean()


class FateChannel:
    """The task's channel to the other party. A (variable, suffix) pair is used once, hence the counters.

    `hosts` are the job's host parties: one is taken, which is asked for when the first object is sent, as a job that goes through a
    service needs none.
    """

    def __init__(self, is_guest: bool, hosts: Sequence[Any] | None) -> None:
        variables = HeNNTransferVariable()
        both = (variables.guest_to_host, variables.host_to_guest)
        self._outgoing, self._incoming = both if is_guest else both[::-1]
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
