"""One inference in a process of its own, so that its peak memory and its cores are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from he_backend.errors import HeError
from he_backend.zoo import datasets, shipped

NETWORKS = ("CNN", "MLP")  # CryptoNets with squares, and 784-128-128-10 with ReLU


@dataclass(frozen=True)
class Run:
    """What is measured: a network of the zoo, rows, and how they are inferred."""

    network: str
    rows: int
    engine: str
    preset: str
    bits: int = 12
    cores: int = 2
    repeat: int = 3


def measure(run: Run, folder: Path, timeout_s: float = 1800.0) -> dict[str, Any]:
    """The figures of `he-nn infer --json` for a run, with the run's own fields. Rows are MNIST's test rows, repeated as often as needed."""
    network = shipped(run.network, "mnist")
    rows = _rows_file(run, folder)
    command = [sys.executable, "-m", "he_backend.cli", "infer", str(network.onnx_path), str(rows), "--json"]
    command += ["--engine", run.engine, "--preset", run.preset, "--bits", str(run.bits), "--repeat", str(run.repeat)]
    command += ["--threads", str(run.cores)]
    cores = sorted(os.sched_getaffinity(0))[: run.cores]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    if done.returncode:
        raise HeError(f"{run}: {done.stderr.strip()}")
    figures: dict[str, Any] = json.loads(done.stdout)
    figures.update(network=run.network, cores=run.cores, bits_wanted=run.bits)
    figures["rows_per_second"] = run.rows / figures["seconds"]["total"]
    figures["times_plain"] = figures["seconds"]["total"] / figures["plain_seconds"]
    return figures


def _rows_file(run: Run, folder: Path) -> Path:
    path = folder / f"{run.network}-{run.rows}.npy"
    if not path.exists():
        network = shipped(run.network, "mnist")
        test = datasets.load("mnist").test_x.reshape(-1, *network.input_shape).astype(np.float32)
        np.save(path, np.resize(test, (run.rows, *network.input_shape)))
    return path
