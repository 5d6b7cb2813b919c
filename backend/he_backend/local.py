"""Both parties in one process: convert a network, infer with it, compare with the plain network."""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable

import numpy as np

from he_backend.client.inference import Client
from he_backend.client.report import Result, compare, with_comparison
from he_backend.client.rounds import Progress
from he_backend.client.rows import CheckedRows, check_rows
from he_backend.errors import ParameterError
from he_backend.graph import Program, Reference, convert
from he_backend.inference.schedule import DEFAULT_LANES, DEFAULT_MEMORY_BYTES
from he_backend.protocol.transport import Link, MemoryLink
from he_backend.server.models import OneModel
from he_backend.server.service import CipherService

_PLAIN_ROWS = 8192  # rows that the plain network gets at once


def local_link(program: Program, *, allow_insecure: bool = False) -> Link:
    """A link to a server in this process that has one model. Being local, it also offers the clear engine."""
    return MemoryLink(CipherService(OneModel(program), allow_clear=True, allow_insecure=allow_insecure).handle)


def infer(
    program: Program | Any,
    rows: Any,
    *,
    engine: str = "auto",
    preset: str = "auto",
    packing: str = "auto",
    minimise: str = "latency",
    bits: int = 12,
    threads: int = 0,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    repeat: int = 1,
    allow_insecure: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Encrypted inference with both parties in this process, and its figures beside those of plain ONNX Runtime on the same rows.

    program: what convert returns, or anything it takes. With repeat > 1 the seconds are those of the run with the median total.
    """
    if type(repeat) is not int or repeat < 1:
        raise ParameterError(f"repeat: {repeat!r}; allowed: 1 or more")
    if not isinstance(program, Program):
        program = convert(program)
    link = local_link(program, allow_insecure=allow_insecure)
    client = Client(
        link,
        engine=engine,
        preset=preset,
        packing=packing,
        minimise=minimise,
        bits=bits,
        threads=threads,
        memory_bytes=memory_bytes,
        allow_insecure=allow_insecure,
        progress=progress,
        lanes=DEFAULT_LANES,
    )
    checked = check_rows(rows, program.inputs)
    task = client.prepare("local", len(checked))
    runs = sorted((client.infer(task, checked) for _ in range(repeat)), key=lambda run: run.report.seconds["total"])
    result = runs[(len(runs) - 1) // 2]
    reference = Reference(program, threads=threads)
    times, plain = zip(*(_plain(reference, checked) for _ in range(repeat)))
    report = with_comparison(result.report, compare(result.outputs, plain[0]), statistics.median(times))
    return Result(result.outputs, report)


def _plain(reference: Reference, rows: CheckedRows) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds that plain ONNX Runtime computes for these rows, and what it computes."""
    seconds, parts = 0.0, []
    for inputs in rows.slices(_PLAIN_ROWS):
        started = time.perf_counter()
        parts.append(reference.run(inputs))
        seconds += time.perf_counter() - started
    return seconds, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
