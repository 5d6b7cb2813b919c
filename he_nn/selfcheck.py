"""`python -m he_nn.selfcheck`: whether encrypted inference works in this Python: versions, engine, and a known network on known rows."""

from __future__ import annotations

import sys
import time
from importlib import metadata
from typing import Iterator

import click

PACKAGES = ("numpy", "protobuf", "grpcio", "onnx", "onnxruntime", "tenseal", "SQLAlchemy", "cryptography")
ROWS = 32


def main() -> int:
    """Prints one line for each finding; the exit status is 0 when the encrypted predictions are the plain ones."""
    click.echo(f"python       {sys.version.split()[0]} in {sys.prefix}")
    click.echo(f"packages     {', '.join(_versions())}")
    try:
        return _infer()
    except Exception as problem:  # noqa: BLE001 - the person at the terminal shall read it, whatever it is
        click.echo(f"he-nn        does not work here: {type(problem).__name__}: {problem}")
        return 1


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} MISSING"


def _infer() -> int:
    from he_backend import local, zoo
    from he_backend.ckks.engines import default_engine
    from he_backend.version import VERSION

    click.echo(f"he-nn        {VERSION}, engine {default_engine()}")
    network = zoo.shipped("MLP", "digits")
    rows = network.load_test()[0][:ROWS]
    started = time.perf_counter()
    report = local.infer(str(network.onnx_path), rows, preset="N11_L1").report
    seconds = time.perf_counter() - started
    agrees = report.agreement == 1.0
    how = "the predictions are those of the plain network" if agrees else "the predictions are NOT those of the plain network"
    click.echo(f"self-test    {len(rows)} rows encrypted under {report.preset} in {seconds:.1f} s, {report.rounds} rounds: {how}")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
