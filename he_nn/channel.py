"""What guest and host say to each other over a channel of byte objects, whatever carries them.

The guest calls, the host answers. A call is a named operation with JSON and bytes, answered by the same; or an exchange of the ciphertext
channel, whose frames are batched into few large objects, because a platform takes its time for each object (FATE 1.x: 0.1 s).
"""

from __future__ import annotations

import contextlib
import json
import logging
import struct
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Mapping, Protocol

from he_backend.errors import HeError, InputError, ProtocolError
from he_backend.protocol.failures import error_of, failure_of
from he_backend.protocol.messages import Failure

BATCH_BYTES = 8 << 20
MOST_BYTES = 1 << 30  # of one object
MOST_HEAD_BYTES = 1 << 20

# The first byte of an object says what it is.
CALL, REPLY, FAILURE, FRAMES, LAST_FRAMES, BYE = b"C", b"R", b"E", b"F", b"L", b"B"

_log = logging.getLogger(__name__)


class Channel(Protocol):
    """Carries objects of bytes, in order, between the two parties of a task."""

    def send(self, data: bytes) -> None:
        """Hands an object over; may return before it has arrived."""
        ...

    def receive(self) -> bytes:
        """The next object; waits for it."""
        ...

    def notify(self, data: bytes) -> None:
        """Hands over the only object of this task, which nobody may ever read; nothing where the job has no other party."""
        ...


@dataclass(frozen=True)
class Message:
    """A named operation or its answer: values that JSON can hold, and bytes."""

    values: Mapping[str, Any]
    data: bytes = b""


Operation = Callable[[Message], Message]
FrameHandler = Callable[[Iterator[bytes]], Iterator[bytes]]


class OwnError(InputError):
    """What is wrong with something that stays with a party: names of its columns, files and folders. The other hears `told` instead."""

    told = ""


class OwnRowsError(OwnError):
    """The guest's rows cannot be used."""

    told = "the guest's rows cannot be used; the guest's own log says why"


class OwnParametersError(OwnError):
    """The guest's file of encryption parameters cannot be used."""

    told = "the guest's encryption parameters cannot be used; the guest's own log says why"


