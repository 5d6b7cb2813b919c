"""Which message may come next.

One call is: a message, its payload cut into Blocks, End; the answer has the same form, or is a Failure. Across calls a client greets,
plans, probes, and only then runs rounds; a server keeps nothing between calls, so it checks the order inside each.
"""

from __future__ import annotations

import copy
import enum
import logging
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Tuple, TypeVar

import numpy as np

from he_backend.errors import HeError, ProtocolError
from he_backend.protocol.failures import error_of, failure_of
from he_backend.protocol.messages import (
    MAX_BLOCK_BYTES,
    MAX_FRAME_BYTES,
    Block,
    Buffer,
    End,
    Failure,
    Hello,
    HelloReply,
    Message,
    PlanReply,
    PlanRequest,
    ProbeReply,
    ProbeRequest,
    RoundReply,
    RoundRequest,
    decode,
    encode,
    encode_block,
)
from he_backend.protocol.transport import Handler, Link, Retry, retry

MAX_CALL_BYTES = 8 << 30  # payload of one call
_FRAME_OVERHEAD = 64  # more than the version, keys, index and lengths around a Block's payload
_REQUESTS = (Hello, PlanRequest, ProbeRequest, RoundRequest)
_REPLIES = {Hello: HelloReply, PlanRequest: PlanReply, ProbeRequest: ProbeReply, RoundRequest: RoundReply}
_log = logging.getLogger(__name__)
T = TypeVar("T")
Blocks = Callable[[], Iterable[Buffer]]  # makes the payload, again for each attempt
Answer = Tuple[Message, Iterable[Buffer]]


@dataclass(frozen=True)
class Incoming:
    """One side of a call as it arrives: the message, and its payload in order (pieces of any size, each valid on its own)."""

    head: Any
    blocks: Iterator[memoryview]

    def read_all(self) -> bytes:
        """The rest of the payload in one piece, for small ones."""
        return b"".join(self.blocks)

    def finish(self) -> None:
        """Reads to the end; raises ProtocolError when there is payload that nobody asked for, or when the end is wrong."""
        if any(len(block) for block in self.blocks):
            raise ProtocolError(f"{type(self.head).__name__} came with more payload than it needs")


def send(head: Message, blocks: Iterable[Buffer] = (), *, block_bytes: int = MAX_BLOCK_BYTES) -> Iterator[bytes]:
    """The frames of one side of a call: the message, the payload in Blocks of `block_bytes` (the last may be smaller), End."""
    if not 0 < block_bytes <= MAX_FRAME_BYTES - _FRAME_OVERHEAD:
        raise ProtocolError(f"block_bytes is {block_bytes}, allowed are 1 to {MAX_FRAME_BYTES - _FRAME_OVERHEAD}")
    yield encode(head)
    count = total = sum64 = 0
    for parts in _cut(blocks, block_bytes):
        for part in parts:
            sum64 = add_words(sum64, part, total)
            total += len(part)
        yield encode_block(count, parts)
        count += 1
    yield encode(End(count, total, sum64))


def receive(frames: Iterable[Buffer], *, expect: type[Any] | tuple[type[Any], ...] = (), limit_bytes: int = MAX_CALL_BYTES) -> Incoming:
    """One side of a call, read as it comes: the message now, the payload while `blocks` is iterated.

    Order, numbers, sizes, checksum and `limit_bytes` are checked; raises ProtocolError, or what a Failure stands for. The last blocks may
    have been handed out when a wrong End is noticed: use a result only after `blocks` has ended.
    """
    stream = iter(frames)
    head = _next(stream)
    if isinstance(head, (Block, End)):
        raise ProtocolError(f"a call began with {type(head).__name__}, a request or an answer must come first")
    if expect and not isinstance(head, expect):
        due = " or ".join(one.__name__ for one in (expect if isinstance(expect, tuple) else (expect,)))
        raise ProtocolError(f"{type(head).__name__} came where {due} must come")
    return Incoming(head, _payload(stream, limit_bytes))


def _payload(stream: Iterator[Buffer], limit_bytes: int) -> Iterator[memoryview]:
    count = total = sum64 = 0
    while True:
        message = _next(stream)
        if isinstance(message, End):
            break
        if not isinstance(message, Block):
            raise ProtocolError(f"{type(message).__name__} came where a Block or End must come")
        if message.index != count:
            raise ProtocolError(f"block {message.index} came where block {count} must come: one was lost or repeated")
        view = memoryview(message.payload)
        count, total, sum64 = count + 1, total + len(view), add_words(sum64, view, total)
        if total > limit_bytes:
            raise ProtocolError(f"a payload is longer than the {limit_bytes} bytes that are allowed here: send smaller chunks")
        yield view
    if message != End(count, total, sum64):
        raise ProtocolError(
            f"the payload does not match its End: {count} blocks of {total} bytes came, "
            f"{message.blocks} of {message.payload_bytes} were sent (checksum {'right' if message.sum64 == sum64 else 'wrong'})"
        )
    if next(stream, None) is not None:
        raise ProtocolError("a frame came after End")


def add_words(sum64: int, part: memoryview, offset: int) -> int:
    """The sum modulo 2^64 of a payload's little-endian 64-bit words, `part` at byte `offset` added.

    It notices damage of any one word at memory speed (zlib's crc32 takes as long as the encryption of what it guards); order is guarded by
    the blocks' numbers, and against a peer that forges nothing here protects.
    """
    lead, rest = offset % 8, -(offset + len(part)) % 8
    words = np.frombuffer(b"".join((bytes(lead), part, bytes(rest))) if lead or rest else part, dtype="<u8")
    return (sum64 + int(words.sum(dtype=np.uint64))) & 0xFFFFFFFFFFFFFFFF


