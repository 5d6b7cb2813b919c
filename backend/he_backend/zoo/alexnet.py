"""AlexNet: five convolutions and three dense layers (Krizhevsky, Sutskever and Hinton, NIPS 2012), in sizes for small images.

Two things differ from the paper: batch normalisation (Ioffe and Szegedy, ICML 2015) in place of local response normalisation, because it
costs nothing once trained, being folded into the convolution; and dropout only before the dense layers.
"""

from __future__ import annotations

from typing import Any

from he_backend.zoo.activations import activation

MAPS = (16, 32, 48, 48, 32)
HIDDEN = 96


def input_shape(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one row at the network's input: (channels, height, width)."""
    return image_shape


def build(image_shape: tuple[int, ...], classes: int, activation_name: str) -> Any:
    """A torch module from float32 [rows, channels, height, width] to scores [rows, classes].

    Convolutions to 16, 32, 48, 48 and 32 maps, 5x5 first and 3x3 after, all with zero padding; max-pooling halves the image after the
    first, the second and the fifth (28 -> 14 -> 7 -> 3 pixels); then 96, 96 and the scores.
    """
    from torch import nn

    channels, height, width = image_shape
    layers = []
    for index, maps in enumerate(MAPS):
        kernel = 5 if index == 0 else 3
        layers += [nn.Conv2d(channels, maps, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(maps), activation(activation_name)]
        if index in (0, 1, 4):
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = maps
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(channels * height * width, HIDDEN),
        activation(activation_name),
        nn.Dropout(0.3),
        nn.Linear(HIDDEN, HIDDEN),
        activation(activation_name),
        nn.Linear(HIDDEN, classes),
    )