class Caller:
    """The guest's end of a channel. Leaving the `with` block tells the host that the task is over, and whether it went wrong."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._unread = False  # the host's answer to an exchange is still under way

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with contextlib.suppress(Exception) if error is not None else contextlib.nullcontext():
            self._channel.send(BYE + _pack({} if error is None else _told(error)))

    def call(self, operation: str, data: bytes = b"", **values: Any) -> Message:
        """The host's answer; raises what the host refused with."""
        self._drain()
        self._channel.send(CALL + _pack({"operation": operation, **values}, data))
        kind, body = _open(self._channel.receive())
        if kind != REPLY:
            raise ProtocolError("the host answered a call with something else: both sides must run the same version of he-nn")
        return _unpack(body)

    def exchange(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The link of the ciphertext channel: the host's answer to the frames of one call."""
        self._drain()
        try:
            for kind, batch in _batches(frames):
                self._channel.send(kind + batch)
        except BaseException:
            self._channel.send(LAST_FRAMES)  # cuts the call off; the host answers all the same
            self._unread = True
            raise
        self._unread = True
        while self._unread:
            yield from _frames(self._receive_batch())

    def close(self) -> None:
        """Part of being a link; the channel ends with the `with` block."""

    def _receive_batch(self) -> bytes:
        kind, body = _open(self._channel.receive())
        self._unread = kind == FRAMES
        if kind not in (FRAMES, LAST_FRAMES):
            raise ProtocolError("the host answered an exchange with something else: both sides must run the same version of he-nn")
        return body

    def _drain(self) -> None:
        """Takes what is left of an earlier answer off the channel."""
        while self._unread:
            self._receive_batch()


class OwnModelsError(OwnError):
    """The host's models cannot be opened."""

    told = "the host's models cannot be opened; the host's own log says why"


def stay_away(channel: Channel, is_guest: bool, reason: HeError) -> None:
    """Tells a party that waits for this one that it will not come: its first `receive` raises `reason`. Another never reads it."""
    channel.notify((BYE if is_guest else FAILURE) + _pack(_told(reason)))


def answer(channel: Channel, operations: Mapping[str, Operation], frames: FrameHandler | None = None) -> None:
    """The host's end: answers until the guest says that the task is over.

    An error that an operation raises on purpose goes to the guest, and is raised here too when the guest gives up because of it; of any
    other error the guest learns only that there was one. Raises what the guest ended with.
    """
    raised: BaseException | None = None
    while True:
        data = channel.receive()
        kind, body = data[:1], data[1:]
        if kind == BYE:
            values = _unpack(body).values
            if raised is not None and values:
                raise raised
            if values:
                raise error_of(Failure(str(values.get("kind")), str(values.get("message"))))
            return
        if kind == CALL:
            raised = _answer_call(channel, operations, body)
        elif kind in (FRAMES, LAST_FRAMES):
            _answer_frames(channel, frames, kind, body)
        else:
            raise ProtocolError("the guest sent an object of an unknown kind: both sides must run the same version of he-nn")


def _answer_call(channel: Channel, operations: Mapping[str, Operation], body: bytes) -> BaseException | None:
    try:
        request = _unpack(body)
        name = str(request.values.get("operation"))
        if name not in operations:
            raise ProtocolError(f"operation {name[:40]!r} is not offered in this component; offered: {', '.join(operations)}")
        reply = operations[name](request)
    except Exception as error:  # noqa: BLE001 - the guest must hear of every error, or it waits for ever
        if not isinstance(error, HeError):
            _log.exception("an operation failed")
        channel.send(FAILURE + _pack(_told(error)))
        return error
    channel.send(REPLY + _pack(reply.values, reply.data))
    return None


def _answer_frames(channel: Channel, handler: FrameHandler | None, kind: bytes, body: bytes) -> None:
    """Answers one exchange. The handler reads as the batches come; what it leaves unread is taken off the channel all the same."""
    if handler is None:
        raise ProtocolError("the guest sent ciphertexts in a component that computes none")
    ended = False

    def incoming() -> Iterator[bytes]:
        nonlocal ended
        this, part = kind, body
        while True:
            ended = this == LAST_FRAMES
            yield from _frames(part)
            if ended:
                return
            this, part = _open(channel.receive())
            if this not in (FRAMES, LAST_FRAMES):
                raise ProtocolError("the guest broke an exchange off")

    ended = kind == LAST_FRAMES
    for answer_kind, batch in _batches(handler(incoming())):
        while answer_kind == LAST_FRAMES and not ended:
            ended = _open(channel.receive())[0] == LAST_FRAMES
        channel.send(answer_kind + batch)


def _batches(frames: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Frames as objects of about BATCH_BYTES: (FRAMES, ...) and at last (LAST_FRAMES, ...)."""
    parts: list[bytes] = []
    size = 0
    for frame in frames:
        if parts and size + len(frame) > BATCH_BYTES:
            yield FRAMES, b"".join(parts)
            parts, size = [], 0
        parts += [struct.pack("<I", len(frame)), frame]
        size += 4 + len(frame)
    yield LAST_FRAMES, b"".join(parts)


def _frames(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        if at + 4 > len(body):
            raise ProtocolError("a batch of frames was cut off")
        (size,) = struct.unpack_from("<I", body, at)
        at += 4 + size
        if at > len(body):
            raise ProtocolError("a batch of frames was cut off")
        yield body[at - size : at]


def _open(data: bytes) -> tuple[bytes, bytes]:
    """Kind and body of an object; raises what a failure stands for."""
    if not isinstance(data, bytes) or not 0 < len(data) <= MOST_BYTES:
        raise ProtocolError("the other party sent an object that is empty, too large or not bytes")
    kind, body = data[:1], data[1:]
    if kind == FAILURE:
        values = _unpack(body).values
        raise error_of(Failure(str(values.get("kind")), str(values.get("message"))))
    return kind, body


def _told(error: BaseException) -> dict[str, str]:
    """What the other party hears of an error."""
    failure = failure_of(error)
    return {"kind": failure.kind, "message": error.told if isinstance(error, OwnError) else failure.message}


def _pack(values: Mapping[str, Any], data: bytes = b"") -> bytes:
    head = json.dumps(values, allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(head)), head, data])


def _unpack(body: bytes) -> Message:
    size = struct.unpack_from("<I", body)[0] if len(body) >= 4 else -1
    if not 0 <= size <= min(MOST_HEAD_BYTES, len(body) - 4):
        raise ProtocolError("a message of the other party was cut off")
    try:
        values = json.loads(body[4 : 4 + size])
    except (ValueError, RecursionError):
        raise ProtocolError("a message of the other party is not JSON") from None
    if not isinstance(values, dict):
        raise ProtocolError("a message of the other party is not a JSON object")
    return Message(values, body[4 + size :])
