"""What `he-nn serve` and `he-nn client-serve` have in common: their options, who may call, tasks, logs, limits."""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import click

from he_backend.access.certificates import load_roots
from he_backend.access.exposure import Exposure
from he_backend.access.gate import TokenGate
from he_backend.access.renewal import RenewedIdentity
from he_backend.access.tokens import TokenFile, default_tokens
from he_backend.commands.config import with_config
from he_backend.errors import EngineError, ParameterError

_OPTIONS = (
    click.option("--database", envvar="HE_NN_DATABASE", help="SQLAlchemy URL of the task records; default SQLite in $HE_NN_HOME."),
    click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Inferences and evaluations at a time."),
    click.option("--queue", type=click.IntRange(min=0), default=64, show_default=True, help="That may wait; then 503."),
    click.option(
        "--upload-bytes", type=click.IntRange(min=1), default=1 << 30, show_default=True, help="Of uploaded files, all kept in memory."
    ),
)
_PROTECTION = (
    click.option(
        "--queue-per-caller", type=click.IntRange(min=1), help="Inferences and evaluations of one token; then 503. Default: no limit."
    ),
    click.option("--max-requests", type=click.IntRange(min=1), default=256, show_default=True, help="HTTP requests at a time; then 503."),
    click.option("--task-seconds", type=click.FloatRange(0.1, 1e7), default=3600.0, show_default=True, help="That one inference may work."),
    click.option(
        "--idle-seconds", type=click.FloatRange(0.1, 1e7), default=60.0, show_default=True, help="That a request may stand still."
    ),
    click.option(
        "--grace-seconds", type=click.IntRange(min=0), default=10, show_default=True, help="For requests and rounds under way at the end."
    ),
    click.option("--tokens", default=None, help="File of API tokens (he-nn token); default $HE_NN_HOME/tokens.json; '' asks nobody."),
    click.option("--tls-cert", type=click.Path(dir_okay=False), help="PEM file of this service's certificate chain: turns TLS on."),
    click.option("--tls-key", type=click.Path(dir_okay=False), help="PEM file of its key."),
    click.option("--client-ca", type=click.Path(dir_okay=False), help="PEM file: callers must have a certificate of this authority."),
    click.option("--allow-anonymous", is_flag=True, help="Listen where other machines reach it, and ask nobody for a token."),
    click.option("--allow-plaintext", is_flag=True, help="Let tokens and rows cross the network without TLS."),
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning", show_default=True),
    click.option("--allow-origin", multiple=True, help="Another page that may ask, such as https://he.example.org behind a proxy."),
)


@dataclass(frozen=True)
class ServiceOptions:
    """The options of both services, as given."""

    database: str | None
    workers: int
    queue: int
    upload_bytes: int
    queue_per_caller: int | None
    max_requests: int
    task_seconds: float
    idle_seconds: float
    grace_seconds: int
    tokens: str | None
    tls_cert: str | None
    tls_key: str | None
    client_ca: str | None
    allow_anonymous: bool
    allow_plaintext: bool
    log_format: str
    log_level: str
    allow_origin: tuple[str, ...]


@dataclass(frozen=True)
class Protection:
    """What protects a service: the gate that tokens open, its certificate, and the authority that callers' certificates must be of."""

    gate: TokenGate
    identities: RenewedIdentity | None
    client_ca: str
    client_roots: bytes | None


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of both services, which the command gets as `options`, and --config and --show-config."""

    @functools.wraps(command)
    def with_options(**given: Any) -> Any:
        options = ServiceOptions(**{field.name: given.pop(field.name) for field in dataclasses.fields(ServiceOptions)})
        return command(options=options, **given)

    wrapped: Callable[..., Any] = with_options
    for option in reversed((*_OPTIONS, *_PROTECTION)):
        wrapped = option(wrapped)
    return with_config(wrapped)


def start_logging(options: ServiceOptions) -> None:
    """Logs go to standard error from here on."""
    from he_backend.web.logs import configure

    configure(options.log_format, options.log_level)


def protection(options: ServiceOptions, host: str) -> Protection:
    """The checked protection of a service that will listen at `host`. Raises ParameterError."""
    if options.tokens and not Path(options.tokens).expanduser().exists():
        raise ParameterError(f"--tokens: there is no {options.tokens}; make it with: he-nn token add NAME --tokens {options.tokens}")
    file = None if options.tokens == "" else TokenFile(options.tokens or default_tokens())
    identities = None
    if options.tls_cert or options.tls_key:
        identities = RenewedIdentity(options.tls_cert or "", options.tls_key or "", "--tls-cert and --tls-key")
    roots = load_roots(options.client_ca, "--client-ca") if options.client_ca else None
    gate = TokenGate(file)
    exposure = Exposure(host, gate.required, identities is not None, roots is not None, options.allow_anonymous, options.allow_plaintext)
    exposure.check()
    if not exposure.is_local and not gate.required:
        logging.getLogger(__name__).warning("%s asks nobody for a token", host)
    return Protection(gate, identities, options.client_ca or "", roots)


def need_web() -> None:
    """Raises EngineError when the packages of the HTTP services are not installed."""
    try:
        import fastapi
        import multipart
        import prometheus_client
        import uvicorn
    except ImportError as missing:
        raise EngineError(f"the HTTP services need {missing.name}: pip install 'he-nn[server]'") from None
    del fastapi, multipart, prometheus_client, uvicorn


def make_tasks(service: str, options: ServiceOptions) -> Any:
    """The queue and records of one service."""
    from he_backend.web.records import Records, default_database
    from he_backend.web.tasks import Tasks

    return Tasks(Records(options.database or default_database(service), service), options.workers, options.queue)


def make_uploads(options: ServiceOptions) -> Any:
    """The uploads of one service, each its caller's own."""
    from he_backend.web.callers import current_caller
    from he_backend.web.uploads import Uploads

    return Uploads(options.upload_bytes, owner=lambda: current_caller().name)


def make_metrics(service: str, tasks: Any) -> Any:
    """The metrics of one service."""
    from he_backend.web.metrics import Metrics

    return Metrics(service, tasks.figures)


def run_service(api: Any, metrics: Any, guard: Protection, listener: Any, on_stop: Callable[[], object], options: ServiceOptions) -> None:
    """Serves an API behind its door until it is told to stop."""
    from he_backend.access.tls_contexts import server_context
    from he_backend.web.door import Door, DoorLimits
    from he_backend.web.running import run

    tls = server_context(guard.identities, guard.client_ca) if guard.identities is not None else None
    door = Door(api, guard.gate, metrics, DoorLimits(options.max_requests, options.idle_seconds))
    waiting = 2 * options.max_requests + 64  # connections that ask nothing: file descriptors are not without end
    run(door, listener, on_stop, tls, options.grace_seconds, idle_s=options.idle_seconds, most_waiting=waiting)
