"""Picking coefficients: the same for packed words and arrays, undone by putting back, refused where it does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.ckks import pick, ring
from he_backend.ckks.bits import pack, unpack
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.errors import ProtocolError

native = pytest.mark.skipif(not ring.available(), reason="the native engine is not compiled")
PRIME = 1_073_692_673


def tensors(columns, count, width, seed=0):
    body = np.random.default_rng(seed).integers(0, PRIME, (columns, count, 1, width), dtype=np.uint64)
    rows = body[:, :, 0].transpose(1, 0, 2).reshape(-1, width)
    words = pack(rows, PRIME.bit_length()).reshape(-1) if ring.available() else np.zeros(0, np.uint64)
    return CipherTensor("clear", 2048, (PRIME,), False, body), PackedTensor("native", 2048, (PRIME,), False, columns, count, width, words)


def body_of(packed):
    rows = unpack(packed.body.reshape(packed.count * packed.columns, -1), PRIME.bit_length(), packed.width)
    return rows.reshape(packed.count, packed.columns, 1, packed.width).transpose(1, 0, 2, 3)


@native
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 300), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_words_and_arrays_agree_and_come_back(columns, count, width, by_column, by_element, seed):
    random = np.random.default_rng(seed)
    kept = int(random.integers(1, width + 1))
    index = np.stack([random.permutation(width)[:kept] for _ in range((columns if by_column else 1) * (count if by_element else 1))])
    index = np.where(random.random(index.shape) < 0.1, -1, index).astype(np.int32)
    index = index.reshape(columns if by_column else 1, count if by_element else 1, kept)
    plain, packed = tensors(columns, count, width, seed)

    few, few_packed = pick.pick(plain, index), pick.pick(packed, index, threads=2)
    back, back_packed = pick.put_back(few, index, width), pick.put_back(few_packed, index, width, threads=2)

    assert np.array_equal(body_of(few_packed), few.body) and few.width == few_packed.width == kept
    assert np.array_equal(body_of(back_packed), back.body)
    for column in range(columns):
        for element in range(count):
            at = index[column % len(index), element % index.shape[1]]
            due = np.zeros(width, np.uint64)
            due[at[at >= 0]] = plain.body[column, element, 0, at[at >= 0]]
            assert np.array_equal(back.body[column, element, 0], due)


@native
def test_a_position_outside_is_refused():
    _, packed = tensors(1, 2, 64)
    for wrong in (64, -2):
        with pytest.raises(Exception, match="outside the row"):
            pick.pick(packed, np.array([[[0, wrong]]], np.int32))


def test_an_answer_of_another_width_is_refused():
    plain, _ = tensors(1, 2, 64)
    with pytest.raises(ProtocolError, match="64 coefficients of each polynomial where 3 are read"):
        pick.put_back(plain, np.zeros((1, 1, 3), np.int32), 128)
