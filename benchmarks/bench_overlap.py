"""One chunk of rows at a time beside two: seconds of an inference between two processes over gRPC, taken in turns.

--apart gives each party a core of its own, as two machines would; otherwise both share all cores.

    python benchmarks/bench_overlap.py --rows 32768 --apart
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import onnx
from served import served

from he_backend import zoo
from he_backend.bench.suite import machine
from he_backend.client.inference import Client

NETWORKS = {"MLP": ("MLP", "mnist"), "CryptoNets": ("CNN", "mnist")}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help=", ".join(NETWORKS))
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--preset", default="N11_L1")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--apart", action="store_true", help="A core for each party.")
    options = parser.parse_args()
    print(
        f"{machine()}; {'a core for each party' if options.apart else 'all cores for both parties'}; {options.rows} rows, {options.preset}"
    )
    if options.apart:
        os.sched_setaffinity(0, {0})
    for name in options.networks:
        model = onnx.load(str(zoo.shipped(*NETWORKS[name]).onnx_path))
        with served(model, 1 if options.apart else None) as address:
            print(f"{name:12} {_line(address, options)}")


def _line(address: str, options: argparse.Namespace) -> str:
    clients = {lanes: Client(address, preset=options.preset, lanes=lanes) for lanes in (1, 2)}
    tasks = {lanes: client.prepare("latest", options.rows) for lanes, client in clients.items()}
    (spec,) = tasks[1].plan.inputs
    rows = np.random.default_rng(0).uniform(0.0, 1.0, (options.rows, *spec.shape)).astype(spec.dtype)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    outputs = {}
    for turn in range(options.repeat + 1):
        for lanes, client in clients.items():
            started = time.perf_counter()
            outputs[lanes] = client.infer(tasks[lanes], rows).output
            if turn:  # the first is a rehearsal
                seconds[lanes].append(time.perf_counter() - started)
    for client in clients.values():
        client.close()
    apart = float(np.abs(outputs[1] - outputs[2]).max() / np.abs(outputs[1]).max())
    one, two = (statistics.median(seconds[lanes]) for lanes in (1, 2))
    return f"one at a time {one:.3f} s, two {two:.3f} s: {one / two:.2f} x (medians of {options.repeat}); outputs within {apart:.1e}"


if __name__ == "__main__":
    main()
