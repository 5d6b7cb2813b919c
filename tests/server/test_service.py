"""The ciphertext service refuses what it must, tells why, and computes rounds as pure functions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from he_backend.ckks import secret, serial
from he_backend.ckks.engines import available
from he_backend.ckks.params import load_params
from he_backend.errors import EngineError, NotFoundError, ParameterError, ProtocolError, SecurityError
from he_backend.protocol import messages, session
from he_backend.server.models import OneModel
from he_backend.server.service import CipherService
from tests.parties import digits, service_of


@pytest.fixture(scope="module")
def program():
    return digits(1)[0]


def ask(service, head, blocks=()):
    incoming = session.receive(service.handle(session.send(head, blocks)))
    return incoming.head, incoming.read_all()


def request(**changes):
    literal = json.dumps(load_params("N11_L1").literal())
    return dataclasses.replace(messages.PlanRequest("latest", "clear", literal, "auto", 12, 1, {}), **changes)


def test_the_same_round_twice_gives_the_same_bytes(program):
    service = service_of(program)
    batch = request(packing="batch")
    reply, data = ask(service, batch)
    count = len(json.loads(data)["rounds"]) and sum(json.loads(data)["shapes"][json.loads(data)["rounds"][0]["inputs"][0]])
    key = secret.generate("clear", load_params("N11_L1"))
    tensor = key.encrypt(np.ones((count + 1, 3)), 2.0**10, 1)
    head = messages.RoundRequest(reply.model_id, reply.plan_digest, batch, 0, 0, serial.header_of(tensor).to_bytes())

    answers = [ask(service, head, serial.to_pieces(tensor)) for _ in range(2)]
    fresh = ask(service_of(program), head, serial.to_pieces(tensor))  # a replica that has seen nothing

    assert answers[0][1] == answers[1][1] == fresh[1]


@pytest.mark.parametrize(
    "changes, error, says",
    [
        ({"model": "none"}, NotFoundError, "'none' is not here"),
        ({"engine": "other"}, EngineError, "not known"),
        ({"packing": "other"}, ParameterError, "packing"),
        ({"bits": 99}, ParameterError, "bits: 99"),
        ({"preset_json": "{"}, ProtocolError, "not JSON"),
        ({"preset_json": json.dumps({"poly_modulus_degree": 1024, "coeff_modulus": [40]})}, SecurityError, "at most 27 bits"),
        ({"preset_json": json.dumps({"poly_modulus_degree": 1024, "coeff_modulus": [40], "security_level": 0})}, SecurityError, "refused"),
    ],
)
def test_plans_that_are_refused(program, changes, error, says):
    with pytest.raises(error, match=says):
        ask(service_of(program), request(**changes))


def test_the_clear_engine_is_for_tests_only(program):
    with pytest.raises(EngineError, match="does not encrypt"):
        ask(CipherService(OneModel(program)), request())
    assert "clear" not in ask(CipherService(OneModel(program)), messages.Hello("test"))[0].engines


def test_rounds_that_are_refused(program):
    service = service_of(program)
    reply, _ = ask(service, request())
    tensor = secret.generate("clear", load_params("N11_L1")).encrypt(np.ones((3, 3)), 2.0**10, 1)
    good = messages.RoundRequest(reply.model_id, reply.plan_digest, request(), 0, 0, serial.header_of(tensor).to_bytes())
    for changes, says in (
        ({}, "elements 3"),
        ({"round_index": 99}, "rounds 0 to"),
        ({"plan_digest": "0" * 64}, "ask for a new plan"),
        ({"header": b"{}"}, "cannot be read"),
    ):
        with pytest.raises(ProtocolError, match=says):
            ask(service, dataclasses.replace(good, **changes), serial.to_pieces(tensor))


def test_payload_where_none_belongs_is_refused(program):
    with pytest.raises(ProtocolError, match="more payload"):
        ask(service_of(program), request(), [b"extra"])


def test_an_internal_error_tells_nothing(program):
    class Broken:
        def find(self, model):
            raise RuntimeError("a secret detail")

    with pytest.raises(EngineError) as caught:
        ask(CipherService(Broken(), allow_clear=True), request())
    assert "secret detail" not in str(caught.value)


@pytest.mark.parametrize("engine", [name for name in ("clear", "native") if name in available()])
def test_products_are_computed_on_whole_polynomials_only(program, engine):
    service = service_of(program)
    wanted = request(packing="product", engine=engine)
    reply, data = ask(service, wanted)
    count = json.loads(data)["rounds"][0]["layout"]["in_count"]
    for width, refused in ((2048, False), (100, True)):
        tensor = secret.generate(engine, load_params("N11_L1")).encrypt(np.ones((count, width)), 2.0**10, 1)
        head = messages.RoundRequest(reply.model_id, reply.plan_digest, wanted, 0, 0, serial.header_of(tensor).to_bytes())
        if refused:
            with pytest.raises(ProtocolError, match="whole polynomials"):
                ask(service, head, serial.to_pieces(tensor))
        else:
            answers = [ask(service, head, serial.to_pieces(tensor))[1] for _ in range(2)]
            assert answers[0] == answers[1]


def test_plans_are_made_for_classes_of_rows(program):
    service = service_of(program)
    digests = [ask(service, request(rows=rows))[0].plan_digest for rows in (1, 5, 8, 5000)]
    assert digests[1] == digests[2] and digests[0] != digests[3]
