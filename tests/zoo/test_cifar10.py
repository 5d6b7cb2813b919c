"""CIFAR-10 from its packed JPEG files, and files that are something else."""

from __future__ import annotations

import io

import numpy as np
import pytest

from he_backend.errors import InputError, NotFoundError
from he_backend.zoo import cifar10

Image = pytest.importorskip("PIL.Image")


def write(path, colours, labels):
    parts = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(buffer, "JPEG", quality=95)
        parts.append(buffer.getvalue())
    offset = np.cumsum([0, *map(len, parts)])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, jpeg=np.frombuffer(b"".join(parts), np.uint8), offset=offset, label=np.array(labels, np.uint8))


def test_images_have_channels_first_and_are_scaled(tmp_path):
    write(tmp_path / "cifar10" / cifar10.TEST, [(255, 0, 0), (0, 0, 255)], [3, 9])
    write(tmp_path / "cifar10" / cifar10.TRAIN, [(0, 255, 0)], [1])

    data = cifar10.cifar10(tmp_path)

    assert data.test_x.shape == (2, 3, 32, 32) and data.test_x.dtype == np.float32 and data.train_x.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(data.test_x[0].mean(axis=(1, 2)), [1, 0, 0], atol=0.02)
    np.testing.assert_allclose(data.test_x[1].mean(axis=(1, 2)), [0, 0, 1], atol=0.02)
    assert data.test_y.tolist() == [3, 9]
    assert len(cifar10.cifar10(tmp_path, train=False).train_x) == 0


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"cifar10_test_jpeg\.npz.*https://"):
        cifar10.cifar10(tmp_path)


@pytest.mark.parametrize(
    "arrays", [{"x": np.zeros(3)}, {"jpeg": np.zeros(9, np.uint8), "offset": np.array([0, 9]), "label": np.array([1])}]
)
def test_another_file_is_refused(tmp_path, arrays):
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)

    with pytest.raises(InputError, match=r"images\.npz"):
        cifar10.read_images(path)
