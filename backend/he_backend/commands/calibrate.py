"""`he-nn calibrate`: what this machine's primitives cost, so that plans choose packings by it."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import click

from he_backend.commands.options import errors_shown
from he_backend.commands.targets import check_folder, writing
from he_backend.inference.cost import Costs, costs_path, save_costs

_ECHO_BYTES = 16 << 20


@click.command("calibrate")
@click.option("--out", type=click.Path(dir_okay=False), default=None, help="File; default $HE_NN_HOME/costs.json, which plans read.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Cores to use; 0: all.")
@click.option("--dry-run", is_flag=True, help="Measure and print, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def calibrate(out: str | None, threads: int, dry_run: bool, as_json: bool) -> None:
    """Measure this machine, in a few seconds, and keep the result for the planner. Replicas of one server must share one result."""
    with errors_shown():
        from he_backend.bench.calibration import measure
        from he_backend.ckks.engines import check_engine, usable_cores

        check_engine("native")
        path = Path(out) if out else costs_path()
        if not dry_run:
            check_folder("--out", str(path.parent))
        measured = {**measure(threads or usable_cores()), "byte": _byte_nanoseconds()}
        costs = Costs(**{name: round(value, 4) for name, value in measured.items()})
        if not dry_run:
            with writing("--out", path):
                save_costs(costs, path)
    if as_json:
        click.echo(json.dumps(asdict(costs)))
        return
    click.echo(f"{'nanoseconds per coefficient':28} {'here':>8} {'default':>8}")
    for name, value in asdict(costs).items():
        click.echo(f"{name:28} {value:8.3f} {getattr(Costs(), name):8.3f}")
    click.echo("nothing written" if dry_run else f"written to {path}")


def _byte_nanoseconds() -> float:
    """A byte that crosses the ciphertext channel on this machine, in one direction."""
    from he_backend.protocol.grpc_transport import GrpcLink, serve

    block = bytes(1 << 20)
    server = serve(lambda frames: iter(list(frames)[:1]), "127.0.0.1:0")
    link = GrpcLink(f"127.0.0.1:{server.port}")
    try:
        seconds = []
        for _ in range(6):
            started = time.perf_counter()
            for _ in link.exchange(block for _ in range(_ECHO_BYTES >> 20)):
                pass
            seconds.append(time.perf_counter() - started)
    finally:
        link.close()
        server.stop(0)
    return statistics.median(seconds[1:]) / _ECHO_BYTES * 1e9
