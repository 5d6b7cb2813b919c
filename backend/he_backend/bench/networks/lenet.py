"""LeNet-style: convolution, pool, convolution, pool, three dense layers on MNIST's shape (LeCun et al., 1998, with ReLU and max-pool)."""

from __future__ import annotations

import numpy as np
import onnx

from he_backend.bench.networks.layers import Layers

INPUT_SHAPE = (1, 28, 28)


def lenet(seed: int = 0) -> onnx.ModelProto:
    """The network with random weights: 416,520 multiply-adds a row in five rounds."""
    net = Layers("lenet", seed)
    x = net.node("Relu", net.conv("x", net.random(6, 1, 5, 5, fan_in=25), np.zeros(6, np.float32), pads=(2, 2, 2, 2)))
    x = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])  # 6 x 14 x 14
    x = net.node("Relu", net.conv(x, net.random(16, 6, 5, 5, fan_in=150), np.zeros(16, np.float32)))
    x = net.node("Flatten", net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), axis=1)  # 16 x 5 x 5
    x = net.node("Relu", net.dense(x, net.random(400, 120, fan_in=400), np.zeros(120, np.float32)))
    x = net.node("Relu", net.dense(x, net.random(120, 84, fan_in=120), np.zeros(84, np.float32)))
    scores = net.dense(x, net.random(84, 10, fan_in=84), np.zeros(10, np.float32))
    return net.model([("x", INPUT_SHAPE)], scores, (10,))
