"""The five model types, encrypted, beside the figures that the original service reported.

python benchmarks/bench_zoo.py [--types MLP CNN …] [--rows 1 512] [--presets N11_L1 N13_L8] [--out build/bench]

Each run is `he-nn infer --json` in a process of its own with both parties in it, over the in-memory link, on held-out rows of the network's
real data set ($HE_NN_DATA; without it on digits). Prints a Markdown table and writes zoo.json and zoo.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from he_backend.errors import EngineError, NotFoundError
from he_backend.inference.describe import size_text
from he_backend.zoo import Shipped, shipped
from he_backend.zoo.evaluate import accuracy

NETWORKS = (
    ("MLP", "mnist"),
    ("CNN", "mnist"),
    ("AlexNet", "mnist"),
    ("AlexNet", "cifar10"),
    ("RNN", "trec"),
    ("RNN", "sst2"),
    ("BERT", "sst2"),
)

# Reported for the original service on an Intel Xeon Gold 5218 with 256 GB: accuracy of the original network, encrypted accuracy, and
# seconds with the rows that took them, under N13_L8 (BERT under N11_L1: 0.8184, 23.6 s).
ORIGINAL = {
    "MLP": (0.9844, 0.9766, 1.126, 512),
    "CNN": (0.9842, 0.9375, 8.31, 1),
    "AlexNet": (0.9873, 0.9644, 10.35, 1),
    "RNN": (0.8072, 0.7329, 21.3, 1),
    "BERT": (0.8025, 0.8163, 25.7, 1),
}


@dataclass(frozen=True)
class Line:
    """One run: its rows' accuracy in ONNX Runtime and encrypted, and what it cost."""

    model_type: str
    dataset: str
    preset: str
    rows: int
    plain_acc: float
    encrypted_acc: float
    whole_acc: float  # plain, on all held-out rows
    agreement: float
    seconds: float
    plain_seconds: float
    rounds: int
    bytes_up: int
    bytes_down: int
    bits_of_precision: float


def measure(network: Shipped, x: np.ndarray, y: np.ndarray, preset: str, repeat: int, timeout_s: int) -> Line:
    """One network, its rows x with labels y under one preset: the run with the median time of `repeat`."""
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows.npy", Path(folder) / "scores.npy"
        np.save(rows, x)
        command = [sys.executable, "-m", "he_backend.cli", "infer", str(network.onnx_path), str(rows), "--preset", preset, "--json"]
        command += ["--out", str(out), "--repeat", str(repeat)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise SystemExit(f"{network.onnx_path.stem}, {len(x)} rows, {preset}: {done.stderr.strip()}")
        report: dict[str, Any] = json.loads(done.stdout)
        found = np.load(out).argmax(axis=-1)
    return Line(
        model_type=network.model_type,
        dataset=network.dataset,
        preset=preset,
        rows=len(x),
        plain_acc=accuracy(network.onnx_path.read_bytes(), x, y),
        encrypted_acc=float((found == y).mean()),
        whole_acc=network.test_acc,
        agreement=report["agreement"],
        seconds=report["seconds"]["total"],
        plain_seconds=report["plain_seconds"],
        rounds=report["rounds"],
        bytes_up=report["bytes_up"],
        bytes_down=report["bytes_down"],
        bits_of_precision=report["bits_of_precision"],
    )


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table, the original service's figures at the right."""
    head = (
        "| type | data | accuracy, all test rows | preset | rows | accuracy plain → encrypted | seconds | rounds | up | down "
        "| original: accuracy plain → encrypted | original: seconds (rows) |"
    )
    made = [head, "|" + "---|" * 12]
    for line in lines:
        plain, encrypted, seconds, rows = ORIGINAL[line.model_type]
        made.append(
            f"| {line.model_type} | {line.dataset} | {line.whole_acc:.2%} | {line.preset} | {line.rows} "
            f"| {line.plain_acc:.2%} → {line.encrypted_acc:.2%} | {line.seconds:.3g} | {line.rounds} "
            f"| {size_text(line.bytes_up)} | {size_text(line.bytes_down)} | {plain:.2%} → {encrypted:.2%} | {seconds} ({rows}) |"
        )
    return "\n".join(made)


def networks(types: Sequence[str]) -> list[tuple[Shipped, np.ndarray, np.ndarray]]:
    """The shipped networks of these types with their held-out rows; those of digits for a type whose data is missing."""
    found = []
    for wanted in types:
        mine = []
        for model_type, dataset in NETWORKS:
            if model_type.lower() == wanted.lower():
                try:
                    network = shipped(model_type, dataset)
                    mine.append((network, *network.load_test()))
                except (NotFoundError, EngineError) as missing:
                    print(missing, file=sys.stderr)
        if not mine:
            network = shipped(wanted, "digits")
            mine.append((network, *network.load_test()))
        found += mine
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=list(ORIGINAL))
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 512])
    parser.add_argument("--presets", nargs="+", default=["N11_L1", "N13_L8"])
    parser.add_argument("--repeat", type=int, default=3, help="warm runs; the median counts")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for one process")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    for network, x, y in networks(options.types):
        for preset in options.presets:
            for rows in options.rows:
                line = measure(network, x[:rows], y[:rows], preset, options.repeat, options.timeout)
                lines.append(line)
                print(f"{line.model_type} {line.dataset} {preset} {line.rows} rows: {line.seconds:.3g} s", file=sys.stderr, flush=True)
                (options.out / "zoo.json").write_text(json.dumps([asdict(one) for one in lines], indent=1), encoding="utf-8")
                (options.out / "zoo.md").write_text(table(lines) + "\n", encoding="utf-8")
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
