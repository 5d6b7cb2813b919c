"""The benchmark of encryption and decryption runs on every engine and tells what it measured."""

from __future__ import annotations

import pytest

from he_backend.bench.primitives import encrypt_and_decrypt
from he_backend.ckks.engines import available


@pytest.mark.parametrize("engine", list(available()))
def test_both_ways_are_timed(engine):
    row = encrypt_and_decrypt(engine, "N11_L1", 2, 1, repeat=1)
    assert row["encrypt_ns"] > 0 and row["decrypt_ns"] > 0
    assert 0 < row["bytes_up"] <= 7
