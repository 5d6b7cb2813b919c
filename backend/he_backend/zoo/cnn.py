"""CNN: the network of CryptoNets (Gilad-Bachrach et al., ICML 2016), its linear layers merged as the paper does for prediction."""

from __future__ import annotations

from typing import Any

from he_backend.zoo.activations import activation


def input_shape(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one row at the network's input: (channels, height, width)."""
    return image_shape


def build(image_shape: tuple[int, ...], classes: int, activation_name: str) -> Any:
    """A torch module from float32 [rows, channels, height, width] to scores [rows, classes].

    28x28 images: 5x5 convolution, stride 2, to 5 maps of 13x13, then 845 -> 100 -> 10. What the paper trains between the two
    activations (pooling, convolution, pooling, dense) is linear, hence one dense layer here.
    8x8 images: the same with a 3x3 kernel, to 5 maps of 4x4, then 80 -> 100 -> 10.
    """
    from torch import nn

    channels, height, width = image_shape
    kernel = 5 if min(height, width) >= 28 else 3
    rows, columns = ((size + 2 - kernel) // 2 + 1 for size in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 5, kernel, stride=2, padding=1),
        activation(activation_name),
        nn.Flatten(),
        nn.Linear(5 * rows * columns, 100),
        activation(activation_name),
        nn.Linear(100, classes),
    )
