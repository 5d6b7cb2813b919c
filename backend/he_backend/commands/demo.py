"""`he-nn demo`: a server process with a network, a client process with digits, encrypted rows between them."""

from __future__ import annotations

import subprocess
import sys
import time

import click
import numpy as np

from he_backend.access.credentials import Credentials
from he_backend.client.inference import Client
from he_backend.client.report import compare, with_comparison
from he_backend.commands.infer import report_text
from he_backend.commands.options import RunOptions, errors_shown, run_options
from he_backend.errors import TransportError
from he_backend.graph import Reference, convert
from he_backend.zoo import shipped


@click.command("demo")
@click.option("--rows", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--model", "model_type", default="MLP", show_default=True, help="A type of the zoo, trained on scikit-learn's digits.")
@run_options
def demo(rows: int, model_type: str, options: RunOptions) -> None:
    """Encrypted digits between two local processes."""
    with errors_shown():
        network = shipped(model_type, "digits")
        x, y = network.load_test()
        x, y = x[:rows], y[:rows]
        command = [sys.executable, "-m", "he_backend.cli", "serve", "--model", str(network.onnx_path), "--port", "0", "--allow-clear"]
        command += ["--tokens", ""]  # asks nobody: it serves this command alone, on loopback
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = _address(server)
            client = Client(address, credentials=Credentials(), **options.arguments())
            result = client.infer("local", x)
            client.close()
        finally:
            server.terminate()
            server.wait(10)
        reference = Reference(convert(network.onnx_path))
        started = time.perf_counter()
        plain = reference.run(x)
        seconds = time.perf_counter() - started
    report = with_comparison(result.report, compare(result.outputs, plain), seconds)
    if options.as_json:
        click.echo(report.to_json())
        return
    encrypted, clear = result.output.argmax(axis=1), next(iter(plain.values())).argmax(axis=1)
    click.echo(f"predictions of the first rows: {' '.join(map(str, encrypted[:20]))}")
    click.echo(f"labels of the first rows:      {' '.join(map(str, np.asarray(y)[:20]))}")
    click.echo(f"accuracy: plain {np.mean(clear == y):.2%}, encrypted {np.mean(encrypted == y):.2%}")
    click.echo(report_text(report))


def _address(server: subprocess.Popen[str]) -> str:
    """Where the server listens, from the line that it prints."""
    assert server.stdout is not None
    line = server.stdout.readline().split()
    if len(line) != 2 or line[0] != "serving":
        raise TransportError("the demo's server did not start; its messages are above")
    return line[1]
