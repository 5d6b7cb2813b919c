"""Links count what passes and retries stop when they should."""

from __future__ import annotations

import threading

import pytest

from he_backend.errors import InputError, TransportError
from he_backend.protocol import messages as m
from he_backend.protocol.session import answering, receive, send
from he_backend.protocol.transport import CountingLink, MemoryLink, Retry, Traffic, retry


def reply(incoming):
    return m.RoundReply(b"", 0.0), [bytes(block) for block in incoming.blocks]


ROUND = m.RoundRequest("i", "d", m.PlanRequest("m", "e", "{}", "batch", 8, 1), 0, 0, b"")


def test_counts_are_what_passed():
    link = CountingLink(MemoryLink(answering(reply)), record=True)

    receive(link.exchange(send(ROUND, [b"abc"]))).read_all()
    receive(link.exchange(send(m.Hello("c")))).read_all()

    assert link.traffic == Traffic(
        calls=2,
        rounds=1,
        sent_frames=3 + 2,
        sent_bytes=sum(map(len, link.sent)),
        received_frames=3 + 2,
        received_bytes=sum(map(len, link.received)),
    )
    assert link.sent[:3] == list(send(ROUND, [b"abc"]))
    assert b"abc" in link.received[1]


def test_frames_are_kept_only_when_asked():
    link = CountingLink(MemoryLink(answering(reply)))

    receive(link.exchange(send(ROUND, [b"abc"]))).read_all()

    assert link.sent == [] and link.received == []


def test_counts_hold_when_threads_share_a_link():
    link = CountingLink(MemoryLink(answering(reply)))

    def calls():
        for _ in range(50):
            receive(link.exchange(send(ROUND, [b"abc"]))).read_all()

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert link.traffic.rounds == link.traffic.calls == 200
    assert link.traffic.sent_frames == link.traffic.received_frames == 600


def test_closed_link_refuses_calls():
    link = CountingLink(MemoryLink(answering(reply)))
    link.close()

    with pytest.raises(TransportError, match="closed"):
        list(link.exchange(send(ROUND)))


def attempts_until(successes_at: int, error: Exception, policy: Retry) -> tuple[int, list[float]]:
    """How often a call that first works at attempt `successes_at` was made, and the pauses."""
    made, pauses = [], []

    def call():
        made.append(1)
        if len(made) < successes_at:
            raise error
        return "done"

    try:
        assert retry(call, policy, sleep=pauses.append) == "done"
    except type(error):
        assert len(made) < successes_at
    return len(made), pauses


def test_retry_stops_at_the_first_success():
    made, pauses = attempts_until(3, TransportError("gone"), Retry(attempts=5, backoff_s=1.0))

    assert made == 3
    assert 0.75 <= pauses[0] <= 1.25 and 1.5 <= pauses[1] <= 2.5


def test_retry_gives_up_after_its_attempts():
    assert attempts_until(9, TransportError("gone"), Retry(attempts=4, backoff_s=0.0))[0] == 4


def test_retry_leaves_other_errors_alone():
    assert attempts_until(9, InputError("wrong"), Retry(attempts=4))[0] == 1


def test_pauses_are_bounded():
    _, pauses = attempts_until(99, TransportError("gone"), Retry(attempts=12, backoff_s=1.0))

    assert max(pauses) <= 12.5
