"""Room for weights: in memory while there is room, in files beyond, the same products either way, an error when the disk is full."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

import he_backend as he
from he_backend.bench.networks import lenet
from he_backend.ckks import ring
from he_backend.ckks.weights import WeightRoom
from he_backend.errors import CapacityError
from tests.parties import client_of, service_of


def test_what_does_not_fit_lies_in_a_file_and_room_comes_back(tmp_path):
    room = WeightRoom(800, tmp_path)

    first, second = room.take(60), room.take(60)
    assert not isinstance(first, np.memmap) and isinstance(second, np.memmap)
    second[:] = np.arange(60, dtype=np.uint64)
    assert second.sum() == 59 * 30 and len(second) == 60
    assert os.listdir(tmp_path) == []  # a file without a name: nothing is left, whatever happens
    del first
    gc.collect()
    assert not isinstance(room.take(100), np.memmap)


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CapacityError, match="No space left on device.*allow more memory for weights"):
        WeightRoom(0, tmp_path).take(1000)


@pytest.mark.skipif(not ring.available(), reason="the native engine is not compiled")
def test_weights_in_files_give_the_same_answers():
    program = he.convert(lenet.lenet())
    x = np.random.default_rng(0).uniform(-1, 1, (3, *program.inputs[0].shape)).astype(np.float32)
    found = []
    for weight_bytes in (1 << 30, 0):
        service = service_of(program, weight_bytes=weight_bytes)
        client, _ = client_of(service, engine="native", preset="N11_L1", packing="product")
        result = client.infer("latest", x)
        assert result.report.packing == ("product",)
        found.append(result.output)
    assert np.abs(found[0] - found[1]).max() < 2.0**-11 * np.abs(found[0]).max()
