"""CryptoNets on one row in TenSEAL: everything on the server, in slots. Run by run.py in an environment of its own."""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import tenseal as ts
from common import finish, start

# Five products and a mask deep: 60 + 6 * 40 + 60 = 360 bits, of 438 that are 128-bit secure here. The next smaller ring has too few slots.
RING_DEGREE, SCALE_BITS, PRIMES = 16384, 40, [60, 40, 40, 40, 40, 40, 40, 60]


def main() -> None:
    """Times encryption, the server's computation and decryption of one row."""
    network, repeat = start(sys.argv)
    began = time.perf_counter()
    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=RING_DEGREE, coeff_mod_bit_sizes=PRIMES)
    context.global_scale = 2.0**SCALE_BITS
    context.generate_galois_keys()
    setup = time.perf_counter() - began
    image = np.pad(network["x"][0, 0], 1).tolist()
    kernels = network["conv_weight"][:, 0].tolist()
    seconds: list[float] = []
    up = down = 0
    scores = np.zeros(0)
    for _ in range(repeat):
        began = time.perf_counter()
        sent, windows = ts.im2col_encoding(context, image, 5, 5, 2)
        wire = sent.serialize()
        x = ts.ckks_vector_from(context, wire)
        maps = [x.conv2d_im2col(kernel, windows) + float(bias) for kernel, bias in zip(kernels, network["conv_bias"])]
        values = ts.CKKSVector.pack_vectors(maps)
        values.square_()
        values = values.mm(network["dense1_weight"].tolist()) + network["dense1_bias"].tolist()
        values.square_()
        answer = (values.mm(network["dense2_weight"].tolist()) + network["dense2_bias"].tolist()).serialize()
        scores = np.array(ts.ckks_vector_from(context, answer).decrypt())
        seconds.append(time.perf_counter() - began)
        up, down = len(wire), len(answer)
    finish(
        sys.argv, network, scores, statistics.median(seconds), setup,
        version=ts.__version__, rounds=1, bytes_up=up, bytes_down=down,
        how=f"CKKS slots, N = {RING_DEGREE}, rotations; server alone",
        client_learns="scores only",
    )  # fmt: skip


if __name__ == "__main__":
    main()
