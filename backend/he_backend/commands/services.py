"""What `he-nn serve` and `he-nn client-serve` have in common: their options, tasks and uploads."""

from __future__ import annotations

from typing import Any, Callable

import click

from he_backend.errors import EngineError

_OPTIONS = (
    click.option("--database", envvar="HE_NN_DATABASE", help="SQLAlchemy URL of the task records; default SQLite in $HE_NN_HOME."),
    click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Inferences and evaluations at a time."),
    click.option("--queue", "waiting", type=click.IntRange(min=0), default=64, show_default=True, help="That may wait; then 503."),
    click.option(
        "--upload-bytes", type=click.IntRange(min=1), default=1 << 30, show_default=True, help="Of uploaded files, all kept in memory."
    ),
    click.option("--allow-origin", multiple=True, help="Another page that may ask, such as https://he.example.org behind a proxy."),
)


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --database, --workers, --queue, --upload-bytes and --allow-origin."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def need_web() -> None:
    """Raises EngineError when the packages of the HTTP services are not installed."""
    try:
        import fastapi
        import multipart
        import uvicorn
    except ImportError as missing:
        raise EngineError(f"the HTTP services need {missing.name}: pip install 'he-nn[server]'") from None
    del fastapi, multipart, uvicorn


def make_tasks(service: str, database: str | None, workers: int, waiting: int) -> Any:
    """The queue and records of one service."""
    from he_backend.web.records import Records, default_database
    from he_backend.web.tasks import Tasks

    return Tasks(Records(database or default_database(service), service), workers, waiting)
