"""Picking coefficients: the same for packed words and arrays, decrypted as before, refused where it does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.ckks import pick, ring, sampling, secret
from he_backend.ckks.bits import pack, unpack
from he_backend.ckks.params import check_params
from he_backend.ckks.tensor import CipherTensor, PackedTensor
from he_backend.errors import HeError

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


def an_index(random, columns, count, width):
    """A random index: of some columns and elements or one for all, sorted or not, with -1 here and there."""
    kept = int(random.integers(1, width + 1))
    shape = (columns if random.integers(2) else 1, count if random.integers(2) else 1, kept)
    index = np.stack([random.permutation(width)[:kept] for _ in range(shape[0] * shape[1])])
    return np.where(random.random(index.shape) < 0.1, -1, index).astype(np.int32).reshape(shape)


@native
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_words_and_arrays_agree(columns, count, width, seed):
    plain, packed = tensors(columns, count, width, seed)
    index = an_index(np.random.default_rng(seed), columns, count, width)

    few, few_packed = pick.pick(plain, index), pick.pick(packed, index, threads=2)

    assert np.array_equal(body_of(few_packed), few.body) and few.width == few_packed.width == index.shape[2]
    for column in range(columns):
        for element in range(count):
            at = index[column % len(index), element % index.shape[1]]
            due = np.where(at >= 0, plain.body[column, element, 0, at], 0)
            assert np.array_equal(few.body[column, element, 0], due)


@native
@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 20), st.sampled_from([20, 29, 31, 45]), st.integers(0, 2**32 - 1))
def test_what_is_picked_decrypts_to_the_same_as_before(columns, count, bits, seed):
    random = np.random.default_rng(seed)
    params = check_params({"poly_modulus_degree": 2048, "coeff_modulus": [bits], "security_level": 128}, "t")
    key = secret.generate("native", params, 2)
    values = random.integers(-100, 101, (count, columns * 2048)).astype(np.float32)
    fresh = key.encrypt(values, 1.0, 1)
    masks = ring.shared_ring(2048, params.moduli)
    mask = masks.inverse(sampling.expand_masks(masks, fresh.seed, 1, 0, count), 1)
    words = pack(np.ascontiguousarray(mask[:, 0]), params.moduli[0].bit_length()).reshape(-1)
    answer = PackedTensor("native", 2048, params.moduli, False, columns, count, 2048, fresh.body, words)
    index = an_index(random, columns, count, 2048)

    few = pick.pick(answer, index)
    whole = key.decrypt(answer, 1.0, columns * 2048, False).reshape(count, columns, 2048)
    got = key.decrypt(few, 1.0, columns * few.width, False, index).reshape(count, columns, -1)

    for column in range(columns):
        for element in range(count):
            at = index[column % len(index), element % index.shape[1]]
            assert np.array_equal(got[element, column][at >= 0], whole[element, column][at[at >= 0]])
    by_rows = key.decrypt(few, 1.0, columns * few.width, True, index)
    assert np.array_equal(by_rows.reshape(count, columns, -1), got)


@native
def test_a_position_outside_is_refused():
    _, packed = tensors(1, 2, 64)
    for wrong in (64, -2):
        with pytest.raises(Exception, match="outside the row"):
            pick.pick(packed, np.array([[[0, wrong]]], np.int32))


@native
def test_an_index_that_does_not_fit_is_refused_at_decryption():
    params = check_params({"poly_modulus_degree": 2048, "coeff_modulus": [54], "security_level": 128}, "t")
    key = secret.generate("native", params, 1)
    fresh = key.encrypt(np.zeros((2, 2048), np.float32), 1.0, 1)
    answer = PackedTensor("native", 2048, params.moduli, False, 1, 2, 3, np.zeros(2 * 3, np.uint64), np.zeros(2 * 1728, np.uint64))
    assert fresh.count == answer.count
    for index in ([[[0, 1]]], [[[0, 1, 2048]]], [[[0, 1, -2]]], [[[0, 1, 2]]] * 3):
        with pytest.raises(HeError, match="ciphertext arrays"):
            key.decrypt(answer, 1.0, 3, False, np.array(index, np.int32))
