"""Bit packing and the refusal of bytes that are not a tensor."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.ckks import secret, serial
from he_backend.ckks.params import load_params
from he_backend.errors import ProtocolError


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(1, 63), rows=st.integers(1, 3), n=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_packing_brings_values_back(bits, rows, n, seed):
    values = np.random.default_rng(seed).integers(0, 1 << bits, (rows, n), dtype=np.uint64)
    words = serial.pack(values, bits)
    assert words.shape[1] * 8 == serial.packed_bytes(n, bits)
    assert np.array_equal(serial.unpack(words, bits, n), values)


def test_packing_is_a_little_endian_bit_stream():
    values = np.array([[1, 2, 3, 4]], dtype=np.uint64)
    assert int(serial.pack(values, 54)[0, 0]) == 1 | (2 << 54) & (2**64 - 1)
    assert sum(int(word) << 64 * i for i, word in enumerate(serial.pack(values, 54)[0])) == 1 | 2 << 54 | 3 << 108 | 4 << 162


@pytest.fixture(scope="module")
def sent():
    tensor = secret.generate("clear", load_params("N11_L1")).encrypt(np.arange(12.0).reshape(3, 4), 2.0**10, 1)
    return serial.header_of(tensor), b"".join(serial.to_pieces(tensor))


def test_truncated_and_excess_bytes_are_refused(sent):
    header, data = sent
    with pytest.raises(ProtocolError, match="too early"):
        serial.from_pieces(header, [data[:-1]])
    with pytest.raises(ProtocolError, match="more bytes"):
        serial.from_pieces(header, [data, b"x"])


def test_pieces_may_be_cut_anywhere(sent):
    header, data = sent
    whole = serial.from_pieces(header, [data])
    cut = serial.from_pieces(header, [data[i : i + 5] for i in range(0, len(data), 5)])
    assert np.array_equal(whole.body, cut.body)


def test_unreduced_residues_are_refused(sent):
    header, data = sent
    with pytest.raises(ProtocolError, match="not reduced"):
        serial.from_pieces(header, [b"\xff" * len(data)])


@pytest.mark.parametrize(
    "field, value",
    [
        ("engine", "other"),
        ("ring_degree", 1 << 20),
        ("ring_degree", "2048"),
        ("moduli", []),
        ("moduli", [7]),
        ("columns", 0),
        ("count", 1 << 40),
        ("count", True),
        ("width", 4096),
        ("mask", "array"),
        ("ntt", 1),
    ],
)
def test_headers_out_of_range_are_refused(sent, field, value):
    raw = {**dataclasses.asdict(sent[0]), field: value}
    with pytest.raises(ProtocolError):
        serial.read_header(json.dumps(raw).encode())


def test_a_header_that_is_not_json_is_refused():
    with pytest.raises(ProtocolError, match="same version"):
        serial.read_header(b"\x00\xff")


def test_a_tensor_of_another_preset_is_refused(sent):
    params = load_params("N12_L4")
    with pytest.raises(ProtocolError, match="same preset"):
        serial.check_header(sent[0], "clear", params, 1, 3, 1)
