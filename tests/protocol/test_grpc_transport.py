"""The same calls over a real socket: whole, bounded, cancelled and broken."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from he_backend.errors import InputError, ParameterError, ProtocolError, TransportError
from he_backend.protocol import messages as m
from he_backend.protocol.bundles import BUNDLE_BYTES
from he_backend.protocol.grpc_transport import METHOD, GrpcLink, ServerLimits, serve
from he_backend.protocol.session import ClientSession, answering, receive, send
from he_backend.protocol.transport import CountingLink, Retry
from tests.protocol.calls import ROUND, call, echo

HELLO = m.Hello("client")
LARGE = bytes(BUNDLE_BYTES)  # a request that goes frame by frame


def test_payload_of_many_blocks_comes_back(start):
    _, link = start()
    payload = bytes(range(256)) * (5 << 12)  # 5 MiB

    assert call(link, payload) == (m.RoundReply(b"r", 0.5), payload)


def test_calls_run_at_the_same_time(start):
    gate = threading.Barrier(3, timeout=10)

    def answer(incoming):
        gate.wait()
        return echo(incoming)

    _, link = start(answering(answer))
    results = []
    threads = [threading.Thread(target=lambda k=k: results.append(call(link, b"%d" % k)[1])) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(results) == [b"0", b"1", b"2"]


def test_counted_frames_are_the_same_as_in_memory(start):
    _, link = start()
    counting = CountingLink(link, record=True)

    call(counting, b"abc")

    assert counting.sent == list(send(ROUND, [b"abc"]))
    assert counting.received == list(send(m.RoundReply(b"r", 0.5), [b"abc"]))


def test_blocks_are_answered_while_others_are_still_sent(start):
    def handler(frames):
        yield from frames

    _, link = start(handler)
    answered = threading.Event()

    def frames():
        yield LARGE
        assert answered.wait(10)
        yield b"second"

    answer = link.exchange(frames())
    assert next(answer) == LARGE
    answered.set()
    assert next(answer) == b"second"


def test_neither_side_runs_ahead_of_a_slow_reader(start):
    made = {"client": 0, "server": 0}

    def endless(side):
        while made[side] < 200:  # 200 MiB
            made[side] += 1
            yield bytes(1 << 20)

    def handler(frames):
        next(frames)
        yield from endless("server")

    _, link = start(handler)
    answer = link.exchange(endless("client"))
    next(answer)
    time.sleep(0.5)

    assert max(made.values()) < 40
    answer.close()


def test_failure_is_raised_while_the_client_still_sends(start):
    def answer(incoming):
        raise InputError("rows are wrong")

    _, link = start(answering(answer))

    with pytest.raises(InputError, match="rows are wrong"):
        call(link, bytes(30 << 20))


def test_error_while_making_frames_is_raised_here_and_ends_the_call(start):
    ended = threading.Event()

    def handler(frames):
        try:
            yield from frames
        finally:
            ended.set()

    _, link = start(handler)

    def frames():
        yield LARGE
        raise InputError("row 3 has no pixel column")

    with pytest.raises(InputError, match="row 3"):
        list(link.exchange(frames()))
    assert ended.wait(5)


def test_error_while_making_a_small_request_is_raised_before_anything_is_sent(start):
    calls = []

    def handler(frames):
        calls.append(1)
        yield from frames

    _, link = start(handler)

    def frames():
        yield b"one"
        raise InputError("row 3 has no pixel column")

    with pytest.raises(InputError, match="row 3"):
        list(link.exchange(frames()))
    assert not calls


def test_a_small_request_may_have_an_answer_of_any_size(start):
    def handler(frames):
        assert list(frames) == [b"one", b"", b"two"]
        for index in range(5):
            yield bytes([index]) * (700 << 10)

    _, link = start(handler)

    answer = list(link.exchange(iter([b"one", b"", b"two"])))

    assert [(frame[0], len(frame)) for frame in answer] == [(index, 700 << 10) for index in range(5)]


def test_a_server_ends_answers_that_nobody_reads(start):
    ended = threading.Event()

    def handler(frames):
        list(frames)
        try:
            for _ in range(200):
                yield LARGE
        finally:
            ended.set()

    _, link = start(handler, limits=ServerLimits(call_timeout_s=1.0))
    answer = link.exchange(iter([b"one"]))
    next(answer)

    assert ended.wait(10)
    with pytest.raises(TransportError):
        list(answer)


def test_closing_the_answer_cancels_the_call(start):
    ended, blocks = threading.Event(), []

    def handler(frames):
        try:
            for index in range(1000):
                blocks.append(index)
                yield bytes(BUNDLE_BYTES)  # small ones would go out together, when all are there
                time.sleep(0.01)
        finally:
            ended.set()

    _, link = start(handler)
    answer = link.exchange([b"request"])
    next(answer)
    answer.close()

    assert ended.wait(5) and len(blocks) < 1000


def test_nobody_listening():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

        with pytest.raises(TransportError, match=f"server {address}: no connection: is the address right"):
            call(GrpcLink(address))


def test_listener_that_says_nothing():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        link = GrpcLink(f"127.0.0.1:{silent.getsockname()[1]}", connect_timeout_s=0.5)
        began = time.monotonic()

        with pytest.raises(TransportError):
            call(link)
        assert time.monotonic() - began < 5


def test_something_else_listens():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    with pytest.raises(TransportError, match="something else listens there"):
        call(GrpcLink(f"127.0.0.1:{port}"))
    server.stop(0)


def test_deadline(start):
    release = threading.Event()

    def answer(incoming):
        release.wait(10)
        return echo(incoming)

    _, link = start(answering(answer), link_options={"call_timeout_s": 0.3})

    with pytest.raises(TransportError, match=r"longer than the 0.3 s it may take"):
        call(link)
    release.set()


def test_a_server_ends_calls_that_last_too_long(start):
    _, link = start(limits=ServerLimits(call_timeout_s=0.3))
    forever = threading.Event()

    def frames():
        yield m.encode(ROUND)
        yield m.encode_block(0, [memoryview(LARGE)])
        forever.wait(10)

    with pytest.raises(TransportError):
        receive(link.exchange(frames())).read_all()
    forever.set()


def test_a_busy_server_says_so(start):
    entered, release = threading.Event(), threading.Event()

    def answer(incoming):
        entered.set()
        release.wait(10)
        return echo(incoming)

    _, link = start(answering(answer), max_workers=1, limits=ServerLimits(max_calls=1))
    first = threading.Thread(target=call, args=(link,))
    first.start()
    assert entered.wait(10)

    with pytest.raises(TransportError, match="busy"):
        call(link)
    release.set()
    first.join()


def test_server_that_goes_away_in_the_middle(start):
    begun = threading.Event()

    def handler(frames):
        yield m.encode(m.RoundReply(b"", 0.0))
        begun.set()
        time.sleep(2)
        yield m.encode(m.End(0, 0, 0))

    server, link = start(handler)
    threading.Thread(target=lambda: (begun.wait(), server.stop(0))).start()

    with pytest.raises(TransportError, match=r"server 127\.0\.0\.1:\d+: "):
        receive(link.exchange(send(ROUND))).read_all()


def test_a_session_survives_a_server_that_comes_back(start):
    def answer(incoming):
        replies = {m.PlanRequest: m.PlanReply("d", "i", "n"), m.ProbeRequest: m.ProbeReply(b"")}
        head = replies.get(type(incoming.head))
        return (head, [incoming.read_all()][1:]) if head else echo(incoming)

    server, link = start(answering(answer))
    session = ClientSession(link, policy=Retry(attempts=10, backoff_s=0.05))
    session.hello(HELLO)
    session.plan(ROUND.plan)
    session.probe(m.ProbeRequest("e", "{}", b""), lambda: [b"x"], lambda incoming: incoming.head)
    server.stop(0)
    again = threading.Timer(0.4, lambda: start(answering(answer), port=server.port))
    again.start()

    assert session.round(0, 0, b"", lambda: [b"abc"], lambda incoming: incoming.read_all()) == b"abc"
    again.join()


def test_closed_link(start):
    _, link = start()
    call(link)
    link.close()

    with pytest.raises(TransportError, match="is closed"):
        call(link)


def test_stop_lets_running_calls_finish(start):
    begun = threading.Event()

    def answer(incoming):
        begun.set()
        time.sleep(0.3)
        return echo(incoming)

    server, link = start(answering(answer))
    threading.Thread(target=lambda: (begun.wait(), server.stop(5))).start()

    assert call(link)[1] == b"abc"
    assert server.wait(5)


def test_unforeseen_error_in_a_handler_shows_nothing(start):
    def handler(frames):
        raise KeyError("inner detail")
        yield

    _, link = start(handler)

    with pytest.raises(TransportError, match="error inside the server") as caught:
        call(link)
    assert "inner detail" not in str(caught.value)


def raw_call(port, frames):
    """Frames as a client without our checks would send them."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        return list(channel.stream_stream(METHOD)(iter(frames), timeout=10))


