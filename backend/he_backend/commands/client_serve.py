"""`he-nn client-serve`: the data owner's HTTP API, which encrypts for an HE-server."""

from __future__ import annotations

import click

from he_backend.commands.options import errors_shown
from he_backend.commands.services import make_tasks, need_web, service_options
from he_backend.inference.plan import DEFAULT_MEMORY_BYTES


@click.command("client-serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Whoever reaches it can have rows encrypted and see predictions.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=12995, show_default=True, help="0 takes a free one.")
@click.option(
    "--server-url", default="127.0.0.1:12993", show_default=True, help="HTTP address of the HE-server, where a request names none."
)
@click.option("--fixed-server", is_flag=True, help="Take no other HE-server than that one.")
@service_options
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Of client steps; 0 leaves it to ONNX Runtime.")
@click.option("--memory", type=click.IntRange(min=1), default=DEFAULT_MEMORY_BYTES, show_default=True, help="Bytes for ciphertexts.")
def client_serve(
    host: str,
    http_port: int,
    server_url: str,
    fixed_server: bool,
    database: str | None,
    workers: int,
    waiting: int,
    upload_bytes: int,
    allow_origin: tuple[str, ...],
    threads: int,
    memory: int,
) -> None:
    """Serve the data owner's side until interrupted: rows, secret keys and predictions stay in this process."""
    with errors_shown():
        need_web()
        from he_backend.client.http_api import ClientApi
        from he_backend.web.running import listen, run
        from he_backend.web.uploads import Uploads

        listener = listen(host, http_port)
        tasks = make_tasks("client", database, workers, waiting)
        api = ClientApi(tasks, Uploads(upload_bytes), server_url, fixed_server=fixed_server, threads=threads, memory_bytes=memory)
        click.echo(f"http {f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        run(api.app(allow_origin), listener, tasks.close)
