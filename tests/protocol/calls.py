"""A call over a link, and what answers it in the tests of the transport."""

from __future__ import annotations

from he_backend.protocol import messages as m
from he_backend.protocol.session import receive, send

ROUND = m.RoundRequest("i", "d", m.PlanRequest("m", "e", "{}", "batch", 8, 1), 0, 0, b"")


def echo(incoming):
    if isinstance(incoming.head, m.Hello):
        return m.HelloReply("server"), ()
    return m.RoundReply(b"r", 0.5), [bytes(block) for block in incoming.blocks]


def call(link, payload=b"abc"):
    incoming = receive(link.exchange(send(ROUND, [payload])))
    return incoming.head, incoming.read_all()
