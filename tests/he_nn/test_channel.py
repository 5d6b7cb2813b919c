"""Guest and host over a channel: calls, exchanges of frames, errors both ways, and damaged objects."""

from __future__ import annotations

import queue
import threading

import pytest

from he_backend.errors import InputError, NotFoundError, ProtocolError
from he_nn import channel
from he_nn.channel import Caller, Message, answer

TIMEOUT_S = 20


class Pipe:
    """One end of an in-memory channel, with the sizes of what it sent."""

    def __init__(self, outgoing, incoming):
        self._outgoing, self._incoming = outgoing, incoming
        self.sent = []

    def send(self, data):
        self.sent.append(data)
        self._outgoing.put(data)

    def receive(self):
        return self._incoming.get(timeout=TIMEOUT_S)


def pipes():
    up, down = queue.Queue(), queue.Queue()
    return Pipe(up, down), Pipe(down, up)


class Hosted(threading.Thread):
    """A host that answers in a thread of its own; `error` is what it ended with."""

    def __init__(self, pipe, *arguments):
        super().__init__(daemon=True)
        self.pipe, self.arguments, self.error = pipe, arguments, None
        self.start()

    def run(self):
        try:
            answer(self.pipe, *self.arguments)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def ended(self):
        self.join(TIMEOUT_S)
        assert not self.is_alive()
        return self.error


def upper(frames):
    for frame in frames:
        yield frame.upper()


def test_a_call_carries_values_and_bytes_both_ways():
    guest, host = pipes()
    hosted = Hosted(host, {"add": lambda request: Message({"sum": request.values["a"] + request.values["b"]}, request.data * 2)})

    with Caller(guest) as caller:
        reply = caller.call("add", b"xy", a=1, b=2)

    assert (dict(reply.values), reply.data) == ({"sum": 3}, b"xyxy")
    assert hosted.ended() is None


