"""Encrypted inferences through one HE-server and one HE-client process, one at a time and many at once.

`python -m benchmarks.bench_services --concurrent 64` from the top of the repository. Timed is what a user of the HE-client waits for:
upload, environment test, keys, rounds, the answer as JSON. Every answer is compared with the plain network's. Prints a JSON
object per case.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.graph import Reference
from tests import processes
from tests.load import cpu_seconds, memory_bytes, wave


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrent", type=int, default=64)
    parser.add_argument("--waves", type=int, default=3, help="of the concurrent case: memory must not grow with them")
    parser.add_argument("--rows", type=int, default=16, help="of one inference")
    parser.add_argument("--preset", default="N11_L1")
    parser.add_argument("--workers", type=int, default=2, help="inferences that the HE-client computes at a time")
    arguments = parser.parse_args()
    network = zoo.shipped("MLP", "digits")
    rows = network.load_test()[0]
    plain = next(iter(Reference(str(network.onnx_path)).run(rows).values()))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("server", "client"):
            (Path(folder) / name).mkdir()
        server = processes.server(Path(folder) / "server")
        client = processes.client(
            Path(folder) / "client", server.http, "--workers", arguments.workers, "--queue", max(64, arguments.concurrent)
        )
        try:
            HEServer(server.http).load("MLP")
            wave(client.http, rows, plain, arguments.rows, 2, 1, arguments.preset)  # warm
            cases = [("one at a time", arguments.concurrent, 1)]
            cases += [(f"{arguments.concurrent} at once", arguments.concurrent, arguments.concurrent)] * arguments.waves
            for case, count, concurrent in cases:
                before = cpu_seconds(client.process.pid), cpu_seconds(server.process.pid)
                done = wave(client.http, rows, plain, arguments.rows, count, concurrent, arguments.preset)
                states = {one.inference_id: one.state for one in HEClient(client.http).get_inferences()}
                finished = sum(states.get(one) == "finished" for one in done.ids)
                figures = {
                    "case": case,
                    "inferences": count,
                    "finished": finished,
                    "correct": done.same_labels,
                    "largest_error": round(done.largest_error, 5),
                    "rows_per_s": round(count * arguments.rows / done.seconds, 1),
                    "p50_s": round(done.percentile(0.5), 3),
                    "p95_s": round(done.percentile(0.95), 3),
                    "client_cpu_ms": round(1000 * (cpu_seconds(client.process.pid) - before[0]) / count, 1),  # of one inference
                    "server_cpu_ms": round(1000 * (cpu_seconds(server.process.pid) - before[1]) / count, 1),
                    "server_mib": memory_bytes(server.process.pid) >> 20,
                    "client_mib": memory_bytes(client.process.pid) >> 20,
                    "preset": arguments.preset,
                    "rows": arguments.rows,
                    "cores": os.cpu_count(),
                }
                print(json.dumps(figures), flush=True)
        finally:
            client.stop()
            server.stop()


if __name__ == "__main__":
    main()
