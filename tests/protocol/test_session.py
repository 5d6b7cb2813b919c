"""A payload comes through whole and in order or not at all, and calls come in their order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from he_backend.errors import EngineError, InputError, ProtocolError, TransportError
from he_backend.protocol import messages as m
from he_backend.protocol.session import ClientSession, Incoming, add_words, answering, receive, send
from he_backend.protocol.transport import CountingLink, MemoryLink, Retry

HEAD = m.ProbeReply(b"h")
PLAN = m.PlanRequest("latest", "clear", "{}", "batch", 10, 4)


def frames_of(payload: bytes = b"0123456789", block_bytes: int = 4) -> list[bytes]:
    return list(send(HEAD, [payload], block_bytes=block_bytes))


def read(frames: list[bytes], **options) -> bytes:
    return receive(frames, **options).read_all()


@given(pieces=st.lists(st.binary(max_size=50), max_size=8), block_bytes=st.integers(1, 40))
def test_payload_comes_through_whatever_the_pieces(pieces, block_bytes):
    frames = list(send(HEAD, pieces, block_bytes=block_bytes))

    incoming = receive(frames)
    blocks = [bytes(block) for block in incoming.blocks]

    assert incoming.head == HEAD
    assert b"".join(blocks) == b"".join(pieces)
    assert all(len(block) == block_bytes for block in blocks[:-1])


def test_pieces_may_be_any_buffer():
    numpy = pytest.importorskip("numpy")
    pieces = [bytearray(b"ab"), memoryview(b"cd"), numpy.arange(2, dtype="<u4")]

    assert read(list(send(HEAD, pieces))) == b"abcd\x00\x00\x00\x00\x01\x00\x00\x00"


def test_frames_are_bounded():
    frames = list(send(HEAD, [bytes(3 * m.MAX_BLOCK_BYTES + 1)]))

    assert len(frames) == 1 + 4 + 1
    assert max(map(len, frames)) <= m.MAX_BLOCK_BYTES + 64


def test_sending_and_receiving_stream():
    taken = []

    def pieces():
        for k in range(5):
            taken.append(k)
            yield bytes(10)

    blocks = receive(send(HEAD, pieces(), block_bytes=10)).blocks

    assert taken == []
    next(blocks)
    assert taken == [0]


@pytest.mark.parametrize("block_bytes", [0, -1, m.MAX_FRAME_BYTES])
def test_block_sizes_that_do_not_fit_a_frame_are_refused(block_bytes):
    with pytest.raises(ProtocolError, match="block_bytes"):
        next(send(HEAD, block_bytes=block_bytes))


def swapped(frames):
    return [frames[0], frames[2], frames[1], *frames[3:]]


def doctored(frames):
    return [*frames[:2], m.encode(m.Block(1, b"45x7")), *frames[3:]]


def with_end(blocks, payload_bytes, sum64):
    return lambda frames: [*frames[:-1], m.encode(m.End(blocks, payload_bytes, sum64))]


@pytest.mark.parametrize(
    "spoil, what",
    [
        (lambda frames: [], "cut off"),
        (lambda frames: frames[:1], "cut off"),
        (lambda frames: frames[:-1], "cut off"),
        (lambda frames: frames[1:], "began with Block"),
        (lambda frames: frames[-1:], "began with End"),
        (swapped, "block 1 came where block 0"),
        (lambda frames: [*frames[:2], *frames[1:]], "block 0 came where block 1"),
        (lambda frames: [*frames[:2], *frames[3:]], "block 2 came where block 1"),
        (lambda frames: [*frames[:3], frames[-1]], "3 of 10 were sent"),
        (doctored, "checksum wrong"),
        (with_end(2, 10, add_words(0, memoryview(b"0123456789"), 0)), "does not match its End"),
        (with_end(3, 11, add_words(0, memoryview(b"0123456789"), 0)), "does not match its End"),
        (with_end(3, 10, 0), "checksum wrong"),
        (lambda frames: [frames[0], *frames], "ProbeReply came where a Block or End"),
        (lambda frames: [*frames, frames[-1]], "after End"),
        (lambda frames: [*frames[:2], b"\x08\x01\x52", *frames[3:]], "cannot be read"),
    ],
)
def test_spoilt_streams_are_refused(spoil, what):
    with pytest.raises(ProtocolError, match=what):
        read(spoil(frames_of()))


def test_payload_above_the_limit_is_refused_before_it_is_all_there():
    came = []

    def frames():
        for frame in frames_of(bytes(1000), block_bytes=10):
            came.append(frame)
            yield frame

    with pytest.raises(ProtocolError, match="longer than the 25 bytes"):
        read(frames(), limit_bytes=25)
    assert len(came) == 1 + 3


def test_another_head_than_expected_is_refused():
    with pytest.raises(ProtocolError, match="ProbeReply came where RoundReply must come"):
        receive(frames_of(), expect=m.RoundReply)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_failure_anywhere_raises_what_it_stands_for(at):
    frames = [*frames_of()[:at], m.encode(m.Failure("input", "row shape"))]

    with pytest.raises(InputError, match="the other side answered: row shape"):
        read(frames)


def test_finish_refuses_payload_that_nobody_asked_for():
    with pytest.raises(ProtocolError, match="more payload than it needs"):
        receive(frames_of()).finish()


# --- a server's handler


def echo(incoming: Incoming):
    """A server that answers rounds and probes with their payload."""
    replies = {
        m.Hello: m.HelloReply("server", ("clear",)),
        m.PlanRequest: m.PlanReply("digest", "id-1", "id1MLP"),
        m.ProbeRequest: m.ProbeReply(b"p"),
        m.RoundRequest: m.RoundReply(b"r", 0.5),
    }
    payload = b"the plan" if isinstance(incoming.head, m.PlanRequest) else incoming.read_all()
    return replies[type(incoming.head)], [payload]


def call(handler, frames) -> Incoming:
    return receive(handler(iter(frames)))


def test_handler_answers():
    incoming = call(answering(echo), send(m.ProbeRequest("clear", "{}", b""), [b"abc"]))

    assert (incoming.head, incoming.read_all()) == (m.ProbeReply(b"p"), b"abc")


def test_handler_refuses_what_is_no_request():
    with pytest.raises(ProtocolError, match="ProbeReply came where Hello or PlanRequest"):
        call(answering(echo), frames_of())


def test_handler_refuses_payload_that_is_too_long():
    with pytest.raises(ProtocolError, match="longer than the 4 bytes"):
        call(answering(echo, limit_bytes=4), send(m.ProbeRequest("clear", "{}", b""), [b"abcde"]))


def test_handler_refuses_payload_that_was_not_read():
    with pytest.raises(ProtocolError, match="PlanRequest came with more payload"):
        call(answering(echo), send(PLAN, [b"surplus"])).read_all()


def test_handler_passes_on_our_errors_and_hides_others(caplog):
    def broken(error):
        def answer(incoming):
            raise error

        return answering(answer)

    with pytest.raises(InputError, match="bits is 99"):
        call(broken(InputError("bits is 99")), send(PLAN))
    with pytest.raises(EngineError) as caught:
        call(broken(KeyError("inner detail")), send(PLAN))
    assert "inner detail" not in str(caught.value)
    assert "inner detail" in caplog.text


def test_error_in_the_middle_of_an_answer_reaches_the_client():
    def answer(incoming):
        incoming.finish()

        def blocks():
            yield b"first"
            raise InputError("found late")

        return m.PlanReply("d", "i", "n"), blocks()

    incoming = call(answering(answer, block_bytes=5), send(PLAN))

    assert bytes(next(incoming.blocks)) == b"first"
    with pytest.raises(InputError, match="found late"):
        next(incoming.blocks)


# --- the client's order


def whole(incoming: Incoming):
    return incoming.head, incoming.read_all()


def ready_session(link=None, **options) -> ClientSession:
    session = ClientSession(link or MemoryLink(answering(echo)), **options)
    session.hello(m.Hello("client"))
    session.plan(PLAN)
    session.probe(m.ProbeRequest("clear", "{}", b""), lambda: [b"x"], whole)
    return session


def test_a_task_in_order():
    link = CountingLink(MemoryLink(answering(echo)), record=True)
    session = ClientSession(link)

    assert session.hello(m.Hello("client")).software == "server"
    assert session.plan(PLAN) == (m.PlanReply("digest", "id-1", "id1MLP"), b"the plan")
    assert session.probe(m.ProbeRequest("clear", "{}", b""), lambda: [b"x"], whole) == (m.ProbeReply(b"p"), b"x")
    assert session.round(2, 1, b"h", lambda: [b"ab", b"c"], whole) == (m.RoundReply(b"r", 0.5), b"abc")
    assert m.decode(link.sent[-3]) == m.RoundRequest("id-1", "digest", PLAN, 2, 1, b"h")


def probe_of(session):
    return session.probe(m.ProbeRequest("clear", "{}", b""), lambda: [b"x"], whole)


def round_of(session):
    return session.round(0, 0, b"", lambda: [b"x"], whole)


STEPS = {"hello": lambda session: session.hello(m.Hello("c")), "plan": lambda session: session.plan(PLAN)}
STEPS.update({"probe": probe_of, "round": round_of})


@pytest.mark.parametrize(
    "taken, refused",
    [([], "plan"), ([], "probe"), ([], "round"), (["hello"], "probe"), (["hello"], "round"), (["hello", "plan"], "round")],
)
def test_steps_out_of_order_are_refused_before_anything_is_sent(taken, refused):
    link = CountingLink(MemoryLink(answering(echo)))
    session = ClientSession(link)
    for step in taken:
        STEPS[step](session)
    before = link.traffic

    with pytest.raises(ProtocolError, match=f"{refused} cannot come yet: the order is hello, plan, probe, rounds"):
        STEPS[refused](session)
    assert link.traffic == before


def test_a_new_plan_needs_a_new_probe():
    session = ready_session()
    session.plan(PLAN)

    with pytest.raises(ProtocolError, match="round cannot come yet"):
        round_of(session)


def test_a_failed_probe_forbids_rounds():
    session = ready_session()

    def wrong(incoming):
        incoming.read_all()
        raise ProtocolError("the known answer is wrong")

    with pytest.raises(ProtocolError, match="known answer"):
        session.probe(m.ProbeRequest("clear", "{}", b""), lambda: [b"x"], wrong)
    with pytest.raises(ProtocolError, match="round cannot come yet"):
        round_of(session)


def test_a_reply_of_another_kind_is_refused():
    session = ClientSession(MemoryLink(lambda frames: send(m.ProbeReply(b""))))

    with pytest.raises(ProtocolError, match="ProbeReply came where HelloReply must come"):
        session.hello(m.Hello("c"))


def test_the_servers_frame_limit_is_kept():
    def answer(incoming):
        head, blocks = echo(incoming)
        return (m.HelloReply("s", max_frame_bytes=2048), ()) if isinstance(incoming.head, m.Hello) else (head, blocks)

    link = CountingLink(MemoryLink(answering(answer)), record=True)
    session = ready_session(link)
    session.round(0, 0, b"", lambda: [bytes(10_000)], whole)

    assert max(map(len, link.sent)) <= 2048


def test_a_tiny_frame_limit_is_refused():
    session = ClientSession(MemoryLink(answering(lambda incoming: (m.HelloReply("s", max_frame_bytes=10), ()))))

    with pytest.raises(ProtocolError, match="max_frame_bytes is 10"):
        session.hello(m.Hello("c"))


class Flaky(MemoryLink):
    """Breaks the first `breaks` calls after `frames` frames of the answer."""

    breaks = 0
    frames = 0

    def exchange(self, frames):
        answer = super().exchange(frames)
        if not self.breaks:
            return answer
        self.breaks -= 1
        return self._broken(answer)

    def _broken(self, answer):
        for _ in range(self.frames):
            yield next(answer)
        raise TransportError("went away")


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_round_that_breaks_anywhere_is_sent_again(after):
    link = Flaky(answering(echo, block_bytes=4))
    session = ready_session(link, policy=Retry(attempts=3, backoff_s=0))
    link.breaks, link.frames = 2, after

    assert session.round(0, 0, b"", lambda: [b"0123456789"], whole)[1] == b"0123456789"


def test_a_round_that_keeps_breaking_fails_and_the_session_can_go_on():
    link = Flaky(answering(echo))
    session = ready_session(link, policy=Retry(attempts=3, backoff_s=0))
    link.breaks = 3

    with pytest.raises(TransportError):
        round_of(session)
    assert round_of(session)[1] == b"x"


@given(data=st.binary(max_size=100), cuts=st.lists(st.integers(0, 100), max_size=4), flip=st.integers(0, 99), bit=st.integers(0, 7))
def test_the_sum_does_not_depend_on_cuts_and_notices_any_flipped_bit(data, cuts, flip, bit):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    total = 0
    for start, stop in zip(edges, edges[1:]):
        total = add_words(total, memoryview(data[start:stop]), start)
    assert total == add_words(0, memoryview(data), 0)
    if flip < len(data):
        damaged = bytearray(data)
        damaged[flip] ^= 1 << bit
        assert add_words(0, memoryview(damaged), 0) != total
