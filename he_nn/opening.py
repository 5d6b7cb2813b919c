"""The first calls of the ciphertext channel together with the guest's own first call, because every trip over a platform costs time.

The guest knows what it will say in `hello`, in asking for a plan and, as a component's parameters are named, in the environment test before
it has heard of the model. It sends these along with `describe`, and the host answers all at once. A network of n segments then takes n + 1
trips: this one, and n rounds. Rows are encrypted only when the test's answer has been found right.
"""

from __future__ import annotations

import struct
from typing import Any, Iterable, Iterator, Sequence

from he_backend.errors import ProtocolError

from .channel import Caller, FrameHandler, Message


class OpenedLink:
    """A link of the ciphertext channel whose first calls the host has answered already; whatever else is asked goes over the channel."""

    def __init__(self, host: Caller) -> None:
        self._host = host
        self._answered: list[tuple[Sequence[bytes], list[bytes]]] = []

    def describe(self, opening: Sequence[Sequence[bytes]], **values: Any) -> Message:
        """The host's answer to `describe`; those to the `opening` calls are kept until they are asked for."""
        reply = self._host.call("describe", join_calls(opening), **values)
        answers = split_calls(reply.data)
        if len(answers) != len(opening):
            raise ProtocolError("the host left calls unanswered: both sides must run the same version of he-nn")
        self._answered = list(zip(opening, answers))
        return Message(reply.values)

    def exchange(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The answer to the frames of one call."""
        if not self._answered:
            return self._host.exchange(frames)
        asked = list(frames)  # a greeting, a question and a handful of ciphertexts, which are small
        due, answer = self._answered.pop(0)
        if asked == list(due):
            return iter(answer)
        self._answered = []
        return self._host.exchange(asked)

    def close(self) -> None:
        """Part of being a link; the channel ends with the caller's `with` block."""


def answer_calls(data: bytes, handler: FrameHandler) -> bytes:
    """The answers to the calls in `data`, in the same form."""
    return join_calls([list(handler(iter(frames))) for frames in split_calls(data)])


def join_calls(calls: Sequence[Sequence[bytes]]) -> bytes:
    """The frames of several calls in one piece: of each call its number of frames, of each frame its length, little-endian."""
    parts: list[bytes] = []
    for call in calls:
        parts.append(struct.pack("<I", len(call)))
        for frame in call:
            parts += [struct.pack("<I", len(frame)), frame]
    return b"".join(parts)


def split_calls(data: bytes) -> list[list[bytes]]:
    """The frames of each call; raises ProtocolError when they were cut off."""
    calls, at = [], 0

    def number() -> int:
        nonlocal at
        if at + 4 > len(data):
            raise ProtocolError("the calls that open an inference were cut off")
        (value,) = struct.unpack_from("<I", data, at)
        at += 4
        return int(value)

    while at < len(data):
        call = []
        for _ in range(number()):
            size = number()
            if at + size > len(data):
                raise ProtocolError("the calls that open an inference were cut off")
            call.append(data[at : at + size])
            at += size
        calls.append(call)
    return calls
