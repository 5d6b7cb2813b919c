"""MLP: two hidden layers on flattened images, as in SecureML (Mohassel and Zhang, IEEE S&P 2017), with ReLU."""

from __future__ import annotations

from math import prod
from typing import Any

from he_backend.zoo.activations import activation


def input_shape(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one row at the network's input: the pixels one after the other."""
    return (prod(image_shape),)


def build(image_shape: tuple[int, ...], classes: int, activation_name: str) -> Any:
    """A torch module from float32 [rows, pixels] to scores [rows, classes].

    28x28 images: 784 -> 128 -> 128 -> 10, the paper's sizes; 8x8 images: 64 -> 64 -> 64 -> 10.
    """
    from torch import nn

    pixels = prod(image_shape)
    hidden = 128 if pixels >= 784 else 64
    return nn.Sequential(
        nn.Linear(pixels, hidden),
        activation(activation_name),
        nn.Linear(hidden, hidden),
        activation(activation_name),
        nn.Linear(hidden, classes),
    )
