"""`he-nn client-serve`: the data owner's HTTP API, which encrypts for an HE-server."""

from __future__ import annotations

from dataclasses import replace

import click

from he_backend.access.credentials import Credentials
from he_backend.commands.config import config_context, show_if_asked
from he_backend.commands.credentials import credential_options
from he_backend.commands.options import errors_shown
from he_backend.commands.services import (
    ServiceOptions,
    make_metrics,
    make_tasks,
    make_uploads,
    need_web,
    protection,
    run_service,
    service_options,
    start_logging,
)
from he_backend.inference.schedule import DEFAULT_MEMORY_BYTES


@click.command("client-serve", context_settings=config_context("HE_NN_CLIENT"))
@click.option("--host", default="127.0.0.1", show_default=True, help="Whoever may call it can have rows encrypted and see predictions.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=12995, show_default=True, help="0 takes a free one.")
@click.option(
    "--server-url", default="127.0.0.1:12993", show_default=True, help="HTTP address of the HE-server, where a request names none."
)
@click.option("--fixed-server", is_flag=True, help="Take no other HE-server than that one.")
@credential_options
@service_options
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Of client steps; 0 leaves it to ONNX Runtime.")
@click.option("--memory", type=click.IntRange(min=1), default=DEFAULT_MEMORY_BYTES, show_default=True, help="Bytes for ciphertexts.")
def client_serve(
    host: str,
    http_port: int,
    server_url: str,
    fixed_server: bool,
    credentials: Credentials,
    options: ServiceOptions,
    threads: int,
    memory: int,
) -> None:
    """Serve the data owner's side until interrupted: rows, secret keys and predictions stay in this process."""
    show_if_asked()
    with errors_shown():
        start_logging(options)
        guard = protection(options, host)
        need_web()
        from he_backend.client.http_api import ClientApi
        from he_backend.web.running import listen
        from he_backend.web.watch import TaskWatch

        shown = replace(credentials, allow_plaintext=credentials.allow_plaintext or options.allow_plaintext)
        listener = listen(host, http_port)
        tasks = make_tasks("client", options)
        metrics = make_metrics("he-client", tasks)
        api = ClientApi(
            tasks,
            make_uploads(options),
            TaskWatch(metrics, options.task_seconds, options.queue_per_caller),
            server_url,
            credentials=shown,
            fixed_server=fixed_server,
            threads=threads,
            memory_bytes=memory,
        )
        click.echo(f"http {f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        run_service(api.app(options.allow_origin), metrics, guard, listener, tasks.close, options)
