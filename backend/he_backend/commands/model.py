"""`he-nn model`: the registry of a model owner."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Callable

import click

from he_backend.commands.options import errors_shown, registry_database
from he_backend.errors import InputError
from he_backend.evaluation import plain_quality
from he_backend.graph import convert
from he_backend.graph.card import Card
from he_backend.server.model_files import read_source, unpack_test_set
from he_backend.server.registry import ModelRecord, Registry, default_root

_folder_option = click.option("--registry", type=click.Path(file_okay=False), default=None, help="Folder; default $HE_NN_HOME/models.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
Opener = Callable[[], Registry]


def _registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --registry and --registry-database; the command gets what opens it as `registry`."""

    @functools.wraps(command)
    def with_registry(registry: str | None, registry_database: str | None, **given: Any) -> Any:
        return command(registry=lambda: Registry(registry or default_root(), registry_database), **given)

    return _folder_option(registry_database(with_registry))


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
def add(file: str, model_type: str, test: str | None, owner: str, card: str | None, registry: Opener, as_json: bool) -> None:
    """Register FILE (ONNX), after checking that it can run encrypted, that its card fits, and measuring it in the clear (--test)."""
    with errors_shown():
        program = convert(file)
        found = Card.read(Path(file).read_bytes()) if card is None else Card.of(_read_json(card))
        found.check(program)
        rows = None if test is None else unpack_test_set(read_source(test, "test set"))
        measured = {} if rows is None else plain_quality(program, *rows, card=found)
        shapes = [list(spec.shape) for spec in program.inputs]
        meta = {**found.to_dict(), "rounds": program.rounds, "input_shape": shapes[0] if len(shapes) == 1 else shapes}
        record = registry().add(file, model_type, test=rows, test_acc=measured.get("test_acc"), owner=owner, meta=meta)
    shown = "".join(f", plain {name.replace('test_acc', 'accuracy')} {value:.4f}" for name, value in measured.items())
    line = f"registered {record.model_name} ({record.model_id}), {program.rounds} rounds{shown}"
    click.echo(json.dumps({**_figures(record), **measured}) if as_json else line)


@model.command("list")
@click.option("--type", "model_type", default="", help="Only this type.")
@_registry_option
@_json_option
def list_models(model_type: str, registry: Opener, as_json: bool) -> None:
    """The registered models."""
    with errors_shown():
        records = registry().list(model_type)
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
def show(name: str, registry: Opener) -> None:
    """What is known of the model NAME (name, id or latest), as JSON."""
    with errors_shown():
        click.echo(json.dumps(_figures(registry().get(name)), indent=2))


@model.command("rm")
@click.argument("name")
@_registry_option
def remove(name: str, registry: Opener) -> None:
    """Remove the model NAME and its files."""
    with errors_shown():
        store = registry()
        record = store.get(name)
        store.remove(record.model_id)
    click.echo(f"removed {record.model_name}")


def _read_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
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
