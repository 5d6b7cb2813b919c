"""PyTorch modules as people bring them, with random weights: PyTorch's own, and small ones after well-known designs."""

from __future__ import annotations

import torch
from torch import nn


class LastStep(nn.Module):
    """A recurrent layer of PyTorch's own, and a classifier on its last step."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class SelfAttention(nn.Module):
    """nn.MultiheadAttention with a causal mask, beside its input."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.register_buffer("mask", torch.triu(torch.full((5, 5), float("-inf")), 1))

    def forward(self, x):
        return x + self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate that is computed from their means, as in MobileNetV3 and EfficientNet."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.down, self.up = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = nn.functional.silu(self.norm(self.first(x)))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(x * gate)


class ConvNextBlock(nn.Module):
    """Depthwise convolution, norm over channels, two dense layers, a learned scale per channel, the input added."""

    def __init__(self, width=6):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.up, self.down, self.scale = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(nn.functional.gelu(self.up(y)))).permute(0, 3, 1, 2)


class MixerBlock(nn.Module):
    """Dense layers across positions, then across channels (MLP-Mixer)."""

    def __init__(self, tokens=6, width=8):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 12), nn.GELU(), nn.Linear(12, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Shuffled(nn.Module):
    """Grouped pointwise convolutions with channels shuffled between them (ShuffleNet)."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 8, 1, groups=2)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x):
        y = torch.relu(self.first(x))
        y = y.view(len(y), 2, 4, *y.shape[2:]).transpose(1, 2).flatten(1, 2)
        return torch.relu(self.last(self.middle(y)))


class Inverted(nn.Module):
    """Two inverted residuals of MobileNetV2, the second one added to its input: linear layers in a row."""

    def __init__(self):
        super().__init__()

        def block(wide, middle, out):
            return nn.Sequential(
                nn.Conv2d(wide, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU6(),
                nn.Conv2d(middle, middle, 3, padding=1, groups=middle, bias=False), nn.BatchNorm2d(middle), nn.ReLU6(),
                nn.Conv2d(middle, out, 1, bias=False), nn.BatchNorm2d(out),
            )  # fmt: skip

        self.first, self.second, self.head = block(3, 12, 4), block(4, 16, 4), nn.Linear(4, 5)

    def forward(self, x):
        x = self.first(x)
        x = x + self.second(x)
        return self.head(x.mean((2, 3)))


class PreActivation(nn.Module):
    """Residual sums that a batch norm reads (He et al., ECCV 2016)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x)
        for norm, layer in zip(self.norms, self.layers):
            x = x + layer(torch.relu(norm(x)))
        return self.head(torch.relu(self.norms[2](x)).mean((2, 3)))


class Temporal(nn.Module):
    """Dilated causal convolutions with a gate (WaveNet)."""

    def __init__(self):
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(4, 8, 2, dilation=2**i) for i in range(3))
        self.mixes = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in range(3))

    def forward(self, x):
        for i, (layer, mix) in enumerate(zip(self.filters, self.mixes)):
            a, b = layer(nn.functional.pad(x, (2**i, 0))).chunk(2, 1)
            x = x + mix(torch.tanh(a) * torch.sigmoid(b))
        return x


def encoder(**options):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class EncoderDecoder(nn.Module):
    """PyTorch's whole transformer, its target a learned constant."""

    def __init__(self):
        super().__init__()
        self.model = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
        self.target = nn.Parameter(torch.randn(1, 3, 16))

    def forward(self, x):
        return self.model(x, self.target.expand(len(x), -1, -1))


# Name -> how it is made, and the shape of a row.
OWN = {
    "nn.LSTM": (lambda: LastStep(nn.LSTM(4, 6, batch_first=True), 6), (5, 4)),
    "nn.LSTM 2 layers, both directions": (lambda: LastStep(nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), 8), (4, 3)),
    "nn.GRU": (lambda: LastStep(nn.GRU(4, 6, batch_first=True), 6), (5, 4)),
    "nn.GRU both directions": (lambda: LastStep(nn.GRU(3, 5, batch_first=True, bidirectional=True), 10), (4, 3)),
    "nn.RNN relu": (lambda: LastStep(nn.RNN(3, 5, nonlinearity="relu", batch_first=True), 5), (4, 3)),
    "nn.TransformerEncoder": (encoder, (6, 16)),
    "nn.TransformerEncoder norm first, gelu": (lambda: encoder(norm_first=True, activation="gelu"), (6, 16)),
    "nn.Transformer": (EncoderDecoder, (4, 16)),
    "nn.MultiheadAttention causal": (SelfAttention, (5, 16)),
    "squeeze and excite": (SqueezeExcite, (3, 6, 6)),
    "ConvNeXt block": (ConvNextBlock, (6, 7, 7)),
    "mixer block": (MixerBlock, (6, 8)),
    "shuffled groups": (Shuffled, (4, 5, 5)),
    "inverted residuals": (Inverted, (3, 8, 8)),
    "pre-activation residuals": (PreActivation, (3, 6, 6)),
    "dilated convolutions with gates": (Temporal, (4, 9)),
    "convolution in three dimensions": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 2, stride=2), nn.BatchNorm3d(3), nn.ELU(), nn.Flatten(), nn.Linear(24, 3)), (2, 4, 4, 4),
    ),
    "autoencoder": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, 2, 1), nn.Tanh(),
                              nn.ConvTranspose2d(2, 4, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 3, 2, 1, 1)), (1, 8, 8),
    ),
}  # fmt: skip
