"""Data sets as arrays, each with a fixed split into training and held-out test rows. Nothing here needs torch."""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from pathlib import Path
from typing import Callable, Mapping

import numpy as np

from he_backend.errors import EngineError, InputError, NotFoundError, ParameterError
from he_backend.zoo.cifar10 import cifar10
from he_backend.zoo.data_files import data_file, data_folder
from he_backend.zoo.dataset import DataSet
from he_backend.zoo.sentences import sst2, trec

__all__ = ["LOADERS", "DataSet", "data_folder", "digits", "load", "mnist", "read_idx"]

logger = logging.getLogger(__name__)

MNIST_SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/ (LeCun, Cortes and Burges)"


def digits(folder: Path | None = None, train: bool = True) -> DataSet:
    """scikit-learn's 1797 digits of 8x8 pixels; 653 of them held out.

    A row is a test row when its index modulo 11 is 1, 4, 7 or 10. The split needs no random numbers, so it is the same under every
    version of numpy, and 11 shares no factor with the period 10 in which the first labels repeat, so all classes are in both parts.
    The writers of test rows also wrote training rows. Both arguments are those of other data sets, and mean nothing here.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images = (np.asarray(x) / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = np.asarray(y).astype(np.int64)
    test = np.isin(np.arange(len(labels)) % 11, (1, 4, 7, 10))
    return DataSet("digits", 10, images[~test], labels[~test], images[test], labels[test])


def mnist(folder: Path | None = None, train: bool = True) -> DataSet:
    """MNIST's 60000 training and 10000 test digits of 28x28 pixels, from the four idx.gz files in FOLDER/mnist.

    Args:
        folder: where the data sets are; by default `data_folder()`.
        train: without it the training rows are left empty.

    Raises:
        NotFoundError: a file is missing; the message names it and where it is published.
        InputError: a file is not what its name says.
    """
    parts = {"train": (np.zeros((0, 1, 28, 28), np.float32), np.zeros(0, np.int64))}
    for part in ("train", "t10k") if train else ("t10k",):
        images = read_idx(_mnist_file(folder, f"{part}-images-idx3-ubyte.gz"), rank=3)
        labels = read_idx(_mnist_file(folder, f"{part}-labels-idx1-ubyte.gz"), rank=1)
        if len(images) != len(labels) or images.shape[1:] != (28, 28):
            raise InputError(f"MNIST {part}: images {images.shape} and labels {labels.shape} do not belong together")
        parts[part] = ((images / np.float32(255)).astype(np.float32)[:, None], labels.astype(np.int64))
    return DataSet("mnist", 10, *parts["train"], *parts["t10k"])


def load(name: str, auto: tuple[str, ...] = ("mnist",), train: bool = True) -> DataSet:
    """The data set of that name.

    Args:
        name: of `LOADERS`, or 'auto': the first of `auto` whose files are there, otherwise digits, with one line in the log that says why.
        train: without it the training rows may be left empty.

    Raises:
        ParameterError: no data set has that name.
        NotFoundError: its files are missing.
    """
    if name != "auto":
        if name not in LOADERS:
            raise ParameterError(f"data set '{name}' is not known: take one of {', '.join([*LOADERS, 'auto'])}")
        return LOADERS[name](train=train)
    for preferred in auto:
        try:
            return LOADERS[preferred](train=train)
        except (NotFoundError, EngineError) as missing:
            logger.warning("%s; using digits instead", missing)
    return digits()


def read_idx(path: Path, rank: int) -> np.ndarray:
    """The array of unsigned bytes in an idx.gz file (format: the page that publishes MNIST).

    Raises:
        InputError: the file is damaged, or holds another type or number of dimensions than `rank`.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as damage:
        raise InputError(f"{path} is not a readable gzip file: fetch it again from {MNIST_SOURCE}") from damage
    header = 4 + 4 * rank
    # Magic number: two zero bytes, 8 for unsigned bytes, the number of dimensions; then each dimension, big-endian.
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) < header:
        raise InputError(f"{path} does not start like an idx file of {rank} dimensions: fetch it again from {MNIST_SOURCE}")
    shape = struct.unpack(f">{rank}I", content[4:header])
    if int(np.prod(shape, dtype=np.uint64)) != len(content) - header:
        raise InputError(f"{path} holds {len(content) - header} bytes, its header promises {shape}: fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _mnist_file(folder: Path | None, name: str) -> Path:
    return data_file(folder, "mnist", name, MNIST_SOURCE)


LOADERS: Mapping[str, Callable[..., DataSet]] = {"digits": digits, "mnist": mnist, "cifar10": cifar10, "trec": trec, "sst2": sst2}
