"""`he-nn model`: the registry of a model owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from he_backend.commands.options import errors_shown
from he_backend.errors import InputError
from he_backend.graph import convert
from he_backend.graph.card import Card
from he_backend.server.registry import ModelRecord, Registry, default_root

_registry_option = click.option("--registry", type=click.Path(file_okay=False), default=None, help="Folder; default $HE_NN_HOME/models.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("model")
def model() -> None:
    """Add, list, show and remove the models that this machine serves."""


@model.command("add")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--type", "model_type", required=True, help="MLP, CNN, … or a name of your own.")
@click.option("--test", type=click.Path(exists=True, dir_okay=False), help="An .npz with arrays x and y: the model's test rows.")
@click.option("--owner", default="", help="Who it belongs to.")
@click.option("--card", type=click.Path(exists=True, dir_okay=False), help="JSON with features, task, classes; else the file's own card.")
@_registry_option
@_json_option
def add(file: str, model_type: str, test: str | None, owner: str, card: str | None, registry: str | None, as_json: bool) -> None:
    """Register FILE (ONNX), after checking that it can run encrypted and that its card, if any, fits."""
    with errors_shown():
        program = convert(file)
        found = Card.read(Path(file).read_bytes()) if card is None else Card.of(_read_json(card))
        found.check(program)
        meta = {**found.to_dict(), "rounds": len(program.segments)}
        record = _open(registry).add(file, model_type, test=test, owner=owner, meta=meta)
    click.echo(
        json.dumps(_figures(record)) if as_json else f"registered {record.model_name} ({record.model_id}), {len(program.segments)} rounds"
    )


@model.command("list")
@click.option("--type", "model_type", default="", help="Only this type.")
@_registry_option
@_json_option
def list_models(model_type: str, registry: str | None, as_json: bool) -> None:
    """The registered models."""
    with errors_shown():
        records = _open(registry).list(model_type)
    if as_json:
        click.echo(json.dumps([_figures(record) for record in records]))
        return
    for record in records:
        accuracy = "" if record.test_acc is None else f"  accuracy {record.test_acc:.4f}"
        click.echo(f"{record.model_name}  {record.model_type}  {record.model_id}  {record.created:%Y-%m-%d %H:%M}{accuracy}")
    if not records:
        click.echo("no models are registered; add one with: he-nn model add FILE --type NAME")


@model.command("show")
@click.argument("name")
@_registry_option
def show(name: str, registry: str | None) -> None:
    """What is known of the model NAME (name, id or latest), as JSON."""
    with errors_shown():
        click.echo(json.dumps(_figures(_open(registry).get(name)), indent=2))


@model.command("rm")
@click.argument("name")
@_registry_option
def remove(name: str, registry: str | None) -> None:
    """Remove the model NAME and its files."""
    with errors_shown():
        store = _open(registry)
        record = store.get(name)
        store.remove(record.model_id)
    click.echo(f"removed {record.model_name}")


def _open(folder: str | None) -> Registry:
    return Registry(folder or default_root())


def _read_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as problem:
        raise InputError(f"--card: {path} is not JSON ({problem})") from None


def _figures(record: ModelRecord) -> dict[str, Any]:
    return {
        "model_id": record.model_id,
        "model_name": record.model_name,
        "model_type": record.model_type,
        "test_acc": record.test_acc,
        "model_owner": record.owner,
        "created": record.created.isoformat(),
        "sha256": record.sha256,
        "meta": dict(record.meta),
    }
