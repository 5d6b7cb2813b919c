"""`he-nn train-table`: a small network for a table of numbers, trained on the model owner's own rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from he_backend.commands.options import errors_shown
from he_backend.commands.targets import check_folder, writing
from he_backend.graph.card import TASKS
from he_backend.zoo.tabular import read_table, save_table_model, train_table


@click.command("train-table")
@click.argument("file", metavar="TABLE.csv", type=click.Path(exists=True, dir_okay=False))
@click.option("--label", default="y", show_default=True, help="The column to predict.")
@click.option(
    "--id", "ids", type=str, multiple=True, default=("id", "sid"), show_default=True, help="A column that is no feature; may be repeated."
)
@click.option("--task", type=click.Choice(TASKS), default=None, help="By default told by the labels.")
@click.option("--hidden", default="32,16", show_default=True, help="Sizes of the hidden layers.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the split, the weights and the order of rows.")
@click.option("--epochs", type=click.IntRange(min=1), default=200, show_default=True, help="Passes over the training rows, at most.")
@click.option("--out", type=click.Path(file_okay=False), default="models", show_default=True, help="Folder for the result.")
@click.option("--name", default="", help="Of the files; by default that of the table.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def train_table_command(
    file: str, label: str, ids: tuple[str, ...], task: str | None, hidden: str, seed: int, epochs: int, out: str, name: str, as_json: bool
) -> None:
    """Train a network on TABLE.csv and save it as ONNX with its card (columns, task, classes), and its held-out rows as .npz."""
    try:
        sizes = [int(size) for size in hidden.split(",")]
    except ValueError:
        raise click.BadParameter(f"{hidden!r}; allowed: whole numbers with commas between them", param_hint="--hidden") from None
    with errors_shown():
        check_folder("--out", out)
        model = train_table(read_table(file, label, ids), task or "", sizes, seed, epochs=epochs)
        with writing("--out", out):
            path = save_table_model(model, Path(out), name or Path(file).stem)
    if as_json:
        click.echo(json.dumps({"model": str(path), "test": str(path.with_suffix(".npz")), "card": asdict(model.card), **model.figures}))
        return
    shown = ", ".join(f"{key} {value:.4f}" for key, value in model.figures.items())
    click.echo(f"{model.card.task}, {len(model.card.features)} columns: {shown} on {len(model.test_y)} held-out rows")
    click.echo(f"saved {path} and {path.with_suffix('.npz').name}; register them with:")
    click.echo(f"  he-nn model add {path} --type {path.stem[:32]} --test {path.with_suffix('.npz')}")
