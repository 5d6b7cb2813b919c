"""Data sets: shapes, ranges, the fixed split, and refusals that name the file."""

from __future__ import annotations

import gzip
import logging
import struct

import numpy as np
import pytest

from he_backend.errors import InputError, NotFoundError, ParameterError
from he_backend.zoo import datasets


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def small_mnist(tmp_path):
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
    for part, rows in (("train", 3), ("t10k", 2)):
        write_idx(tmp_path / "mnist" / f"{part}-images-idx3-ubyte.gz", images[:rows])
        write_idx(tmp_path / "mnist" / f"{part}-labels-idx1-ubyte.gz", np.array([7, 2, 1])[:rows])
    return tmp_path


def test_digits_are_scaled_and_every_class_is_in_both_parts():
    data = datasets.digits()

    assert data.train_x.shape == (1144, 1, 8, 8)
    assert data.test_x.shape == (653, 1, 8, 8)
    assert data.test_x.dtype == np.float32 and data.test_y.dtype == np.int64
    assert data.test_x.min() == 0 and data.test_x.max() == 1
    for labels in (data.train_y, data.test_y):
        assert np.bincount(labels, minlength=10).min() > 40


def test_digits_split_shares_no_row():
    data = datasets.digits()

    train = {row.tobytes() for row in data.train_x}
    test = {row.tobytes() for row in data.test_x}

    assert len(test) == 653
    assert not train & test


def test_mnist_is_read_from_the_folder(small_mnist):
    data = datasets.mnist(small_mnist)

    assert data.train_x.shape == (3, 1, 28, 28) and data.test_x.shape == (2, 1, 28, 28)
    assert data.row_shape == (1, 28, 28)
    assert data.train_y.tolist() == [7, 2, 1]
    assert data.train_x[0, 0, 1, 0] == np.float32(28 / 255)


def test_he_nn_data_names_the_folder(small_mnist, monkeypatch):
    monkeypatch.setenv("HE_NN_DATA", str(small_mnist))

    assert datasets.load("mnist").test_y.tolist() == [7, 2]
    assert datasets.load("auto").name == "mnist"


def test_missing_mnist_names_file_and_publisher(tmp_path):
    with pytest.raises(NotFoundError, match=r"train-images-idx3-ubyte\.gz.*https://.*HE_NN_DATA"):
        datasets.mnist(tmp_path)


def test_auto_falls_back_to_digits_with_one_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HE_NN_DATA", str(tmp_path))

    with caplog.at_level(logging.WARNING):
        data = datasets.load("auto")

    assert data.name == "digits"
    (line,) = caplog.messages
    assert "train-images-idx3-ubyte.gz" in line and "digits" in line and "\n" not in line


def test_unknown_data_set_lists_what_there_is():
    with pytest.raises(ParameterError, match="'cifar'.*digits, mnist, cifar10, trec, sst2, auto"):
        datasets.load("cifar")


def damaged(kind, content):
    return {
        "not gzip": b"plainly not compressed",
        "cut short": gzip.compress(content)[:-20],
        "deflate broken": gzip.compress(content)[:30] + b"\xff" * 40,
        "other type": gzip.compress(bytes((0, 0, 13, 3)) + content[4:]),
        "other rank": gzip.compress(bytes((0, 0, 8, 1)) + content[4:]),
        "header only": gzip.compress(content[:9]),
        "bytes missing": gzip.compress(content[:-1]),
        "bytes over": gzip.compress(content + b"\0"),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["not gzip", "cut short", "deflate broken", "other type", "other rank", "header only", "bytes missing", "bytes over"]
)
def test_damaged_idx_is_refused(tmp_path, kind):
    rng = np.random.default_rng(1)
    content = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 4, 4) + rng.bytes(32)
    path = tmp_path / "images.gz"
    path.write_bytes(damaged(kind, content))

    with pytest.raises(InputError, match=r"images\.gz"):
        datasets.read_idx(path, rank=3)


def test_labels_of_another_length_are_refused(small_mnist):
    write_idx(small_mnist / "mnist" / "t10k-labels-idx1-ubyte.gz", np.zeros(5))

    with pytest.raises(InputError, match="t10k"):
        datasets.mnist(small_mnist)
