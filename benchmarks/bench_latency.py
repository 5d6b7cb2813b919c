"""One row, end to end, between two processes over gRPC on this machine: milliseconds by network, split, beside plain ONNX Runtime.

BERT-tiny takes its weights from $HE_NN_DATA (docs/networks.md) and is left out without them.

    python benchmarks/bench_latency.py --preset N11_L1 --repeat 30
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Callable

import numpy as np
import onnx
from served import served

import he_backend as he
from he_backend import zoo
from he_backend.bench.networks import bert_tiny, lenet, resnet20
from he_backend.bench.suite import machine
from he_backend.client.inference import Client
from he_backend.client.report import compare
from he_backend.errors import HeError
from he_backend.graph import Reference

# Name: network, seconds of the original service for a row (Xeon Gold 5218), milliseconds aimed at.
NETWORKS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "MLP": (lambda: onnx.load(str(zoo.shipped("MLP", "mnist").onnx_path)), "1.126 s for 512 rows", 10),
    "CryptoNets": (lambda: onnx.load(str(zoo.shipped("CNN", "mnist").onnx_path)), "8.31 s", 15),
    "LeNet": (lenet.lenet, "10.35 s (AlexNet)", 40),
    "ResNet-20": (resnet20.resnet20, "", 300),
    "BERT-tiny, 128 tokens": (bert_tiny.bert_tiny, "23.6 s (N11_L1), 25.7 s (N13_L8)", 300),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help=", ".join(NETWORKS))
    parser.add_argument("--preset", default="N11_L1")
    parser.add_argument("--packing", default="auto")
    parser.add_argument("--bits", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    print(machine())
    print(f"{'network':22} {'preset':12} {'packing':18} {'best':>7} {'median':>7} ms  goal  split of the best, ms")
    for name in options.networks:
        try:
            print(_line(name, options))
        except HeError as problem:
            print(f"{name:22} left out: {problem}")


def _line(name: str, options: argparse.Namespace) -> str:
    make, original, goal = NETWORKS[name]
    model = make()
    with served(model) as address:
        client = Client(address, preset=options.preset, packing=options.packing, bits=options.bits)
        task = client.prepare("latest", 1)
        random = np.random.default_rng(0)
        rows = {spec.name: random.uniform(-1.0, 1.0, (1, *spec.shape)).astype(spec.dtype) for spec in task.plan.inputs}
        results = []
        for _ in range(options.repeat + 2):
            started = time.perf_counter()
            result = client.infer(task, rows)
            results.append((time.perf_counter() - started, result))
        client.close()
    seconds, best = min(results[2:], key=lambda one: one[0])
    median = statistics.median(one for one, _ in results[2:])
    plain = Reference(he.convert(model), threads=1)
    started = time.perf_counter()
    due = plain.run(rows)
    plain_seconds = time.perf_counter() - started
    compared = compare(best.outputs, due)
    split = " ".join(f"{part} {1e3 * best.report.seconds[part]:.1f}" for part in ("encrypt", "server", "wire", "decrypt", "step"))
    packing = "+".join(best.report.packing)
    return (
        f"{name:22} {best.report.preset:12} {packing:18} {1e3 * seconds:7.1f} {1e3 * median:7.1f}     {goal:4}  {split}; "
        f"{best.report.rounds} rounds, {best.report.bytes_up / 1e3:.0f} + {best.report.bytes_down / 1e3:.0f} kB, "
        f"{compared.bits_of_precision:.1f} bits ({best.report.expected_bits:.1f} promised), plain {1e3 * plain_seconds:.1f} ms"
        f"{'; original ' + original if original else ''}"
    )


if __name__ == "__main__":
    main()