def _next(stream: Iterator[Buffer]) -> Message:
    """The next message; a Failure becomes the error it stands for."""
    frame = next(stream, None)
    if frame is None:
        raise ProtocolError("the other side's message was cut off: no End came")
    message = decode(frame)
    if isinstance(message, Failure):
        raise error_of(message)
    return message


def _cut(pieces: Iterable[Buffer], block_bytes: int) -> Iterator[list[memoryview]]:
    """The payload in lists of views of `block_bytes` in all: small pieces share a block, large ones are cut, none is copied."""
    parts: list[memoryview] = []
    room = block_bytes
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while len(view):
            part, view = view[:room], view[room:]
            parts.append(part)
            room -= len(part)
            if not room:
                yield parts
                parts, room = [], block_bytes
    if parts:
        yield parts


def answering(answer: Callable[[Incoming], Answer], *, limit_bytes: int = MAX_CALL_BYTES, block_bytes: int = MAX_BLOCK_BYTES) -> Handler:
    """The handler of a server whose `answer` turns a request into (reply, payload).

    Errors of ours become a Failure with their message, any other a Failure that tells nothing; the log has it. Payload that `answer` left
    unread is refused.
    """

    def handle(frames: Iterator[bytes]) -> Iterator[bytes]:
        try:
            incoming = receive(frames, expect=_REQUESTS, limit_bytes=limit_bytes)
            head, blocks = answer(incoming)
            yield from send(head, _then(blocks, incoming.finish), block_bytes=block_bytes)
        except HeError as problem:
            yield encode(failure_of(problem))
        except Exception as problem:  # noqa: BLE001 - a peer must never see the text of an unforeseen error
            _log.exception("a call failed inside the server")
            yield encode(failure_of(problem))

    return handle


def _then(blocks: Iterable[Buffer], finish: Callable[[], None]) -> Iterator[Buffer]:
    yield from blocks
    finish()


class _Stage(enum.IntEnum):
    NEW, GREETED, PLANNED, READY = range(4)


class ClientSession:
    """The client's side of a task: hello, plan, probe, then rounds, in this order; an earlier step may be taken again.

    Every call is retried after a TransportError as `policy` says. Payload comes from a callable that makes it anew, and `read` turns an
    Incoming into the result, because an attempt that breaks in the middle of an answer starts from the beginning.
    """

    def __init__(self, link: Link, *, policy: Retry = Retry(), limit_bytes: int = MAX_CALL_BYTES) -> None:  # noqa: B008 - frozen
        self._link = link
        self._policy = policy
        self._limit_bytes = limit_bytes
        self._block_bytes = MAX_BLOCK_BYTES
        self._stage = _Stage.NEW
        self._request: PlanRequest | None = None
        self._plan: PlanReply | None = None

    def over(self, link: Link) -> ClientSession:
        """The same task over another link to the same server, as far as it has come."""
        other = copy.copy(self)
        other._link = link
        return other

    def hello(self, hello: Hello) -> HelloReply:
        """Who the server is; its frame limit holds for what is sent from here on."""
        self._stage = _Stage.NEW
        reply: HelloReply = self._call(hello, _nothing, _head_only)
        if reply.max_frame_bytes < 1024:
            raise ProtocolError(f"the server's max_frame_bytes is {reply.max_frame_bytes}, at least 1024 are needed")
        self._block_bytes = min(MAX_BLOCK_BYTES, reply.max_frame_bytes - _FRAME_OVERHEAD)
        self._stage = _Stage.GREETED
        return reply

    def plan(self, request: PlanRequest) -> tuple[PlanReply, bytes]:
        """The plan that the server offers, and the client plan's bytes."""
        self._need(_Stage.GREETED, "plan")
        self._stage = _Stage.GREETED
        reply, plan = self._call(request, _nothing, lambda incoming: (incoming.head, incoming.read_all()))
        self._request, self._plan, self._stage = request, reply, _Stage.PLANNED
        return reply, plan

    def probe(self, request: ProbeRequest, blocks: Blocks, read: Callable[[Incoming], T]) -> T:
        """What `read` makes of the environment test's answer. It raises when the answer is wrong; rounds stay forbidden then."""
        self._need(_Stage.PLANNED, "probe")
        self._stage = _Stage.PLANNED
        result = self._call(request, blocks, read)
        self._stage = _Stage.READY
        return result

    def round(self, round_index: int, chunk_index: int, header: bytes, blocks: Blocks, read: Callable[[Incoming], T]) -> T:
        """What `read` makes of the server's answer to one chunk of one round. Calls may run at the same time in several threads."""
        self._need(_Stage.READY, "round")
        assert self._request is not None and self._plan is not None
        head = RoundRequest(self._plan.model_id, self._plan.plan_digest, self._request, round_index, chunk_index, header)
        return self._call(head, blocks, read)

    def _need(self, stage: _Stage, step: str) -> None:
        if self._stage < stage:
            raise ProtocolError(f"{step} cannot come yet: the order is hello, plan, probe, rounds")

    def _call(self, request: Message, blocks: Blocks, read: Callable[[Incoming], T]) -> T:
        def attempt() -> T:
            frames = send(request, blocks(), block_bytes=self._block_bytes)
            incoming = receive(self._link.exchange(frames), expect=_REPLIES[type(request)], limit_bytes=self._limit_bytes)
            result = read(incoming)
            incoming.finish()
            return result

        return retry(attempt, self._policy)


def _nothing() -> Iterable[Buffer]:
    return ()


def _head_only(incoming: Incoming) -> Any:
    return incoming.head
