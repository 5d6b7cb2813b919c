"""MobileNetV2 1.0/224 (Sandler et al., CVPR 2018) from pretrained weights, batch norms folded, and the images it is measured on.

Weights and images are data, not part of the project: `$HE_NN_DATA/mobilenet` and `$HE_NN_DATA/imagenet_samples`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np
import onnx

from he_backend.bench.networks.layers import Layers
from he_backend.errors import EngineError, NotFoundError
from he_backend.zoo.datasets import data_folder

INPUT_SHAPE = (3, 224, 224)
_SHORT_SIDE, _CROP, _CLASSES = 256, 224, 1000
_WEIGHTS, _LOGITS = "mobilenet_v2_1.0_224_bnfolded_fp32.npz", "mobilenet_v2_1.0_224_ref_logits_200.npz"
_MODEL_SOURCE = "github.com/google-coral/test_data"
_IMAGE_SOURCE = "github.com/EliSchwartz/imagenet-sample-images"
# (expansion, output channels, repeats, stride of the first): table 2 of the paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass(frozen=True)
class Samples:
    """Labelled images as the network takes them."""

    x: np.ndarray = field(repr=False)  # float32 [rows, 3, 224, 224]
    y: np.ndarray = field(repr=False)  # int64 [rows]


def mobilenet(weights: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """The network; by default with the weights of $HE_NN_DATA/mobilenet (torchvision's names). Raises NotFoundError without them."""
    if weights is None:
        with np.load(_file("mobilenet", _WEIGHTS, _MODEL_SOURCE)) as arrays:
            weights = {name: arrays[name] for name in arrays.files}
    net = _Network(weights)
    x, size = net.conv("x", "features.0.0", 224, 2)
    index, channels = 1, 32
    for expansion, width, repeats, first in _STAGES:
        for repeat in range(repeats):
            prefix, stride, before, part = f"features.{index}.conv", first if not repeat else 1, x, 0
            inner = x
            if expansion > 1:
                inner, _ = net.conv(inner, f"{prefix}.0.0", size)
                part = 1
            inner, size = net.conv(inner, f"{prefix}.{part}.0", size, stride, channels * expansion)
            x, _ = net.conv(inner, f"{prefix}.{part + 1}", size, linear=True)
            if stride == 1 and channels == width:
                x = net.layers.node("Add", before, x)
            channels, index = width, index + 1
    x, _ = net.conv(x, "features.18.0", size)
    pooled = net.layers.node("Flatten", net.layers.node("GlobalAveragePool", x), axis=1)
    scores = net.layers.dense(pooled, weights["classifier.1.weight"].T, weights["classifier.1.bias"])
    return net.layers.model([("x", INPUT_SHAPE)], scores, (_CLASSES,))


class _Network:
    """Convolutions by the names of their weights, with TensorFlow's SAME padding and ReLU6."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.layers, self._weights = Layers("mobilenet_v2"), weights
        self._bounds = tuple(self.layers.constant(np.float32(bound)) for bound in (0.0, 6.0))

    def conv(self, x: str, name: str, size: int, stride: int = 1, group: int = 1, linear: bool = False) -> tuple[str, int]:
        """The layer's result and its size; ReLU6 unless linear."""
        weight = self._weights[f"{name}.weight"]
        kernel, out = weight.shape[2], -(-size // stride)
        total = max(0, (out - 1) * stride + kernel - size)
        pads = (total // 2, total // 2, total - total // 2, total - total // 2)  # SAME: the odd one at the end
        result = self.layers.conv(x, weight, self._weights[f"{name}.bias"], stride, pads, group)
        return (result if linear else self.layers.node("Clip", result, *self._bounds)), out


def reference_logits() -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [200, 1000] of the sample images in plain float32, and their labels int64 [200]. Raises NotFoundError."""
    with np.load(_file("mobilenet", _LOGITS, _MODEL_SOURCE)) as arrays:
        return arrays["logits"], arrays["label"].astype(np.int64)


def samples(chosen: Sequence[int] | None = None) -> Samples:
    """The sample images of $HE_NN_DATA/imagenet_samples in the order of their file names, or some of them by index.

    Short side to 256 (bicubic), the middle 224×224, RGB from -1 to 1. Raises NotFoundError without the images, EngineError without Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise EngineError("images need Pillow: pip install 'he-nn[bench]'") from None
    folder = _file("imagenet_samples", "imagenet_class_index.json", _IMAGE_SOURCE).parent
    paths = sorted((folder / "images").glob("*.jpg"))
    if not paths:
        raise NotFoundError(f"missing {folder / 'images'}/*.jpg, published at {_IMAGE_SOURCE}")
    paths = paths if chosen is None else [paths[i] for i in chosen]
    images = np.empty((len(paths), *INPUT_SHAPE), np.float32)
    for row, path in enumerate(paths):
        with Image.open(path) as image:
            images[row] = preprocess(np.asarray(_short_side(image.convert("RGB"), Image.Resampling.BICUBIC)))
    return Samples(images, np.array([int(path.name.split("_", 1)[0]) for path in paths], np.int64))


def preprocess(pixels: np.ndarray) -> np.ndarray:
    """float32 [3, 224, 224], -1 to 1, from the middle of pixels uint8 [height, width, 3] of at least 224 each."""
    top, left = ((extent - _CROP) // 2 for extent in pixels.shape[:2])
    crop = pixels[top : top + _CROP, left : left + _CROP].astype(np.float32)
    return np.asarray((crop / np.float32(127.5) - 1).transpose(2, 0, 1))


def class_names() -> tuple[str, ...]:
    """The 1000 labels, by class. Raises NotFoundError without the data."""
    index = json.loads(_file("imagenet_samples", "imagenet_class_index.json", _IMAGE_SOURCE).read_text(encoding="utf-8"))
    return tuple(index[str(i)][1] for i in range(_CLASSES))


def _short_side(image: object, filter_: object) -> object:
    width, height = image.size  # type: ignore[attr-defined]
    if min(width, height) == _SHORT_SIDE:
        return image
    scale = _SHORT_SIDE / min(width, height)
    return image.resize((round(width * scale), round(height * scale)), filter_)  # type: ignore[attr-defined]


def _file(folder: str, name: str, source: str) -> Path:
    root = data_folder()
    path = (root or Path("$HE_NN_DATA")) / folder / name
    if root is None or not path.is_file():
        raise NotFoundError(f"missing {path}, published at {source}; set HE_NN_DATA to the folder that holds {folder}/")
    return path
