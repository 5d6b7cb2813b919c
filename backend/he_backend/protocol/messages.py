"""The messages of the ciphertext channel, to and from bytes.

A frame is one protobuf message, `Frame`: the protocol version, then one of the messages below. Everything in a frame from a peer is checked
here (version, kind, presence, sizes); what payloads and headers mean is for others to check. Payloads travel in `Block`s after a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Union

from google.protobuf.message import DecodeError

from he_backend.errors import ParameterError, ProtocolError
from he_backend.protocol.schema import proto_classes, snake, wire, wires

PROTOCOL_VERSION = 1
MAX_BLOCK_BYTES = 1 << 20  # payload of one Block that we send
MAX_FRAME_BYTES = 4 << 20  # largest frame that we read

_NAME = 200
_TEXT = 1 << 16
_HEADER = 1 << 16
Buffer = Union[bytes, bytearray, memoryview]


@dataclass(frozen=True)
class Hello:
    """Client: which software and which engines and presets it has."""

    software: str = field(metadata=wire(1, "string", _NAME))
    engines: tuple[str, ...] = field(default=(), metadata=wire(2, "repeated string", 32))
    presets: tuple[str, ...] = field(default=(), metadata=wire(3, "repeated string", 256))


@dataclass(frozen=True)
class HelloReply:
    """Server: which software and engines it has and what it accepts (`limits`, such as max_rows or max_call_bytes)."""

    software: str = field(metadata=wire(1, "string", _NAME))
    engines: tuple[str, ...] = field(default=(), metadata=wire(2, "repeated string", 32))
    presets: tuple[str, ...] = field(default=(), metadata=wire(3, "repeated string", 256))
    max_frame_bytes: int = field(default=MAX_FRAME_BYTES, metadata=wire(4, "uint64"))
    limits: Mapping[str, int] = field(default_factory=dict, metadata=wire(5, "map<string, uint64>", 64))


@dataclass(frozen=True)
class PlanRequest:
    """Client: the model (name, id or 'latest') and how it is to be run."""

    model: str = field(metadata=wire(1, "string", _NAME))
    engine: str = field(metadata=wire(2, "string", _NAME))
    preset_json: str = field(metadata=wire(3, "string", _TEXT))
    packing: str = field(metadata=wire(4, "string", _NAME))
    bits: int = field(metadata=wire(5, "uint32"))
    rows: int = field(metadata=wire(6, "uint64"))
    options: Mapping[str, str] = field(default_factory=dict, metadata=wire(7, "map<string, string>", 64))


@dataclass(frozen=True)
class PlanReply:
    """Server: which model and plan it will be. The client plan itself is the payload that follows."""

    plan_digest: str = field(metadata=wire(1, "string", _NAME))
    model_id: str = field(metadata=wire(2, "string", _NAME))
    model_name: str = field(metadata=wire(3, "string", _NAME))


@dataclass(frozen=True)
class ProbeRequest:
    """Client: the environment test, one small encrypted computation with a known answer. The ciphertext follows as payload."""

    engine: str = field(metadata=wire(1, "string", _NAME))
    preset_json: str = field(metadata=wire(2, "string", _TEXT))
    header: bytes = field(metadata=wire(3, "bytes", _HEADER))


@dataclass(frozen=True)
class ProbeReply:
    """Server: the answer to the environment test, as payload."""

    header: bytes = field(metadata=wire(1, "bytes", _HEADER))


@dataclass(frozen=True)
class RoundRequest:
    """Client: one chunk of one round, ciphertexts as payload. `plan` lets a server that has not seen the plan make it again."""

    model_id: str = field(metadata=wire(1, "string", _NAME))
    plan_digest: str = field(metadata=wire(2, "string", _NAME))
    plan: PlanRequest = field(metadata=wire(3, "PlanRequest"))
    round_index: int = field(metadata=wire(4, "uint32"))
    chunk_index: int = field(metadata=wire(5, "uint32"))
    header: bytes = field(metadata=wire(6, "bytes", _HEADER))


@dataclass(frozen=True)
class RoundReply:
    """Server: the round's ciphertexts as payload, and the seconds that it computed."""

    header: bytes = field(metadata=wire(1, "bytes", _HEADER))
    seconds_server: float = field(metadata=wire(2, "double"))


