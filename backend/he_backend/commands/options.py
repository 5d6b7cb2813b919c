"""Options that mean the same in every command, and how errors and progress are shown."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

import click

from he_backend.errors import HeError
from he_backend.inference.plan import DEFAULT_BITS
from he_backend.inference.schedule import DEFAULT_MEMORY_BYTES
from he_backend.protocol.failures import failure_of

if TYPE_CHECKING:  # `he-nn serve` must not load the client's half, where secret keys are
    from he_backend.client.rounds import Progress

_RUN_OPTIONS = (
    click.option("--preset", default="auto", show_default=True, help="N11_L1, N11_L1_small, N12_L4, N13_L8, a JSON file, or auto."),
    click.option("--engine", type=click.Choice(["auto", "native", "seal", "clear"]), default="auto", show_default=True),
    click.option("--packing", type=click.Choice(["auto", "batch", "grid", "product"]), default="auto", show_default=True),
    click.option(
        "--minimise", type=click.Choice(["latency", "bytes"]), default="latency", show_default=True, help="What packings are chosen by."
    ),
    click.option("--bits", type=int, default=DEFAULT_BITS, show_default=True, help="Bits of precision wanted."),
    click.option("--threads", type=click.IntRange(min=0), default=0, help="For each party; 0 means all cores."),
    click.option("--memory", type=click.IntRange(min=1), default=DEFAULT_MEMORY_BYTES, show_default=True, help="Bytes for ciphertexts."),
    click.option("--allow-insecure", is_flag=True, help="Take a parameter file that says security_level 0."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
)
registry_database = click.option(
    "--registry-database", envvar="HE_NN_REGISTRY_DATABASE", help="SQLAlchemy URL of the models' records; default SQLite in the registry."
)


@dataclass(frozen=True)
class RunOptions:
    """How an inference is run: the options of every command that plans or runs one."""

    preset: str
    engine: str
    packing: str
    minimise: str
    bits: int
    threads: int
    memory: int
    allow_insecure: bool
    as_json: bool

    def arguments(self) -> dict[str, Any]:
        """The same as keyword arguments of Client and of he_backend.infer, with progress shown on a terminal."""
        return {
            "preset": self.preset,
            "engine": self.engine,
            "packing": self.packing,
            "minimise": self.minimise,
            "bits": self.bits,
            "threads": self.threads,
            "memory_bytes": self.memory,
            "allow_insecure": self.allow_insecure,
            "progress": progress_shown(),
        }


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --preset, --engine, --packing, --minimise, --bits, --threads, --memory, --allow-insecure and --json; the command gets them as
    `options`."""

    @functools.wraps(command)
    def with_options(**given: Any) -> Any:
        options = RunOptions(**{field.name: given.pop(field.name) for field in dataclasses.fields(RunOptions)})
        return command(options=options, **given)

    wrapped: Callable[..., Any] = with_options
    for option in reversed(_RUN_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


@contextmanager
def errors_shown(as_json: bool = False) -> Iterator[None]:
    """Our errors as one message and exit status 1, without a trace; `as_json` as {"error": kind, "message"} for a program that called."""
    try:
        yield
    except HeError as error:
        if not as_json:
            raise click.ClickException(str(error)) from None
        failure = failure_of(error)
        click.echo(json.dumps({"error": failure.kind, "message": failure.message}), err=True)
        raise click.exceptions.Exit(1) from None


def progress_shown() -> Callable[[Progress], None] | None:
    """Prints where an inference is on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        return None

    def show(at: Progress) -> None:
        done = at.chunk * at.rounds + at.round
        last = done + 1 == at.chunks * at.rounds
        click.echo(f"\r  round {at.round + 1}/{at.rounds} of chunk {at.chunk + 1}/{at.chunks}", err=True, nl=last)

    return show
