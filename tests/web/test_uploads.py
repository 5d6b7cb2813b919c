"""Uploaded arrays: parsed without trusting the file, kept under generated names, bounded in bytes and time."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from he_backend.errors import InputError, NotFoundError
from he_backend.web.answers import TooLarge
from he_backend.web.uploads import Uploads, read_npy


def npy(array, version=None):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), version=version)
    return buffer.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<i8", "|u1", "|b1"])
def test_arrays_come_back_as_they_were(version, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)

    for given_array in (array, np.asfortranarray(array)):
        np.testing.assert_array_equal(read_npy(npy(given_array, version)), array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999)}"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 5)}"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': ()}") + bytes(8),
        header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}") + bytes(8),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + pickle.dumps(1),
        header("__import__('os').system('true')"),
        header("(" * 5000),
        npy(np.array(["a"])),
        npy(np.array([1j])),
        npy(np.ones(4))[:-1],
        npy(np.ones(4)) + b"x",
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data):
    with pytest.raises(InputError):
        read_npy(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
@example(0, b"PK\x03\x04")
def test_damaged_files_give_an_array_or_a_clear_error(place, patch):
    data = bytearray(npy(np.ones((3, 4), np.float32)))
    data[place : place + len(patch)] = patch

    with contextlib.suppress(InputError):
        assert isinstance(read_npy(bytes(data)), np.ndarray)


@pytest.mark.parametrize("name", ["", ".npy", "a.txt", "../a.npy", "a/b.npy", "a\\b.npy", "a\0.npy", "a.npy\n", "x" * 90 + ".npy", "é.npy"])
def test_names_that_could_point_elsewhere_are_refused(name):
    with pytest.raises(InputError, match="file_name"):
        Uploads(1000).add(name, npy(np.ones(3)))


def test_the_oldest_make_room_and_time_ends_all():
    now = [0.0]
    uploads = Uploads(100, keep_s=60, clock=lambda: now[0])
    first, second, third = (uploads.add("a.npy", npy(np.ones(5))) for _ in range(3))

    with pytest.raises(NotFoundError):
        uploads.get(first)
    assert len({first, second, third}) == 3 and uploads.get(second).shape == (5,)

    now[0] = 61.0
    with pytest.raises(NotFoundError, match="upload it first"):
        uploads.get(third)


def test_one_that_is_too_large_is_refused_and_a_removed_one_is_gone():
    uploads = Uploads(100)
    with pytest.raises(TooLarge):
        uploads.add("a.npy", npy(np.ones(13)))
    name = uploads.add("a.npy", npy(np.ones(3)))

    uploads.remove(name)

    with pytest.raises(NotFoundError):
        uploads.remove(name)
