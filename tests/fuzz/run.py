"""Feeds mutated inputs to every parser, each parser in a process of its own: `python -m tests.fuzz.run --count 100000`.

What counts as a finding: an exception outside he_backend.errors, a process that dies, an input that takes longer than --most-seconds,
memory beyond --most-bytes above what the parser had at the start. The input of a finding is written to --findings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def main() -> int:
    arguments = parsed()
    if arguments.worker:
        return work(arguments)
    from tests.fuzz import targets

    chosen = [make for make in targets.ALL if not arguments.target or make.__name__ in arguments.target]
    shares = {make.__name__: make().share for make in chosen}
    found = total = 0
    for name, share in shares.items():
        count = max(1, round(arguments.count * share / sum(shares.values())))
        options = {"target": name, "count": count, "seed": arguments.seed, "findings": arguments.findings}
        options |= {"most-seconds": arguments.most_seconds, "most-bytes": arguments.most_bytes}
        command = [sys.executable, "-m", "tests.fuzz.run", "--worker", *(f"--{key}={value}" for key, value in options.items())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP / "backend"), str(TOP)])}
        done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True)
        lines = done.stdout.strip().splitlines()
        died = {"inputs": 0, "findings": [f"it died ({done.returncode}): {done.stderr[-800:]}"]}
        result = json.loads(lines[-1]) if done.returncode == 0 and lines else died
        print(json.dumps({"target": name, **result}), flush=True)
        found, total = found + len(result["findings"]), total + result["inputs"]
    print(json.dumps({"inputs": total, "findings": found}))
    return 1 if found else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", default=[], help="only this parser; may be given several times")
    parser.add_argument("--most-seconds", type=float, default=5.0)
    parser.add_argument("--most-bytes", type=int, default=1 << 30)
    parser.add_argument("--findings", default="fuzz-findings", help="folder for the inputs of findings")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def work(arguments: argparse.Namespace) -> int:
    from he_backend.errors import HeError
    from tests.fuzz import targets
    from tests.fuzz.mutate import mutate

    targets.quiet()
    target = next(make for make in targets.ALL if make.__name__ == arguments.target[0])()
    folder = Path(arguments.findings)
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / f"{target.name}.last"  # what it died of, if it dies
    for seed in target.seeds:
        with contextlib.suppress(HeError):
            target.feed(seed)
    dice = random.Random(f"{target.name} {arguments.seed}")
    before = peak_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + 2 * arguments.most_bytes,) * 2)
    refused, slowest, findings = 0, 0.0, {}
    for number in range(arguments.count):
        data = mutate(dice.choice(target.seeds), target.seeds, dice)
        last.write_bytes(data)
        started = time.perf_counter()
        try:
            target.feed(data)
        except HeError:
            refused += 1
        except Exception as problem:  # noqa: BLE001 - a finding
            trace = traceback.extract_tb(problem.__traceback__)[-1]
            findings.setdefault(f"{type(problem).__name__} at {Path(trace.filename).name}:{trace.lineno}: {str(problem)[:200]}", data)
        took = time.perf_counter() - started
        slowest = max(slowest, took)
        if took > arguments.most_seconds:
            findings.setdefault("slow", data)
        if number % 64 == 0 and peak_bytes() - before > arguments.most_bytes:
            findings.setdefault("memory", data)
    last.unlink()
    for position, data in enumerate(findings.values()):
        (folder / f"{target.name}-{arguments.seed}-{position}").write_bytes(data)
    figures = {"inputs": arguments.count, "refused": refused, "slowest_s": round(slowest, 3), "memory_mib": (peak_bytes() - before) >> 20}
    print(json.dumps({**figures, "findings": list(findings)}))
    return 0


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    raise SystemExit(main())
