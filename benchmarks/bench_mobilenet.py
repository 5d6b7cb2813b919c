"""MobileNetV2 1.0/224, pretrained, on sample images, encrypted: accuracy, agreement with plain float32, seconds an image, memory.

Both parties run in this process, so peak memory is that of both together. Weights and images come from $HE_NN_DATA (docs/networks.md).

    python benchmarks/bench_mobilenet.py --images 200 --batch 8 --bits 8
"""

from __future__ import annotations

import argparse
import json
import math
import time

import numpy as np

import he_backend as he
from he_backend.bench.networks import mobilenet
from he_backend.client.inference import Client
from he_backend.client.rounds import peak_memory_bytes
from he_backend.errors import HeError
from he_backend.protocol.transport import MemoryLink
from he_backend.server.models import OneModel
from he_backend.server.service import CipherService

ORIGINAL = "nGraph-HE2 reports 0.381 s an image, amortised, on 56 cores"  # Boemer et al., WAHC 2019, table 7


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="how many of the 200")
    parser.add_argument("--batch", type=int, default=1, help="images that go through the rounds together")
    parser.add_argument("--preset", default="N11_L1")
    parser.add_argument("--packing", default="auto")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        figures = measure(options.images, options.batch, options.preset, options.packing, options.bits)
    except HeError as problem:
        raise SystemExit(f"{problem}") from None
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print(ORIGINAL)


def measure(images: int, batch: int, preset: str, packing: str, bits: int) -> dict[str, object]:
    """The figures of the first `images` sample images in groups of `batch`."""
    started = time.perf_counter()
    program = he.convert(mobilenet.mobilenet())
    chosen = np.linspace(0, 199, images).astype(int)
    logits, _ = mobilenet.reference_logits()
    client = Client(MemoryLink(CipherService(OneModel(program)).handle), preset=preset, packing=packing, bits=bits)
    task = client.prepare("latest", batch)
    setup = time.perf_counter() - started
    scores, labels, reports, seconds = [], [], [], []
    for start in range(0, images, batch):
        samples = mobilenet.samples([int(i) for i in chosen[start : start + batch]])
        begun = time.perf_counter()
        result = client.infer(task, samples.x)
        seconds.append((time.perf_counter() - begun) / len(samples.y))
        scores.append(next(iter(result.outputs.values())))
        labels.append(samples.y)
        reports.append(result.report)
    got, label, due = np.concatenate(scores), np.concatenate(labels), logits[chosen]
    error = float(np.abs(got - due).max())
    parts = ("encrypt", "server", "decrypt", "step", "wire")
    return {
        "images, in groups of": f"{images}, {batch}",
        "preset, packings, rounds": f"{reports[0].preset}, {'+'.join(reports[0].packing)}, {reports[0].rounds}",
        "top-1, plain and encrypted": f"{(due.argmax(1) == label).mean():.4f} {(got.argmax(1) == label).mean():.4f}",
        "same top-1": f"{(due.argmax(1) == got.argmax(1)).mean():.4f}",
        "largest error of a logit": f"{error:.3g} of {np.abs(due).max():.3g}: {math.log2(np.abs(due).max() / error):.1f} bits",
        "bits promised": reports[0].expected_bits,
        "seconds an image, median": round(float(np.median(seconds)), 3),
        "seconds an image, split": {name: round(float(np.median([r.seconds[name] / batch for r in reports])), 3) for name in parts},
        "MB an image, up and down": [round(sum(side) / images / 1e6, 1) for side in zip(*((r.bytes_up, r.bytes_down) for r in reports))],
        "seconds to plan, once": round(setup, 1),
        "peak memory, GiB": round(peak_memory_bytes() / 2**30, 2),
    }


if __name__ == "__main__":
    main()
