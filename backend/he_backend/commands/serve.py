"""`he-nn serve`: the model owner's ciphertext channel."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click

from he_backend.commands.options import errors_shown
from he_backend.graph import convert
from he_backend.server.models import OneModel
from he_backend.server.serving import Server


@click.command("serve")
@click.option("--registry", type=click.Path(file_okay=False), default=None, help="Folder of models; default $HE_NN_HOME/models.")
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="Serve this one ONNX file instead of a registry.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=34000, show_default=True, help="Of the ciphertext channel; 0 takes a free one."
)
@click.option("--allow-insecure", is_flag=True, help="Let clients use parameters that say security_level 0.")
@click.option("--allow-clear", is_flag=True, help="Let clients use the engine that does not encrypt.")
def serve(registry: str | None, model: str | None, host: str, port: int, allow_insecure: bool, allow_clear: bool) -> None:
    """Serve encrypted inference until interrupted."""
    with errors_shown():
        models = OneModel(convert(model)) if model else None
        server = Server(registry, models=models, allow_insecure=allow_insecure, allow_clear=allow_clear)
        handle = server.start(f"{host}:{port}")
    stopped = threading.Event()

    def stop(*_: Any) -> None:
        stopped.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    click.echo(f"serving {host}:{handle.port}")
    stopped.wait()
    handle.stop(5.0)
