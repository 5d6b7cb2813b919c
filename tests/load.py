"""Many inferences at a time through an HE-client service: how long each took, and whether each gave what the plain network gives."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from he_backend.api import HEClient


@dataclass(frozen=True)
class Wave:
    """`count` inferences of some rows each, `concurrent` at a time."""

    seconds: float
    latencies: tuple[float, ...]
    ids: frozenset[str]
    largest_error: float
    same_labels: bool

    def percentile(self, share: float) -> float:
        """Seconds within which that share of the inferences were done."""
        return float(np.quantile(self.latencies, share))


def wave(http: str, rows: np.ndarray, plain: np.ndarray, each: int, count: int, concurrent: int, preset: str) -> Wave:
    """Inference number k has rows k·each … of `rows` (around the end), uploaded by itself, and is compared with these of `plain`."""
    ready = threading.Barrier(min(concurrent, count))

    def one(number: int) -> tuple[float, str, float, bool]:
        places = np.arange(number * each, (number + 1) * each) % len(rows)
        api = HEClient(http)
        if number < ready.parties:
            ready.wait(60)
        started = time.perf_counter()
        done = api.inference("MLP", rows[places], preset=preset)
        took = time.perf_counter() - started
        due = plain[places]
        same = bool((done.outputs.argmax(axis=1) == due.argmax(axis=1)).all())
        return took, done.inference_id, float(np.abs(done.outputs - due).max()), same

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as pool:
        results = list(pool.map(one, range(count)))
    latencies, ids, errors, same = zip(*results)
    return Wave(time.perf_counter() - started, latencies, frozenset(ids), max(errors), all(same))


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Resident memory of a process: now (VmRSS) or at most so far (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
