"""Messages survive the way to bytes and back, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import he_backend.protocol
from he_backend.errors import ParameterError, ProtocolError
from he_backend.protocol import messages as m
from he_backend.protocol.schema import proto_classes, wires

PLAN = m.PlanRequest("latest", "clear", '{"poly_modulus_degree": 2048}', "batch", 10, 512, {"b": "2", "a": "é"})
EXAMPLES = [
    m.Hello("he-nn 0.1.0", ("native", "clear"), ("N11_L1",)),
    m.HelloReply("he-nn 0.1.0", ("seal",), (), 4096, {"max_rows": 1 << 40}),
    PLAN,
    m.PlanReply("d1", "6a2f-11", "6a2f11MLP"),
    m.ProbeRequest("seal", "{}", b"\x00header"),
    m.ProbeReply(b""),
    m.RoundRequest("6a2f-11", "d1", PLAN, 0, 3, b"h"),
    m.RoundReply(b"h", 0.125),
    m.Block(0, b""),
    m.Block(300, b"payload" * 100),
    m.End(2, 700, 0xFFFFFFFF),
    m.Failure("input", "row 3: shape"),
]


def name(message: object) -> str:
    return type(message).__name__


def test_a_message_is_the_same_bytes_each_time_in_whatever_order_its_options_were_given():
    options = {f"option_{index}": str(index) for index in range(12)}
    request = m.PlanRequest("latest", "clear", "{}", "batch", 10, 512, options)
    turned = m.PlanRequest("latest", "clear", "{}", "batch", 10, 512, dict(reversed(options.items())))

    assert {m.encode(one) for _ in range(20) for one in (request, turned)} == {m.encode(request)}


@pytest.mark.parametrize("message", EXAMPLES, ids=name)
def test_round_trip(message):
    assert m.decode(m.encode(message)) == message
    assert m.decode(bytearray(m.encode(message))) == message


@given(index=st.integers(0, 2**64 - 1), parts=st.lists(st.binary(max_size=300), max_size=4))
def test_block_by_hand_is_what_protobuf_writes(index, parts):
    frame = m._CLASSES["Frame"](version=m.PROTOCOL_VERSION)
    frame.block.index, frame.block.payload = index, b"".join(parts)

    assert m.encode_block(index, parts) == frame.SerializeToString()
    assert m.decode(frame.SerializeToString()) == m.Block(index, b"".join(parts))


def test_block_payload_is_a_view_into_the_frame():
    frame = m.encode(m.Block(1, b"abc"))

    payload = m.decode(frame).payload

    assert isinstance(payload, memoryview) and payload.obj is frame


def test_block_in_another_field_order_is_read_too():
    payload_first = b"\x12\x03abc" + b"\x08\x05"
    frame = b"\x08\x01" + b"\x52" + bytes([len(payload_first)]) + payload_first

    assert m.decode(frame) == m.Block(5, b"abc")


@pytest.mark.parametrize("version, side", [(0, "the other side"), (2, "this side"), (1 << 40, "this side")])
def test_other_version_says_whom_to_update(version, side):
    frame = m._varints(m._VERSION_KEY, version) + b"\xffwhatever that version has"

    with pytest.raises(ProtocolError, match=rf"speaks protocol {version}, this side 1: update he-nn on {side}"):
        m.decode(frame)


@pytest.mark.parametrize("message", [x for x in EXAMPLES if not isinstance(x, m.ProbeReply)], ids=name)
def test_every_truncation_is_refused(message):
    frame = m.encode(message)
    for length in range(min(len(frame), 200)):
        with pytest.raises(ProtocolError):
            m.decode(frame[:length])


@given(st.binary(max_size=200))
def test_random_bytes_give_a_message_or_a_protocol_error(data):
    for frame in (data, b"\x08\x01" + data, b"\x08\x01\x52" + data):
        with contextlib.suppress(ProtocolError):
            assert type(m.decode(frame)) in m.BODIES


@pytest.mark.parametrize(
    "frame, what",
    [
        (b"", "without a protocol version"),
        (b"GET / HTTP/1.1", "without a protocol version"),
        (b"\x08" + b"\xff" * 11, "without a protocol version"),
        (b"\x08\x01", "unknown kind"),
        (b"\x08\x01" + b"\xfa\x01\x00", "unknown kind"),  # field 31, as a later he-nn might add
        (b"\x08\x01" + b"\x12\x02\x0a\xff", "cannot be read"),
        (b"\x08\x01" + b"\x12\x03\x0a\x01\xff", "cannot be read|field"),  # not UTF-8
        (b"\x08\x01" + b"\x12\x00", "Hello came without its field software"),
        (b"\x08\x01" + b"\x52\x02\x08\x07", "Block came without its field payload"),
        (b"\x08\x01" + b"\x5a\x02\x08\x07", "End came without its field payload_bytes"),
        (b"\x08\x01" + b"\x42\x06\x0a\x01i\x12\x01d", "RoundRequest came without its field plan"),
    ],
)
def test_refused_frames(frame, what):
    with pytest.raises(ProtocolError, match=what):
        m.decode(frame)


def test_oversized_frame_is_refused():
    with pytest.raises(ProtocolError, match="at most 4194304"):
        m.decode(m.encode_block(0, [bytes(m.MAX_FRAME_BYTES)]))


@pytest.mark.parametrize(
    "message, what",
    [
        (m.Hello("x" * 201), "Hello.software has 201 characters, at most 200"),
        (m.Hello("x", ("e",) * 33), "Hello.engines has 33 entries, at most 32"),
        (m.Hello("x", ("e" * 70_000,)), "Hello.engines holds a text of 70000 characters"),
        (m.HelloReply("x", limits={str(i): i for i in range(65)}), "HelloReply.limits has 65 entries"),
        (m.ProbeReply(bytes(70_000)), "ProbeReply.header has 70000 bytes"),
        (
            m.RoundRequest("i", "d", m.PlanRequest("m" * 201, "", "", "", 0, 0), 0, 0, b""),
            "PlanRequest.model has 201 characters",
        ),
        (m.End(-1, 0, 0), "End cannot be sent"),
        (m.End(0, 0, 1 << 64), "End cannot be sent"),
        (m.PlanRequest(7, "", "", "", 0, 0), "PlanRequest cannot be sent"),
        (m.PlanRequest("m", "", "", "", 0.5, 0), "PlanRequest cannot be sent"),
    ],
    ids=lambda value: name(value) if not isinstance(value, str) else "",
)
def test_own_messages_above_the_limits_are_not_sent(message, what):
    with pytest.raises(ParameterError, match=what):
        m.encode(message)


def test_fields_of_a_peer_above_the_limits_are_refused():
    frame = m._CLASSES["Frame"](version=m.PROTOCOL_VERSION)
    frame.hello.software = "x" * 201

    with pytest.raises(ProtocolError, match=r"Hello.software has 201 characters, at most 200 are allowed"):
        m.decode(frame.SerializeToString())


def test_block_repr_does_not_show_payload():
    assert "secret" not in repr(m.Block(0, b"secret"))


def test_proto_file_agrees_with_the_table():
    text = (Path(he_backend.protocol.__file__).parent / "he_nn.proto").read_text(encoding="utf-8")

    written = parse_proto(re.sub(r"//[^\n]*", "", text))

    assert written == {**{name_of(cls): table(cls) for cls in m.BODIES}, "Frame": frame_table()}


def parse_proto(text: str) -> dict[str, dict[str, tuple[int, str]]]:
    """Message -> field -> (number, label and type) of a .proto file in the subset that ours uses."""
    messages = {}
    for title, body in re.findall(r"message (\w+) \{(.*?)\n\}", text, re.S):
        fields = re.findall(r"((?:optional |repeated )?(?:map<\w+, \w+>|\w+)) (\w+) = (\d+);", body)
        messages[title] = {field: (int(number), kind) for kind, field, number in fields}
    return messages


def table(cls: type) -> dict[str, tuple[int, str]]:
    written = {}
    for field, one in wires(cls).items():
        plain = one.repeated or one.map_types or one.type[0].isupper()
        written[field] = (one.number, one.type if plain else f"optional {one.type}")
    return written


def frame_table() -> dict[str, tuple[int, str]]:
    descriptor = proto_classes(m.BODIES)["Frame"].DESCRIPTOR
    kinds = {field.name: (field.number, field.message_type.name) for field in descriptor.fields if field.message_type}
    return {"version": (1, "uint32"), **kinds}


def name_of(cls: type) -> str:
    return cls.__name__


def test_every_singular_field_tells_its_presence():
    for cls, proto in ((cls, m._CLASSES[cls.__name__]()) for cls in m.BODIES):
        for field, one in wires(cls).items():
            if not one.repeated and not one.map_types:
                assert not proto.HasField(field)  # raises ValueError where presence is not told
