"""CryptoNets on one row in Orion (Lattigo): everything on the server, in slots. Run by run.py in an environment of its own."""

from __future__ import annotations

import statistics
import sys
import time
from importlib import metadata

import numpy as np
import orion
import orion.nn as on
import torch
from common import finish, start

# As many levels as the network takes in the smallest ring that holds them: 29 + 5 * 26 + 2 * 29 = 217 bits, of 218 that are 128-bit secure.
CONFIG = {
    "ckks_params": {
        "LogN": 13, "LogQ": [29, 26, 26, 26, 26, 26], "LogP": [29, 29], "LogScale": 26, "H": 8192, "RingType": "ConjugateInvariant",
    },
    "orion": {"margin": 2, "embedding_method": "hybrid", "backend": "lattigo", "fuse_modules": True, "debug": False, "io_mode": "none"},
}  # fmt: skip


class CryptoNets(on.Module):
    """The same layers as ours."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act1, self.flatten = on.Conv2d(1, 5, kernel_size=5, stride=2, padding=1), on.Quad(), on.Flatten()
        self.dense1, self.act2, self.dense2 = on.Linear(845, 100), on.Quad(), on.Linear(100, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores."""
        x = self.flatten(self.act1(self.conv(x)))
        return self.dense2(self.act2(self.dense1(x)))


def main() -> None:
    """Times encryption, the server's computation and decryption of one row."""
    network, repeat = start(sys.argv)
    began = time.perf_counter()
    orion.init_scheme(CONFIG)
    net = CryptoNets()
    weights = {
        "conv.weight": network["conv_weight"], "conv.bias": network["conv_bias"],
        "dense1.weight": network["dense1_weight"].T, "dense1.bias": network["dense1_bias"],
        "dense2.weight": network["dense2_weight"].T, "dense2.bias": network["dense2_bias"],
    }  # fmt: skip
    with torch.no_grad():
        for name, value in weights.items():
            dict(net.named_parameters())[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))
    net.eval()
    x = torch.from_numpy(network["x"])
    plain = net(x)
    assert np.allclose(plain.detach().numpy().ravel(), network["scores"].ravel(), rtol=1e-3, atol=1e-3), "not the same network"
    orion.fit(net, x)
    level = orion.compile(net)
    setup = time.perf_counter() - began
    net.he()
    seconds = []
    scores = np.zeros(0)
    for _ in range(repeat):
        began = time.perf_counter()
        answer = net(orion.encrypt(orion.encode(x, level)))
        scores = answer.decrypt().decode().detach().numpy()
        seconds.append(time.perf_counter() - began)
    finish(
        sys.argv, network, scores, statistics.median(seconds), setup,
        version=metadata.version("orion-fhe"), rounds=1, bytes_up=None, bytes_down=None,
        how="CKKS slots (Lattigo), N = 8192, rotations; server alone, one process, nothing serialised",
        client_learns="scores only",
    )  # fmt: skip


if __name__ == "__main__":
    main()
