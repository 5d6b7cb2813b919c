"""ResNet-20 for CIFAR-10's shape (He et al., CVPR 2016, section 4.2), batch norms folded."""

from __future__ import annotations

import numpy as np
import onnx

from he_backend.bench.networks.layers import Layers

INPUT_SHAPE = (3, 32, 32)
_BLOCKS, _WIDTHS = 3, (16, 32, 64)


def resnet20(seed: int = 0) -> onnx.ModelProto:
    """The network with random weights: 20 layers with weights, 40.8 million multiply-adds a row.

    Where a stage halves the size, the shortcut is a 1×1 convolution of stride 2 (the paper's option B).
    """
    net = Layers("resnet20", seed)
    x = net.node("Relu", _conv3(net, "x", 3, 16))
    channels = 16
    for stage, width in enumerate(_WIDTHS):
        for block in range(_BLOCKS):
            stride = 2 if stage and not block else 1
            inner = net.node("Relu", _conv3(net, x, channels, width, stride))
            # Half the variance on the branch, as trained batch norms keep it: sums of residuals would grow with depth otherwise.
            branch = _conv3(net, inner, width, width, scale=0.5)
            short = x
            if stride > 1 or channels != width:
                weight = net.random(width, channels, 1, 1, fan_in=2 * channels)
                short = net.conv(x, weight, np.zeros(width, np.float32), stride)
            x = net.node("Relu", net.node("Add", branch, short))
            channels = width
    pooled = net.node("Flatten", net.node("GlobalAveragePool", x), axis=1)
    scores = net.dense(pooled, net.random(64, 10, fan_in=128), np.zeros(10, np.float32))
    return net.model([("x", INPUT_SHAPE)], scores, (10,))


def _conv3(net: Layers, x: str, channels: int, width: int, stride: int = 1, scale: float = 1.0) -> str:
    weight = net.random(width, channels, 3, 3, fan_in=9 * channels) * np.float32(scale)
    return net.conv(x, weight, np.zeros(width, np.float32), stride, (1, 1, 1, 1))