def test_a_frame_above_the_limit_never_reaches_the_handler(start):
    seen = []

    def handler(frames):
        for frame in frames:
            seen.append(len(frame))
            yield b"ok"

    server, _ = start(handler)

    with pytest.raises(grpc.RpcError) as caught:
        raw_call(server.port, [bytes(m.MAX_FRAME_BYTES + 1)])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert seen == []


@pytest.mark.parametrize(
    "frames, what",
    [
        ([], "cut off"),
        ([b"\x08\x07"], "speaks protocol 7"),
        ([b"not a frame"], "without a protocol version"),
        (list(send(ROUND, [b"abc"]))[:-1], "cut off"),
        (list(send(ROUND, [b"abc"])) * 2, "after End"),
    ],
)
def test_a_bad_peer_is_answered_with_a_failure(start, frames, what):
    server, _ = start()

    answer = raw_call(server.port, frames)

    failure = m.decode(answer[-1])
    assert failure.kind == "protocol" and what in failure.message


def test_a_server_of_another_version_is_named(start):
    _, link = start(lambda frames: iter([b"\x08\x02\xff"]))

    with pytest.raises(ProtocolError, match="speaks protocol 2, this side 1: update he-nn on this side"):
        call(link)


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":34000", "localhost:http", "localhost:0", "h:70000"])
def test_addresses_that_are_none(address):
    with pytest.raises(ParameterError, match="write host:port"):
        GrpcLink(address)


def test_a_port_that_is_taken(start):
    server, _ = start()

    with pytest.raises(TransportError, match="cannot listen on .* in use"):
        serve(answering(echo), f"127.0.0.1:{server.port}")


# --- TLS
