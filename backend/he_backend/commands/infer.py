"""`he-nn infer`: encrypted inference, both parties here or with a server."""

from __future__ import annotations

from typing import Any, Sequence

import click
import numpy as np

from he_backend.access.credentials import Credentials
from he_backend.api import HEServer
from he_backend.client.inference import Client
from he_backend.client.report import Report, Result
from he_backend.client.rows import count_rows, load_rows
from he_backend.commands.credentials import credential_options
from he_backend.commands.options import RunOptions, errors_shown, run_options
from he_backend.commands.targets import check_file, writing
from he_backend.errors import InputError
from he_backend.graph import convert
from he_backend.graph.model import ValueSpec
from he_backend.inference.describe import size_text
from he_backend.local import infer as infer_local


@click.command("infer")
@click.argument("model")
@click.argument("rows", type=click.Path(dir_okay=False))
@click.option(
    "--server",
    help="HOST:PORT of a server's ciphertext channel, or http(s)://HOST:PORT of its HTTP API; MODEL is then a name, id or latest.",
)
@credential_options
@click.option("--out", type=click.Path(dir_okay=False), help="Write the predictions to this .npy (or .npz by output name).")
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="Warm runs; seconds are the median run's.")
@click.option("--json-errors", is_flag=True, hidden=True, help="Tell errors as JSON: for the HE-server, which runs this command.")
@run_options
def infer(
    model: str,
    rows: str,
    server: str | None,
    credentials: Credentials,
    out: str | None,
    repeat: int,
    json_errors: bool,
    options: RunOptions,
) -> None:
    """Encrypted predictions of MODEL (an ONNX file) for ROWS (.npy, or .npz by input name)."""
    with errors_shown(json_errors):
        check_file("--out", out, [".npy", ".npz"])
        values = load_rows(rows)
        if server is None:
            program = convert(model)
            _check_outputs(program.outputs, out)
            result = infer_local(program, values, repeat=repeat, **options.arguments())
        else:
            address, shown = _channel(server, credentials)
            result = _infer_there(Client(address, credentials=shown, **options.arguments()), model, values, repeat, out)
        if out is not None:
            with writing("--out", out):
                _write(result, out)
    if options.as_json:
        click.echo(Report(**{**result.report.__dict__, "output": out}).to_json())
    else:
        click.echo(report_text(result.report))
        if out:
            click.echo(f"predictions: {out}")


def _channel(server: str, credentials: Credentials) -> tuple[str, Credentials]:
    """HOST:PORT of a server's ciphertext channel, which its HTTP API names where the server is given by that, and what to show there."""
    if "://" not in server:
        return server, credentials
    service = HEServer(server, credentials=credentials)
    return service.ciphertext_address(), service.channel_credentials()


def _infer_there(client: Client, model: str, values: Any, repeat: int, out: str | None) -> Result:
    """The run with the median time of `repeat` runs at a server."""
    try:
        task = client.prepare(model, count_rows(values))
        _check_outputs(task.plan.outputs, out)
        runs = sorted((client.infer(task, values) for _ in range(repeat)), key=lambda run: run.report.seconds["total"])
        return runs[(len(runs) - 1) // 2]
    finally:
        client.close()


def report_text(report: Report) -> str:
    """The figures of one inference for people."""
    seconds = report.seconds
    lines = [
        f"{report.model}: {report.rows} rows encrypted under {report.preset} by the {report.engine} engine",
        f"  {seconds['total']:.3f} s (encrypt {seconds['encrypt']:.3f}, server {seconds['server']:.3f}, wire {seconds['wire']:.3f}, "
        f"decrypt {seconds['decrypt']:.3f}, steps {seconds['step']:.3f}; setup {seconds['setup']:.3f} once)",
        *(["  the parts overlap: two chunks of rows were under way at a time"] if report.lanes > 1 else []),
        f"  {report.rounds} rounds, {size_text(report.bytes_up)} up, {size_text(report.bytes_down)} down, "
        f"peak memory {size_text(report.peak_memory_bytes)}",
    ]
    if report.bits_of_precision is not None and report.agreement is not None and report.plain_seconds is not None:
        lines.append(
            f"  {report.agreement:.2%} of predictions agree with plain ONNX Runtime ({report.plain_seconds:.3f} s); "
            f"largest error of a score {report.max_abs_error:.2e}: "
            f"{report.bits_of_precision:.1f} bits of precision ({report.expected_bits:.1f} promised)"
        )
    else:
        lines.append(f"  at least {report.expected_bits:.1f} bits of precision")
    return "\n".join(lines)


def _check_outputs(outputs: Sequence[ValueSpec], out: str | None) -> None:
    """Raises InputError where one array would have to hold several outputs."""
    if out is not None and not out.endswith(".npz") and len(outputs) != 1:
        raise InputError(f"--out: the model has outputs {', '.join(one.name for one in outputs)}; give a file that ends in .npz")


def _write(result: Result, out: str) -> None:
    if out.endswith(".npz"):
        np.savez(out, **result.outputs)  # type: ignore[arg-type]
    else:
        np.save(out, result.output)
