"""`he-nn token`: who may call this machine's services."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import click

from he_backend.access.callers import ROLES, USER
from he_backend.access.tokens import Token, TokenFile, default_tokens
from he_backend.commands.options import errors_shown

_file_option = click.option(
    "--tokens", "path", type=click.Path(dir_okay=False), envvar="HE_NN_TOKENS", help="File; default $HE_NN_HOME/tokens.json."
)


@click.group("token")
def token() -> None:
    """Make, list and remove API tokens. As soon as there is one, the services that use the file ask every caller for one."""


@token.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default=USER, show_default=True, help="monitor: the metrics and nothing else.")
@click.option("--model", "models", multiple=True, help="A type, name or id that it may use; may be given again. Without it: all.")
@click.option("--days", type=int, default=0, help="That it is valid; 0: until it is removed.")
@_file_option
def add(name: str, role: str, models: tuple[str, ...], days: int, path: str | None) -> None:
    """Make a token for NAME and print it, once: only its hash is kept."""
    with errors_shown():
        made = _open(path).add(name, role, models, days)
    click.echo(made)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_file_option
def list_tokens(as_json: bool, path: str | None) -> None:
    """The tokens by name; what they are is kept nowhere."""
    with errors_shown():
        found = _open(path).list()
    if as_json:
        click.echo(json.dumps([_figures(one) for one in found]))
        return
    for one in found:
        models = ", ".join(one.models) or "all models"
        until = f", until {_day(one.expires)}" if one.expires else ""
        click.echo(f"{one.name}  {one.role}  {models}  since {_day(one.created)}{until}")
    if not found:
        click.echo("there are no tokens; make one with: he-nn token add NAME")


@token.command("rm")
@click.argument("name")
@_file_option
def remove(name: str, path: str | None) -> None:
    """Remove the token of NAME; running services refuse it from now on."""
    with errors_shown():
        removed = _open(path).remove(name)
    click.echo(f"removed {removed.name}")


def _open(path: str | None) -> TokenFile:
    return TokenFile(path or default_tokens())


def _figures(one: Token) -> dict[str, object]:
    return {"name": one.name, "role": one.role, "models": list(one.models), "created": one.created, "expires": one.expires}


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"