def test_frames_go_in_few_objects_and_come_back_in_order(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_BYTES", 1000)
    guest, host = pipes()
    hosted = Hosted(host, {}, upper)
    frames = [bytes([97 + index % 26]) * (index % 90) for index in range(200)]

    with Caller(guest) as caller:
        back = list(caller.exchange(iter(frames)))

    assert back == [frame.upper() for frame in frames]
    assert 5 < len(guest.sent) < 20 and 5 < len(host.sent) < 20
    assert hosted.ended() is None


def test_the_host_computes_while_frames_are_still_sent(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_BYTES", 10)
    guest, host = pipes()
    seen = threading.Event()

    def handler(frames):
        for frame in frames:
            seen.set()
            yield frame

    def frames():
        yield b"first" * 10
        yield b"second" * 10
        assert seen.wait(TIMEOUT_S)
        yield b"third"

    Hosted(host, {}, handler)
    with Caller(guest) as caller:
        assert list(caller.exchange(frames()))[-1] == b"third"


def test_an_answer_that_was_left_unread_does_not_disturb_the_next_call(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_BYTES", 10)
    guest, host = pipes()
    hosted = Hosted(host, {"ping": lambda request: Message({"pong": 1})}, upper)

    with Caller(guest) as caller:
        answer_frames = caller.exchange(iter([b"a" * 10, b"b" * 10, b"c" * 10]))
        assert next(answer_frames) == b"A" * 10
        assert caller.call("ping").values == {"pong": 1}
        assert list(caller.exchange(iter([b"d"]))) == [b"D"]
    assert hosted.ended() is None


def test_a_handler_that_does_not_read_on_leaves_the_channel_in_step(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_BYTES", 10)
    guest, host = pipes()
    hosted = Hosted(host, {}, lambda frames: iter([next(frames)]))

    with Caller(guest) as caller:
        for _ in range(3):
            assert list(caller.exchange(iter([b"a" * 10, b"b" * 10, b"c" * 10]))) == [b"a" * 10]
    assert hosted.ended() is None


def test_frames_that_break_off_at_the_guest_end_the_exchange(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_BYTES", 10)
    guest, host = pipes()
    hosted = Hosted(host, {"ping": lambda request: Message({"pong": 1})}, upper)

    def frames():
        yield b"a" * 10
        yield b"b" * 10
        raise InputError("no more")

    with Caller(guest) as caller:
        with pytest.raises(InputError, match="no more"):
            list(caller.exchange(frames()))
        assert caller.call("ping").values == {"pong": 1}
    assert hosted.ended() is None


def test_what_the_host_refuses_reaches_the_guest_with_its_kind():
    guest, host = pipes()

    def refuse(request):
        raise NotFoundError("there is no model 'x'")

    hosted = Hosted(host, {"load": refuse})

    with pytest.raises(NotFoundError, match="there is no model 'x'"):
        with Caller(guest) as caller:
            caller.call("load")
    assert isinstance(hosted.ended(), NotFoundError)


def test_an_unforeseen_error_of_the_host_tells_the_guest_nothing_of_it():
    guest, host = pipes()

    def fail(request):
        raise RuntimeError("password 1234")

    hosted = Hosted(host, {"load": fail})

    with pytest.raises(Exception, match="error inside the other side") as refusal:
        with Caller(guest) as caller:
            caller.call("load")
    assert "1234" not in str(refusal.value)
    assert isinstance(hosted.ended(), RuntimeError)


def test_a_guest_that_fails_ends_the_host_with_the_reason():
    guest, host = pipes()
    hosted = Hosted(host, {})

    with pytest.raises(InputError):
        with Caller(guest):
            raise InputError("column x1 (2 missing)")
    assert isinstance(hosted.ended(), InputError) and "column x1" in str(hosted.error)


def test_an_unforeseen_error_of_the_guest_tells_the_host_nothing_of_it():
    guest, host = pipes()
    hosted = Hosted(host, {})

    with pytest.raises(ValueError, match="row 7"):
        with Caller(guest):
            raise ValueError("row 7 is 3.14")
    assert hosted.ended() is not None and "3.14" not in str(hosted.error)


def test_a_refused_call_that_the_guest_gets_over_is_no_failure():
    guest, host = pipes()

    def refuse(request):
        raise NotFoundError("not here")

    hosted = Hosted(host, {"load": refuse, "ping": lambda request: Message({})})
    with Caller(guest) as caller:
        with pytest.raises(NotFoundError):
            caller.call("load")
        caller.call("ping")
    assert hosted.ended() is None


def test_an_unknown_operation_is_refused():
    guest, host = pipes()
    Hosted(host, {"load": lambda request: Message({})})

    with pytest.raises(ProtocolError, match="operation 'plain' is not offered"):
        with Caller(guest) as caller:
            caller.call("plain")


def test_ciphertexts_where_none_are_computed_are_refused():
    guest, host = pipes()
    hosted = Hosted(host, {})

    guest.send(channel.LAST_FRAMES)

    assert isinstance(hosted.ended(), ProtocolError)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"Z", b"C", b"C\x01\x00", b"C\xff\xff\xff\xff{}", b"C\x02\x00\x00\x00[]", b"C\x02\x00\x00\x00{x", b"B\x05\x00\x00\x00{}"],
    ids=repr,
)
def test_a_damaged_object_does_not_pass_at_the_host(damaged):
    guest, host = pipes()
    hosted = Hosted(host, {"ping": lambda request: Message({})}, upper)

    guest.send(damaged)
    guest.send(channel.BYE + channel._pack({"kind": "protocol", "message": "gave up"}))

    assert isinstance(hosted.ended(), ProtocolError)


@pytest.mark.parametrize("damaged", [b"F\x01", b"F\x09\x00\x00\x00abc", b"L\xff\xff\xff\xff", b"R\x00", b"", b"Z", None, "text"], ids=repr)
def test_a_damaged_object_does_not_pass_at_the_guest(damaged):
    guest, host = pipes()
    host.send(damaged)

    with pytest.raises(ProtocolError):
        list(Caller(guest).exchange(iter([b"x"])))
