"""The environment test as the data owner runs it: a known computation under one engine and its parameters, before any row is encrypted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Iterable, Iterator

from he_backend.ckks import secret, serial
from he_backend.ckks.engines import answer_modulus, tensor_moduli, traits
from he_backend.ckks.params import Params
from he_backend.ckks.tensor import CipherTensor
from he_backend.client.rounds import read_answer
from he_backend.errors import ProtocolError
from he_backend.inference.probe import ANSWER_BITS, probe_error, probe_map, probe_scale, probe_values
from he_backend.protocol.messages import Buffer, ProbeRequest
from he_backend.protocol.session import ClientSession, Incoming, send

# Noise of 12 weights at the test's scale stays far below; a wrong key, modulus or byte order gives errors around modulus / scale.
_MOST_ERROR = 1e-2


@dataclass(frozen=True)
class EnvironmentTest:
    """The known values, encrypted by a key of their own. One test asks the same however often it is sent."""

    engine: str
    params: Params
    key: secret.SecretKey = field(repr=False)
    tensor: CipherTensor = field(repr=False)
    scale: float

    @classmethod
    def make(cls, engine: str, params: Params) -> EnvironmentTest:
        """A test of an engine under parameters."""
        key = secret.generate(engine, params)
        scale = probe_scale(params.moduli[0], traits(engine, params))
        return cls(engine, params, key, key.encrypt(probe_values(), scale, 1), scale)

    def request(self) -> ProbeRequest:
        """The message; the ciphertext follows as payload."""
        literal = json.dumps(self.params.literal(), sort_keys=True)
        return ProbeRequest(self.engine, literal, serial.header_of(self.tensor).to_bytes())

    def frames(self) -> Iterator[bytes]:
        """The whole call as a session sends it."""
        return send(self.request(), self._payload())

    def run(self, session: ClientSession) -> None:
        """Asks the server. Raises ProtocolError when its answer is wrong, and what it refuses with."""
        if not session.probe(self.request(), self._payload, self._error) < _MOST_ERROR:
            raise ProtocolError("the environment test gave a wrong answer: engine, preset or software of the two sides do not match")

    def _payload(self) -> Iterable[Buffer]:
        return serial.to_pieces(self.tensor)

    def _error(self, incoming: Incoming) -> float:
        degree = self.params.ring_degree
        sent = tensor_moduli(self.engine, self.params.moduli[:1])
        moduli = (answer_modulus(degree, ANSWER_BITS),) if traits(self.engine, self.params).switches else sent
        answer = read_answer(incoming, self.engine, degree, moduli, probe_map().out_count, 1)
        scale = self.scale * math.prod(moduli) / math.prod(sent)
        return probe_error(self.key.decrypt(answer, scale, probe_values().shape[1]))
