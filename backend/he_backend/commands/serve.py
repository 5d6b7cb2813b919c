"""`he-nn serve`: the model owner's ciphertext channel and HTTP API."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click

from he_backend.commands.options import errors_shown
from he_backend.commands.options import registry_database as registry_database_option
from he_backend.commands.services import make_tasks, need_web, service_options
from he_backend.graph import convert
from he_backend.server.models import OneModel, RegistryModels
from he_backend.server.registry import Registry, default_root
from he_backend.server.serving import Server

HTTP_PORT = 12993


@click.command("serve")
@click.option("--registry", type=click.Path(file_okay=False), default=None, help="Folder of models; default $HE_NN_HOME/models.")
@registry_database_option
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="Serve this one ONNX file instead, without the HTTP API.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=34000, show_default=True, help="Of the ciphertext channel; 0 takes a free one."
)
@click.option("--http-port", type=click.IntRange(0, 65535), default=HTTP_PORT, show_default=True, help="Of the HTTP API; 0: a free one.")
@click.option("--no-http", is_flag=True, help="The ciphertext channel alone.")
@click.option("--advertise", default="", help="HOST:PORT at which clients reach the ciphertext channel, where it is not this host's.")
@service_options
@click.option("--allow-insecure", is_flag=True, help="Let clients use parameters that say security_level 0.")
@click.option("--allow-clear", is_flag=True, help="Let clients use the engine that does not encrypt.")
def serve(
    registry: str | None,
    registry_database: str | None,
    model: str | None,
    host: str,
    port: int,
    http_port: int,
    no_http: bool,
    advertise: str,
    database: str | None,
    workers: int,
    waiting: int,
    upload_bytes: int,
    allow_origin: tuple[str, ...],
    allow_insecure: bool,
    allow_clear: bool,
) -> None:
    """Serve models until interrupted: encrypted inference on the ciphertext channel, the rest over HTTP."""
    address = f"[{host}]" if ":" in host else host
    with errors_shown():
        if model or no_http:
            models = OneModel(convert(model)) if model else RegistryModels(Registry(registry or default_root(), registry_database))
            handle = Server(models=models, allow_insecure=allow_insecure, allow_clear=allow_clear).start(f"{address}:{port}")
            _until_stopped(f"serving {address}:{handle.port}")
            handle.stop(5.0)
            return
        need_web()
        from he_backend.server.http_api import ServerApi
        from he_backend.server.owner import Owner
        from he_backend.web.running import listen, run
        from he_backend.web.uploads import Uploads

        store = Registry(registry or default_root(), registry_database)
        programs = RegistryModels(store)
        listener = listen(host, http_port)
        tasks = make_tasks("server", database, workers, waiting)
        handle = Server(models=programs, allow_insecure=allow_insecure, allow_clear=allow_clear).start(f"{address}:{port}")
        own = f"127.0.0.1:{handle.port}" if host in ("0.0.0.0", "::") else f"{address}:{handle.port}"
        api = ServerApi(Owner(store, programs), tasks, Uploads(upload_bytes), own, handle.port, advertise)

        def stop() -> None:
            handle.stop(5.0)
            tasks.close()

        click.echo(f"serving {address}:{handle.port}")
        click.echo(f"http {address}:{listener.getsockname()[1]}")
        run(api.app(allow_origin), listener, stop)


def _until_stopped(line: str) -> None:
    stopped = threading.Event()

    def stop(*_: Any) -> None:
        stopped.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    click.echo(line)
    stopped.wait()
