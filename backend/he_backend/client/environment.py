"""The environment test as the data owner runs it: a known computation under one engine and its parameters, before any row is encrypted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Iterable, Iterator

from he_backend.ckks import secret, serial
from he_backend.ckks.params import Params
from he_backend.ckks.tensor import CipherTensor
from he_backend.client.rounds import read_answer
from he_backend.errors import ProtocolError
from he_backend.inference.probe import Probe, probe_answer_moduli, probe_error, probe_map, probe_of, probe_values
from he_backend.protocol.messages import Buffer, ProbeRequest
from he_backend.protocol.session import ClientSession, Incoming, send


@dataclass(frozen=True)
class EnvironmentTest:
    """The known values, encrypted by a key of their own. One test asks the same however often it is sent."""

    engine: str
    params: Params
    key: secret.SecretKey = field(repr=False)
    tensor: CipherTensor = field(repr=False)
    probe: Probe

    @classmethod
    def make(cls, engine: str, params: Params) -> EnvironmentTest:
        """A test of an engine under parameters; raises ParameterError where these are too small for one."""
        probe = probe_of(engine, params)
        key = secret.generate(engine, params)
        return cls(engine, params, key, key.encrypt(probe_values(), probe.scale, probe.level), probe)

    def request(self) -> ProbeRequest:
        """The message; the ciphertext follows as payload."""
        literal = json.dumps(self.params.literal(), sort_keys=True)
        return ProbeRequest(self.engine, literal, serial.header_of(self.tensor).to_bytes())

    def frames(self) -> Iterator[bytes]:
        """The whole call as a session sends it."""
        return send(self.request(), self._payload())

    def run(self, session: ClientSession) -> None:
        """Asks the server. Raises ProtocolError when its answer is wrong, and what it refuses with."""
        if not session.probe(self.request(), self._payload, self._error) < self.probe.allowed:
            raise ProtocolError("the environment test gave a wrong answer: engine, preset or software of the two sides do not match")

    def _payload(self) -> Iterable[Buffer]:
        return serial.to_pieces(self.tensor)

    def _error(self, incoming: Incoming) -> float:
        moduli = probe_answer_moduli(self.engine, self.params, self.probe)
        answer = read_answer(incoming, self.engine, self.params.ring_degree, moduli, probe_map().out_count, 1)
        scale = self.probe.scale * math.prod(moduli) / self.probe.modulus
        return probe_error(self.key.decrypt(answer, scale, probe_values().shape[1]))
