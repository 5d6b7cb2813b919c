"""Damaged and crafted variants of right inputs: bytes flipped, cut, repeated, mixed; numbers, texts and structure of JSON changed."""

from __future__ import annotations

import json
import random
import struct

NUMBERS = (
    *(0, 1, -1, 2, 127, 128, 255, 256, 65535, 1 << 20),
    *((1 << 31) - 1, 1 << 31, -(1 << 31), (1 << 53) + 1, (1 << 63) - 1, 1 << 63, 1 << 64),
)
ODD = (
    *(*NUMBERS, 0.5, -0.0, 1e308, 1e-320, 10**40, True, False, None),
    *("", "\0", "x" * 3000, "\u202eé", "../../etc/passwd", [], {}, [[]], [0] * 50),
)
WORDS = (
    *(b"NaN", b"1e999", b"-Infinity", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\\u0000"),
    *(b"\xff\xfe", b"\x00", b"__import__('os')", b"\x93NUMPY"),
)


def mutate(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """A variant of `data`, with pieces of `others` now and then."""
    if data[:1] in (b"{", b"[") and dice.random() < 0.6:
        try:
            return json.dumps(_changed(json.loads(data), dice)).encode()
        except (ValueError, RecursionError):
            pass
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        out = _BYTES[dice.randrange(len(_BYTES))](out, others, dice)
    return bytes(out[: 1 << 22])


def _changed(value, dice):
    """JSON with one or a few of its parts replaced, removed, repeated or exchanged."""
    for _ in range(dice.choice((1, 1, 2, 5))):
        value = _change(value, dice)
    return value


def _change(value, dice):
    inner = isinstance(value, (dict, list)) and len(value) and dice.random() < 0.85
    if not inner:
        return dice.choice(ODD)
    if isinstance(value, dict):
        name = dice.choice(sorted(value))
        what = dice.random()
        if what < 0.1:
            return {key: one for key, one in value.items() if key != name}
        if what < 0.15:
            return {**value, dice.choice(("", "x", "__class__", name + " ")): dice.choice(ODD)}
        if what < 0.2:
            return {**value, name: value[dice.choice(sorted(value))]}
        return {**value, name: _change(value[name], dice)}
    place = dice.randrange(len(value))
    if dice.random() < 0.15:
        return value[:place] + value[place + 1 :]
    if dice.random() < 0.1:
        return value[:place] + [value[place]] * dice.choice((2, 3, 300)) + value[place + 1 :]
    return [*value[:place], _change(value[place], dice), *value[place + 1 :]]


def _flip(data, _, dice):
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def _byte(data, _, dice):
    if data:
        data[dice.randrange(len(data))] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
    return data


def _cut(data, _, dice):
    return data[: dice.randrange(len(data) + 1)]


def _remove(data, _, dice):
    start = dice.randrange(len(data) + 1)
    del data[start : start + dice.choice((1, 2, 4, 8, 64))]
    return data


def _noise(dice, size):
    return dice.getrandbits(8 * size).to_bytes(size, "little")  # Random.randbytes came with Python 3.9


def _insert(data, _, dice):
    place = dice.randrange(len(data) + 1)
    data[place:place] = dice.choice((*WORDS, _noise(dice, dice.choice((1, 4, 33)))))
    return data


def _repeat(data, _, dice):
    start = dice.randrange(len(data) + 1)
    part = data[start : start + dice.choice((1, 8, 100))]
    data[start:start] = part * dice.choice((1, 2, 50))
    return data


def _number(data, _, dice):
    """A number in binary at some place, as lengths, sizes and counts are written."""
    code = dice.choice(("<H", "<I", "<Q", ">I", ">Q"))
    size = struct.calcsize(code)
    if len(data) >= size:
        place = dice.randrange(len(data) - size + 1)
        data[place : place + size] = struct.pack(code, dice.choice(NUMBERS) % (1 << 8 * size))
    return data


def _varint(data, _, dice):
    """A protobuf varint at some place."""
    value, out = dice.choice(NUMBERS) % (1 << 64), bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    place = dice.randrange(len(data) + 1)
    data[place : place + dice.choice((0, 1, len(out) + 1))] = bytes([*out, value])
    return data


def _digits(data, _, dice):
    """A decimal number in text replaced."""
    places = [place for place, byte in enumerate(data[:5000]) if 48 <= byte <= 57]
    if places:
        place = dice.choice(places)
        end = place
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[place:end] = str(dice.choice(NUMBERS)).encode()
    return data


def _splice(data, others, dice):
    other = dice.choice(others)
    start = dice.randrange(len(other) + 1)
    part = other[start : start + dice.choice((4, 40, 400))]
    place = dice.randrange(len(data) + 1)
    data[place : place + dice.choice((0, len(part)))] = part
    return data


_BYTES = (_flip, _flip, _byte, _byte, _cut, _remove, _insert, _repeat, _number, _varint, _digits, _splice)