@dataclass(frozen=True)
class Block:
    """A piece of payload; blocks of one call are numbered from 0."""

    index: int = field(metadata=wire(1, "uint64"))
    payload: Buffer = field(repr=False, metadata=wire(2, "bytes", MAX_FRAME_BYTES))


@dataclass(frozen=True)
class End:
    """After the last block: how many there were, their bytes, and the sum of all payload (see session.py)."""

    blocks: int = field(metadata=wire(1, "uint64"))
    payload_bytes: int = field(metadata=wire(2, "uint64"))
    sum64: int = field(metadata=wire(3, "uint64"))


@dataclass(frozen=True)
class Failure:
    """Instead of any other frame: what went wrong. `kind` is a name from failures.py."""

    kind: str = field(metadata=wire(1, "string", _NAME))
    message: str = field(metadata=wire(2, "string", _TEXT))


Message = Union[Hello, HelloReply, PlanRequest, PlanReply, ProbeRequest, ProbeReply, RoundRequest, RoundReply, Block, End, Failure]
# Number of each message in the oneof of Frame. A number is never used again for something else.
BODIES: Mapping[type[Any], int] = {
    Hello: 2,
    HelloReply: 3,
    PlanRequest: 4,
    PlanReply: 5,
    ProbeRequest: 6,
    ProbeReply: 7,
    RoundRequest: 8,
    RoundReply: 9,
    Block: 10,
    End: 11,
    Failure: 12,
}
_CLASSES = proto_classes(BODIES)
_BY_FIELD = {snake(message.__name__): message for message in BODIES}
_VERSION_KEY = 1 << 3  # field 1, varint
_BLOCK_KEY = BODIES[Block] << 3 | 2  # a field of the length-delimited kind
_INDEX_KEY, _PAYLOAD_KEY = 1 << 3, 2 << 3 | 2


def encode(message: Message) -> bytes:
    """The frame that carries a message, the same bytes each time; raises ParameterError when a field is longer than the protocol allows."""
    if isinstance(message, Block):
        return encode_block(message.index, (message.payload,))
    frame = _CLASSES["Frame"](version=PROTOCOL_VERSION)
    body = getattr(frame, snake(type(message).__name__))
    body.SetInParent()
    try:
        _check_sizes(message, ParameterError)
        _fill(body, message)
    except ParameterError:
        raise
    except (TypeError, ValueError) as problem:
        raise ParameterError(f"{type(message).__name__} cannot be sent: {problem}") from None
    return bytes(frame.SerializeToString(deterministic=True))  # maps come in any order otherwise


def encode_block(index: int, parts: Iterable[Buffer]) -> bytes:
    """The frame of one Block whose payload is the parts in a row, written by hand: the payload is copied once."""
    parts = tuple(parts)
    size = sum(len(part) for part in parts)
    inner = _varints(_INDEX_KEY, index, _PAYLOAD_KEY, size)
    head = _varints(_VERSION_KEY, PROTOCOL_VERSION, _BLOCK_KEY, len(inner) + size)
    return b"".join((head, inner, *parts))


def decode(data: Buffer) -> Message:
    """The message in a frame from a peer; a Block's payload is a view into `data`. Raises ProtocolError for anything else."""
    view = memoryview(data)
    if len(view) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a frame of {len(view)} bytes came, at most {MAX_FRAME_BYTES} are allowed")
    start = _check_version(view)
    block = _read_block(view, start)
    if block is not None:
        return block
    frame = _CLASSES["Frame"]()
    try:
        frame.ParseFromString(bytes(view))
    except (DecodeError, ValueError, RuntimeError):
        raise ProtocolError("a frame cannot be read: it was cut off or damaged, or did not come from he-nn") from None
    name = frame.WhichOneof("body")
    if name is None:
        raise ProtocolError("a frame of an unknown kind came: both sides must run the same version of he-nn")
    return _read(_BY_FIELD[name], getattr(frame, name))


