"""Several frames in one message of the transport: a call that is small goes, and comes back, in one piece instead of frame by frame.

A bundle is each frame's length (4 bytes, little-endian) and the frame. Streams cost threads and wake-ups for every frame on both sides,
which is most of the time that a round of a few kilobytes takes.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import Iterable, Iterator

from he_backend.errors import ProtocolError

BUNDLE_BYTES = 1 << 20  # beyond which frames go one by one; with the frame that reaches it, less than the largest message
_LENGTH = struct.Struct("<I")


def bundle(frames: Iterable[bytes]) -> bytes:
    """One message of all frames."""
    return b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame))


def bundles(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Messages of at least BUNDLE_BYTES each, but for the last; none for no frames."""
    held: list[bytes] = []
    size = 0
    for frame in frames:
        held.append(frame)
        size += len(frame)
        if size >= BUNDLE_BYTES:
            yield bundle(held)
            held, size = [], 0
    if held:
        yield bundle(held)


def unbundle(message: bytes) -> Iterator[bytes]:
    """The frames of a message; raises ProtocolError when it ends within one."""
    at = 0
    while at < len(message):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(message, at)[0] if start <= len(message) else len(message) + 1
        if at > len(message):
            raise ProtocolError("a message ends in the middle of a frame: it was cut off")
        yield message[start:at]


def small_or_stream(frames: Iterable[bytes]) -> tuple[bytes | None, Iterator[bytes]]:
    """A bundle of all frames if they are small together, else None; and the frames, of which those looked at come again."""
    stream, held, size = iter(frames), [], 0
    for frame in stream:
        held.append(frame)
        size += len(frame)
        if size >= BUNDLE_BYTES:
            return None, chain(held, stream)
    return bundle(held), iter(held)
