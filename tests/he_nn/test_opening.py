"""Trips over the channel: few and large, and the same predictions when the opening calls are not taken up."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from he_backend import local, zoo
from he_backend.errors import NotFoundError, ParameterError, ProtocolError
from he_backend.graph import convert
from he_backend.server import service
from he_nn.channel import Caller
from he_nn.opening import OpenedLink, join_calls, split_calls
from tests.he_nn.test_roles import Pipe, Site, digits, inference


class CountingPipe(Pipe):
    """Counts how often the guest waits for an answer: a trip there and back."""

    def __init__(self, outgoing, incoming):
        super().__init__(outgoing, incoming)
        self.turns = []

    def send(self, data):
        self.turns.append("send")
        super().send(data)

    def receive(self):
        self.turns.append("receive")
        return super().receive()

    @property
    def trips(self):
        return sum(this == "receive" and before == "send" for before, this in zip(self.turns, self.turns[1:]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.he_nn.test_roles.Pipe", CountingPipe)
    return Site(tmp_path)


@pytest.mark.parametrize("model_type", ["MLP", "CNN"])
@pytest.mark.parametrize("named", [True, False])
def test_an_inference_takes_one_trip_more_than_it_has_segments(site, model_type, named):
    rows, plain = digits(20, model_type)
    bound = site.load(model_type)
    segments = convert(str(zoo.shipped(model_type).onnx_path)).rounds

    done, host = site.run("infer", inference(model_type=model_type), rows, *([bound] if named else []))

    assert done.predictions.result == plain.argmax(axis=1).tolist()
    assert site.guest_pipe.trips == segments + 1
    assert host.figures["calls"] == segments + 3  # hello, plan and environment test came with the first trip; rounds


def test_load_eval_and_plain_inference_take_one_trip_or_two(site):
    rows, _ = digits(4)
    site.load()
    assert site.guest_pipe.trips == 1

    site.run("infer", inference(is_encryption=False), rows)
    assert site.guest_pipe.trips == 2


def test_another_model_bound_meanwhile_does_not_slip_in(site, monkeypatch):
    """'latest' is what was latest when the inference began."""
    rows, plain = digits(4)
    first = site.load()
    describe = OpenedLink.describe

    def then_bind(self, *given, **values):
        answer = describe(self, *given, **values)
        network = zoo.shipped("CNN")
        site.registry.add(network.onnx_path, "MLP")
        return answer

    monkeypatch.setattr(OpenedLink, "describe", then_bind)
    done, host = site.run("infer", inference(), rows)

    assert done.artifact.model_id == host.model_id == first.model_id
    assert done.predictions.result == plain.argmax(axis=1).tolist()


def test_what_the_host_refuses_in_an_opening_call_ends_both_sides(site):
    rows, _ = digits(4)
    site.load()

    with pytest.raises(NotFoundError, match="there is no model 'gone'"):
        site.run("infer", inference(model_id="gone"), rows)
    assert isinstance(site.host_error, NotFoundError)


def test_rows_wait_for_the_answer_to_the_environment_test(site, monkeypatch):
    rows, _ = digits(4)
    site.load()
    due = service.probe_map()
    doubled = dataclasses.replace(due, blocks=tuple(dataclasses.replace(one, weights=one.weights * 2) for one in due.blocks))
    monkeypatch.setattr(service, "probe_map", lambda: doubled)

    with pytest.raises(ProtocolError, match="environment test gave a wrong answer"):
        site.run("infer", inference(), rows)
    assert site.guest_pipe.trips == 1 and isinstance(site.host_error, ProtocolError)


def test_calls_that_were_not_foreseen_go_over_the_channel():
    said = []

    class Host(Caller):
        def call(self, operation, data=b"", **values):
            said.append((operation, split_calls(data)))
            return type("Reply", (), {"values": {}, "data": join_calls([[b"one", b"two"], [b"three"]])})()

        def exchange(self, frames):
            said.append(list(frames))
            return iter([b"channel"])

    link = OpenedLink(Host(None))
    link.describe([[b"a"], [b"b", b"c"]], model_id="x")

    assert list(link.exchange(iter([b"a"]))) == [b"one", b"two"]
    assert list(link.exchange([b"other"])) == [b"channel"]
    assert list(link.exchange([b"b", b"c"])) == [b"channel"]
    assert said == [("describe", [[b"a"], [b"b", b"c"]]), [b"other"], [b"b", b"c"]]


def test_a_host_that_answers_too_few_calls_is_refused():
    class Host(Caller):
        def call(self, operation, data=b"", **values):
            return type("Reply", (), {"values": {}, "data": b""})()

    with pytest.raises(ProtocolError, match="left calls unanswered"):
        OpenedLink(Host(None)).describe([[b"a"]])


@pytest.mark.parametrize("calls", [[], [[]], [[b""]], [[b"a", b"bc"], [], [b"d" * 1000]]])
def test_calls_travel_in_one_piece(calls):
    assert split_calls(join_calls(calls)) == calls


@pytest.mark.parametrize("keep", [1, 5, 9, 12])
def test_calls_that_were_cut_off_are_refused(keep):
    data = join_calls([[b"abc"], [b"de"]])

    with pytest.raises(ProtocolError, match="cut off"):
        split_calls(data[:keep])


def test_the_channel_costs_little_beside_the_inference_itself(site):
    """Against both parties in one process; medians of three, and room for a busy machine."""
    rows, _ = digits(256)
    bound = site.load()
    x = rows.values.astype(np.float32).reshape(256, *zoo.shipped("MLP").input_shape)

    def seconds(run):
        times = []
        for _ in range(3):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        return sorted(times)[1]

    program = convert(str(zoo.shipped("MLP").onnx_path))
    within = seconds(lambda: local.infer(program, x, preset="N11_L1"))
    over = seconds(lambda: site.run("infer", inference(), rows, bound))

    assert over < 4 * within + 1.0, (over, within)


def test_both_sides_must_agree_on_encryption(site):
    with pytest.raises(ParameterError, match="is_encryption: true at the host"):
        site.run("infer", inference(is_encryption=False), digits(2)[0], site.load(), host_params=inference())
