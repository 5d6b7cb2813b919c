"""The benchmark suite: which runs, in which order, and their tables."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Callable

from he_backend.bench.primitives import encrypt_and_decrypt
from he_backend.bench.runs import NETWORKS, Run, measure

Say = Callable[[str], None]


def primitives(say: Say, quick: bool) -> list[dict[str, Any]]:
    """Encrypt and decrypt per value: the native engine on 1 and 2 threads, the SEAL engine (which uses one)."""
    rows = []
    for preset in ("N11_L1", "N13_L8"):
        for engine, threads, elements in (("seal", 1, 16), ("native", 1, 256), ("native", 2, 256)):
            rows.append(encrypt_and_decrypt(engine, preset, elements, threads, 3 if quick else 7))
            say(_primitive_line(rows[-1]))
    return rows


def networks(say: Say, quick: bool, folder: Path) -> list[dict[str, Any]]:
    """CryptoNets and MLP at 2048 and 8192 rows: native under auto and N11_L1, and SEAL the he-transformer way."""
    runs = []
    for network in NETWORKS:
        for rows in (2048,) if quick else (2048, 8192):
            runs += [Run(network, rows, "native", preset, repeat=3 if quick else 7) for preset in ("auto", "N11_L1")]
        runs.append(Run(network, 2048, "seal", "N11_L1", repeat=1))
    runs += [Run("MLP", 512, "native", preset, repeat=3 if quick else 7) for preset in ("N11_L1", "N13_L8")]
    return _all(runs, say, folder)


def precision(say: Say, quick: bool, folder: Path) -> list[dict[str, Any]]:
    """Bits wanted, promised and reached, against speed, under auto."""
    wanted = (8, 12, 16) if quick else range(8, 21, 2)
    return _all([Run(network, 2048, "native", "auto", bits) for network in NETWORKS for bits in wanted], say, folder)


def scaling(say: Say, quick: bool, folder: Path) -> list[dict[str, Any]]:
    """CryptoNets against rows and cores, under auto."""
    sizes = (64, 2048) if quick else (64, 512, 2048, 8192, 16384, 65536)
    return _all([Run("CNN", rows, "native", "auto", cores=cores) for cores in (1, 2) for rows in sizes], say, folder)


def machine() -> str:
    """Processor and software in one line."""
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = f"{names[0]}, {len(names)} cores" if names else name
    return f"{name}; Python {platform.python_version()}"


def _all(runs: list[Run], say: Say, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        rows.append(measure(run, folder))
        say(_run_line(rows[-1]))
    return rows


def _primitive_line(row: dict[str, Any]) -> str:
    return (
        f"{row['engine']:7} {row['preset']:7} {row['threads']} threads: encrypt {row['encrypt_ns']:7.1f} ns/value, "
        f"decrypt {row['decrypt_ns']:7.1f} ns/value, {row['bytes_up']:.2f} B up, {row['bytes_down']:.2f} B down"
    )


def _run_line(row: dict[str, Any]) -> str:
    seconds = row["seconds"]
    values_up = sum(part["in_elements"] for part in row["per_round"]) * row["rows"]
    values_down = sum(part["out_elements"] for part in row["per_round"]) * row["rows"]
    return (
        f"{row['network']:4} {row['rows']:6} rows {row['cores']} cores {row['engine']:6} {row['preset']:12} {seconds['total']:8.3f} s "
        f"{row['rows_per_second']:8.0f} rows/s {row['times_plain']:7.1f} x plain  "
        f"(enc {seconds['encrypt']:.3f} srv {seconds['server']:.3f} wire {seconds['wire']:.3f} dec {seconds['decrypt']:.3f} "
        f"step {seconds['step']:.3f})  {row['bytes_up'] / values_up:.2f} B up {row['bytes_down'] / values_down:.2f} B down/value  "
        f"{row['peak_memory_bytes'] / 2**20:.0f} MiB  bits {row['bits_wanted']}/{row['expected_bits']:.1f}/{row['bits_of_precision']:.1f} "
        f"agree {row['agreement']:.4f}"
    )
