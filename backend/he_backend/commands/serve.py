"""`he-nn serve`: the model owner's ciphertext channel and HTTP API."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from dataclasses import dataclass
from typing import Any, Callable

import click

from he_backend.access.gate import TokenGate
from he_backend.ckks.weights import DEFAULT_WEIGHT_BYTES
from he_backend.commands.config import config_context, show_if_asked
from he_backend.commands.options import errors_shown
from he_backend.commands.options import registry_database as registry_database_option
from he_backend.commands.services import (
    Protection,
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
from he_backend.graph import convert
from he_backend.protocol.grpc_transport import ServerLimits, ServerTls
from he_backend.protocol.session import MAX_CALL_BYTES
from he_backend.server.models import ModelSource, OneModel, RegistryModels
from he_backend.server.registry import Registry, default_root
from he_backend.server.service import RoundFigures
from he_backend.server.serving import Server

HTTP_PORT = 12993
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Channel:
    """How the ciphertext channel is served."""

    host: str
    port: int
    allow_insecure: bool
    allow_clear: bool
    max_calls: int
    call_bytes: int
    call_seconds: float
    weight_bytes: int

    @property
    def address(self) -> str:
        """The host as in HOST:PORT."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def server(self, models: ModelSource, gate: TokenGate, observe: Callable[[RoundFigures], None]) -> Server:
        """Answers the calls that the gate lets in."""
        return Server(
            models=models,
            gate=gate,
            allow_insecure=self.allow_insecure,
            allow_clear=self.allow_clear,
            max_call_bytes=self.call_bytes,
            weight_bytes=self.weight_bytes,
            observe=observe,
        )

    def start(self, server: Server, guard: Protection) -> Any:
        """The handle of the channel that others reach."""
        limits = ServerLimits(self.max_calls, self.call_seconds)
        return server.start(f"{self.address}:{self.port}", limits=limits, tls=_tls(guard))


def _tls(guard: Protection) -> ServerTls | None:
    """The channel's TLS, whose certificate may be renewed."""
    if guard.identities is None:
        return None
    identities, shown = guard.identities, [guard.identities.current()]

    def renewed() -> tuple[bytes, bytes] | None:
        identity = identities.current()
        if identity is shown[0]:
            return None
        shown[0] = identity
        return identity.key, identity.certificate

    return ServerTls(shown[0].key, shown[0].certificate, guard.client_roots, renewed)


@click.command("serve", context_settings=config_context("HE_NN_SERVER"))
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
@click.option("--max-calls", type=click.IntRange(min=8), default=64, show_default=True, help="Of the ciphertext channel at a time.")
@click.option("--call-bytes", type=click.IntRange(min=1 << 20), default=MAX_CALL_BYTES, show_default=True, help="Of ciphertexts in a call.")
@click.option("--call-seconds", type=click.FloatRange(0.1, 1e7), default=3600.0, show_default=True, help="That a call may last.")
@click.option(
    "--weights-memory",
    "weight_bytes",
    type=click.IntRange(min=0),
    default=DEFAULT_WEIGHT_BYTES,
    show_default=True,
    help="Bytes of transformed weights held in memory; more lie in temporary files.",
)
@click.option("--allow-insecure", is_flag=True, help="Let clients use parameters that say security_level 0.")
@click.option("--allow-clear", is_flag=True, help="Let clients use the engine that does not encrypt.")
def serve(
    registry: str | None,
    registry_database: str | None,
    model: str | None,
    http_port: int,
    no_http: bool,
    advertise: str,
    options: ServiceOptions,
    **channel: Any,
) -> None:
    """Serve models until interrupted: encrypted inference on the ciphertext channel, the rest over HTTP."""
    show_if_asked()
    with errors_shown():
        start_logging(options)
        settings = _Channel(**channel)
        guard = protection(options, settings.host)
        if model or no_http:
            models: ModelSource = (
                OneModel(convert(model)) if model else RegistryModels(Registry(registry or default_root(), registry_database))
            )
            handle = settings.start(settings.server(models, guard.gate, _log_round), guard)
            _until_stopped(f"serving {settings.address}:{handle.port}")
            handle.stop(options.grace_seconds)
            return
        need_web()
        _serve_http((registry or default_root(), registry_database), http_port, advertise, options, settings, guard)


def _serve_http(
    registry: tuple[Any, str | None], http_port: int, advertise: str, options: ServiceOptions, settings: _Channel, guard: Protection
) -> None:
    from he_backend.server.http_api import ServerApi
    from he_backend.server.owner import Owner
    from he_backend.server.permitted import PermittedRegistry
    from he_backend.web.running import listen
    from he_backend.web.watch import TaskWatch

    with contextlib.ExitStack() as undo:
        programs = RegistryModels(Registry(*registry))
        listener = undo.enter_context(listen(settings.host, http_port))
        tasks = make_tasks("server", options)
        undo.callback(tasks.close)
        metrics = make_metrics("he-server", tasks)

        def observe(this: RoundFigures) -> None:
            metrics.round(this.model_name, this.segment, this.seconds, this.bytes_in, this.bytes_out)
            _log_round(this)

        server = settings.server(programs, guard.gate, observe)
        handle = settings.start(server, guard)
        undo.callback(handle.stop, options.grace_seconds)
        # The service's own simulated clients: by a channel that only this machine reaches, with a token that only this process knows.
        inner = server.start("127.0.0.1:0")
        undo.callback(inner.stop, options.grace_seconds)
        owner = Owner(PermittedRegistry(*registry), programs, guard.gate.inner_token, options.task_seconds)
        watch = TaskWatch(metrics, options.task_seconds, options.queue_per_caller)
        api = ServerApi(owner, tasks, make_uploads(options), watch, f"127.0.0.1:{inner.port}", handle.port, advertise)
        click.echo(f"serving {settings.address}:{handle.port}")
        click.echo(f"http {settings.address}:{listener.getsockname()[1]}")
        run_service(api.app(options.allow_origin), metrics, guard, listener, undo.pop_all().close, options)


def _log_round(this: RoundFigures) -> None:
    extra = {"task_id": this.task_id, "caller": this.caller, "model": this.model_name, "segment": this.segment}
    sizes = {"seconds": round(this.seconds, 4), "bytes_in": this.bytes_in, "bytes_out": this.bytes_out}
    _log.info("round answered", extra={**extra, **sizes})


def _until_stopped(line: str) -> None:
    stopped = threading.Event()

    def stop(*_: Any) -> None:
        stopped.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    click.echo(line)
    stopped.wait()