def _check_version(view: memoryview) -> int:
    """Where the frame goes on after its version, which every frame starts with."""
    version, start = _read_varint(view, 1) if len(view) and view[0] == _VERSION_KEY else (None, 0)
    if version is None:
        raise ProtocolError("a frame without a protocol version came: the other side is not a he-nn ciphertext channel")
    if version != PROTOCOL_VERSION:
        side = "this side" if version > PROTOCOL_VERSION else "the other side"
        raise ProtocolError(f"the other side speaks protocol {version}, this side {PROTOCOL_VERSION}: update he-nn on {side}")
    return start


def _read_block(view: memoryview, at: int) -> Block | None:
    """A Block as encode_block writes it, without copying; None for other messages and for other ways to write one."""
    if at >= len(view) or view[at] != _BLOCK_KEY:
        return None
    size, at = _read_varint(view, at + 1)
    if size is None or size != len(view) - at or at >= len(view) or view[at] != _INDEX_KEY:
        return None
    index, at = _read_varint(view, at + 1)
    if index is None or at >= len(view) or view[at] != _PAYLOAD_KEY:
        return None
    size, at = _read_varint(view, at + 1)
    return Block(index, view[at:]) if size is not None and size == len(view) - at else None


def _read_varint(view: memoryview, at: int) -> tuple[int | None, int]:
    """(value, position after it); (None, at) when there is none that fits 64 bits."""
    value = 0
    for count, byte in enumerate(view[at : at + 10]):
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return (value, at + count + 1) if value < 1 << 64 else (None, at)
    return None, at


def _varints(*values: int) -> bytes:
    out = bytearray()
    for value in values:
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


def _fill(proto: Any, message: Any) -> None:
    for name, one in wires(type(message)).items():
        value = getattr(message, name)
        if one.map_types:
            getattr(proto, name).update(value)
        elif one.repeated:
            getattr(proto, name).extend(value)
        elif one.element in _CLASSES:
            getattr(proto, name).SetInParent()
            _fill(getattr(proto, name), value)
        else:
            setattr(proto, name, bytes(value) if one.element == "bytes" else value)


def _read(message: type[Any], proto: Any) -> Any:
    values: dict[str, Any] = {}
    for name, one in wires(message).items():
        if not one.repeated and not one.map_types and not proto.HasField(name):
            raise ProtocolError(f"{message.__name__} came without its field {name}")
        value = getattr(proto, name)
        if one.map_types:
            values[name] = dict(value)
        elif one.repeated:
            values[name] = tuple(value)
        else:
            values[name] = _read(_BY_FIELD[snake(one.element)], value) if one.element in _CLASSES else value
    result = message(**values)
    _check_sizes(result, ProtocolError)
    return result


def _check_sizes(message: Any, error: type[Exception]) -> None:
    """Raises `error` for a string, bytes, list or map above what its field allows."""
    for name, one in wires(type(message)).items():
        value = getattr(message, name)
        if one.element in _CLASSES:
            _check_sizes(value, error)
        elif one.most:
            many = one.repeated or bool(one.map_types)
            unit = "entries" if many else "bytes" if one.element == "bytes" else "characters"
            longest = max((len(text) for text in _texts(value)), default=0) if many else 0
            if len(value) > one.most:
                raise error(f"{type(message).__name__}.{name} has {len(value)} {unit}, at most {one.most} are allowed")
            if longest > _TEXT:
                raise error(f"{type(message).__name__}.{name} holds a text of {longest} characters, at most {_TEXT}")


def _texts(values: Any) -> list[str]:
    both = (*values.keys(), *values.values()) if isinstance(values, Mapping) else values
    return [value for value in both if isinstance(value, str)]
