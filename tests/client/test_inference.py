"""The round loop: right answers in chunks, clear failures, retries, cancelling."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import numpy as np
import pytest

import he_backend as he
from he_backend.client.inference import Client
from he_backend.errors import Cancelled, EngineError, InputError, ParameterError, ProtocolError, TransportError
from he_backend.graph import Reference
from he_backend.protocol import messages
from he_backend.protocol.transport import MemoryLink, Retry
from he_backend.server import service as service_module
from tests.graph.networks import NetworkBuilder
from tests.parties import QUICK, client_of, digits, service_of


@pytest.fixture(scope="module")
def parties():
    return digits(40)


class Flaky:
    """A link that breaks at the calls whose numbers are given, in the middle of the answer."""

    def __init__(self, service, breaks):
        self._link, self._breaks, self.calls = MemoryLink(service.handle), set(breaks), 0

    def exchange(self, frames):
        self.calls += 1
        answer = self._link.exchange(frames)
        if self.calls in self._breaks:
            next(answer)
            raise TransportError("the server went away")
        yield from answer

    def close(self):
        self._link.close()


def test_rows_beyond_the_ring_go_in_chunks(parties):
    program, rows, _ = parties
    many = np.tile(rows, (60, 1))[:2100]
    client, link = client_of(service_of(program), engine="seal", preset="N11_L1")

    result = client.infer("latest", many)

    due = next(iter(Reference(program).run(many).values()))
    assert np.array_equal(result.output.argmax(axis=1), due.argmax(axis=1))
    assert link.traffic.rounds == 2 * result.report.rounds
    assert result.report.bytes_up + result.report.bytes_down < link.traffic.sent_bytes + link.traffic.received_bytes


class Meeting:
    """A link whose first two rounds wait for each other: what runs one after another would wait in vain."""

    def __init__(self, service):
        self._link, self._barrier, self._left, self._lock = (
            MemoryLink(service.handle),
            threading.Barrier(2, timeout=30),
            2,
            threading.Lock(),
        )

    def exchange(self, frames):
        stream = iter(frames)
        head = next(stream)
        if isinstance(messages.decode(head), messages.RoundRequest):
            with self._lock:
                self._left -= 1
                waits = self._left >= 0
            if waits:
                self._barrier.wait()
        yield from self._link.exchange(itertools.chain([head], stream))

    def close(self):
        self._link.close()


@pytest.mark.parametrize("engine", ["clear", "native", "seal"])
def test_chunks_are_under_way_at_the_same_time_and_come_out_in_order(parties, engine):
    program, rows, _ = parties
    many = np.tile(rows, (220, 1))[:8500] * np.linspace(0.1, 1.0, 8500, dtype=np.float32)[:, None]
    one, _ = client_of(service_of(program), engine=engine, preset="N11_L1")
    two = Client(Meeting(service_of(program)), engine=engine, preset="N11_L1", lanes=2)

    alone, beside = one.infer("latest", many).report, two.infer("latest", many)

    due = next(iter(Reference(program).run(many).values()))
    assert np.abs(beside.output - due).max() < 2.0**-beside.report.expected_bits * np.abs(due).max()
    assert (alone.lanes, beside.report.lanes) == (1, 2)
    assert abs(beside.report.bytes_up / alone.bytes_up - 1) < 0.02


def test_when_one_chunk_fails_the_others_stop_and_the_error_is_told(parties):
    program, rows, _ = parties
    link = Flaky(service_of(program), breaks=[5])
    client = Client(link, engine="clear", preset="N11_L1", retry=Retry(1), memory_bytes=1 << 26, lanes=2)
    with pytest.raises(TransportError, match="went away"):
        client.infer("latest", np.tile(rows, (1000, 1)))
    assert link.calls <= 7


def test_progress_of_several_chunks_only_grows(parties):
    program, rows, _ = parties
    seen = []
    client = Client(MemoryLink(service_of(program).handle), engine="native", preset="N11_L1", progress=seen.append, lanes=2)
    client.infer("latest", np.tile(rows, (220, 1)))
    done = [at.chunk * at.rounds + at.round for at in seen]
    assert done == list(range(seen[0].chunks * seen[0].rounds)) and seen[0].chunks > 1


def test_progress_names_every_round(parties):
    program, rows, _ = parties
    seen = []
    client, _ = client_of(service_of(program), engine="clear", preset="N11_L1", progress=seen.append)
    client.infer("latest", rows)
    assert [(at.chunk, at.round) for at in seen] == [(0, i) for i in range(len(program.segments))]


def test_a_broken_round_is_sent_again(parties):
    program, rows, _ = parties
    link = Flaky(service_of(program), breaks=[4])  # calls 1 to 3 are hello, plan and probe
    whole, _ = client_of(service_of(program), engine="clear", preset="N11_L1")

    result = Client(link, engine="clear", preset="N11_L1", retry=QUICK).infer("latest", rows)

    assert np.array_equal(result.output, whole.infer("latest", rows).output)
    assert link.calls == 3 + len(program.segments) + 1


def test_a_server_that_stays_away_ends_the_task_and_the_next_one_works(parties):
    program, rows, _ = parties
    link = Flaky(service_of(program), breaks=[4, 5])
    client = Client(link, engine="clear", preset="N11_L1", retry=QUICK)
    with pytest.raises(TransportError, match="went away"):
        client.infer("latest", rows)
    assert client.infer("latest", rows).output.shape == (40, 10)


def test_cancelling_stops_before_the_next_round(parties):
    program, rows, _ = parties
    client, link = client_of(service_of(program), engine="clear", preset="N11_L1", cancelled=lambda: link.traffic.rounds >= 1)
    with pytest.raises(Cancelled, match="round 1"):
        client.infer("latest", rows)
    assert link.traffic.rounds == 1


def test_wrong_rows_are_refused_before_anything_is_encrypted(parties):
    program, rows, _ = parties
    client, link = client_of(service_of(program), engine="clear", preset="N11_L1")
    with pytest.raises(InputError, match="NaN"):
        client.infer("latest", np.where(rows > 0.5, np.nan, rows))
    assert link.traffic.rounds == 0


class Changed:
    """A server whose messages of one kind are changed on their way."""

    def __init__(self, service, kind, change):
        self._service, self._kind, self._change = service, kind, change

    def handle(self, frames):
        for frame in self._service.handle(frames):
            message = messages.decode(frame)
            yield messages.encode(self._change(message)) if isinstance(message, self._kind) else frame


@pytest.mark.parametrize(
    "kind, change, error, says",
    [
        (messages.HelloReply, lambda m: dataclasses.replace(m, engines=("native",)), EngineError, "this side asked for clear"),
        (messages.PlanReply, lambda m: dataclasses.replace(m, plan_digest="0"), ProtocolError, "does not match its digest"),
        (messages.ProbeReply, lambda m: dataclasses.replace(m, header=m.header.replace(b"2048", b"4096")), ProtocolError, "ring degree"),
    ],
)
def test_a_server_that_does_not_match_is_noticed_before_rows_are_sent(parties, kind, change, error, says):
    program, rows, _ = parties
    client, link = client_of(Changed(service_of(program), kind, change), engine="clear", preset="N11_L1")
    with pytest.raises(error, match=says):
        client.infer("latest", rows)
    assert link.traffic.rounds == 0


@pytest.mark.parametrize("bits", [-3, 0, 3, 25, 60, True, "12"])
def test_a_precision_that_nobody_can_plan_for_is_refused_before_anything_is_asked(bits):
    with pytest.raises(ParameterError, match=f"^bits: {bits!r}; allowed: 4 to 24 bits of precision$"):
        Client(MemoryLink(lambda frames: iter([])), engine="clear", bits=bits)


def test_a_wrong_answer_of_the_environment_test_ends_the_task(parties, monkeypatch):

    program, rows, _ = parties
    doubled = dataclasses.replace(
        service_module.probe_map(), blocks=tuple(dataclasses.replace(b, weights=b.weights * 2) for b in service_module.probe_map().blocks)
    )
    monkeypatch.setattr(service_module, "probe_map", lambda: doubled)
    client, link = client_of(service_of(program), engine="clear", preset="N11_L1")
    with pytest.raises(ProtocolError, match="environment test"):
        client.infer("latest", rows)
    assert link.traffic.rounds == 0


def test_auto_takes_the_smallest_modulus_that_promises_the_bits(parties):
    program, _rows, _ = parties
    sizes = []
    for bits in (6, 10, 14):
        client, _ = client_of(service_of(program), engine="clear", preset="auto", bits=bits)
        task = client.prepare("latest")
        assert task.plan.expected_bits >= bits
        assert task.plan.params.security_level == 128
        sizes.append(task.plan.params.log2_modulus)
    assert sizes == sorted(set(sizes))


def test_a_network_without_weights_needs_no_rounds():
    net = NetworkBuilder((4,))
    net.apply("Relu")
    rows = np.array([[-1.0, 2.0, -3.0, 4.0]], dtype=np.float32)
    result = he.infer(he.convert(net.model()), rows, engine="clear", preset="N11_L1")
    assert np.array_equal(result.output, np.maximum(rows, 0))
    assert result.report.rounds == 0 and result.report.bytes_up == 0
