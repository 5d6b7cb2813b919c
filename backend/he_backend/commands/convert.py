"""`he-nn convert`: a network made to run encrypted by a named strategy, and what that changes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from he_backend.commands.options import errors_shown
from he_backend.commands.targets import check_file, writing
from he_backend.errors import EngineError, InputError, NotFoundError
from he_backend.strategies import STRATEGIES, Conversion, Data, convert_by
from he_backend.strategies.catalog import FRIENDLY, help_text
from he_backend.strategies.convert import file_data, source_of, zoo_data
from he_backend.zoo import model_types

_TYPES = ", ".join(kind.name for kind in model_types())
_HELP = f"""Convert MODEL_OR_TYPE, an ONNX file or a type of the zoo ({_TYPES}), and report accuracy and rounds before and after.

\b
{help_text()}

A type means the network of that type that comes with the package. An ONNX file saved by he-nn train is known by the record beside it; for
any other give --data and --test, .npz files with arrays x (rows) and y (labels)."""


@click.command("convert", help=_HELP)
@click.argument("model", metavar="MODEL_OR_TYPE")
@click.option("--strategy", type=click.Choice([one.name for one in STRATEGIES]), default="exact", show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="Write the converted network to this ONNX file.")
@click.option("--data", help="Training rows: a data set of the zoo, or an .npz with x and y. By default what the network was trained on.")
@click.option("--test", type=click.Path(exists=True, dir_okay=False), help="Held-out rows, an .npz with x and y.")
@click.option("--embeddings", type=click.Choice(["file", "refuse", "public", "private"]), default="file", show_default=True,
              help="Tables looked up by data: what the file says, or a choice to write into --out.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), default=None, help="Of fine-tuning; by default 3, or enough for 2000 steps.")
@click.option("--learning-rate", type=click.FloatRange(min=0, max=1), default=None, help="Highest, above 0; by default 0.001.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the order of training rows.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert(
    model: str, strategy: str, out: str | None, data: str | None, test: str | None, embeddings: str, as_json: bool, **tuning: Any
) -> None:
    """Its help is `_HELP`."""
    with errors_shown():
        check_file("--out", out)
        rows_file = data is not None and data.endswith(".npz")
        source, name, kind, dataset = source_of(model, None if rows_file else data)
        rows = _rows(data if rows_file else None, test, kind, dataset, strategy)
        shown = _show if sys.stderr.isatty() else None
        result = convert_by(strategy, source, rows, model_name=name, embeddings=embeddings, progress=shown, **tuning)
        if out is not None:
            with writing("--out", out):
                Path(out).write_bytes(result.model)
    click.echo(json.dumps(_figures(result, out)) if as_json else _text(result, out))


def _rows(train: str | None, test: str | None, kind: str, dataset: str, strategy: str) -> Data | None:
    """Rows from files, otherwise those of the network's own data set where they are at hand."""
    if train is not None or test is not None:
        return file_data(train, test)
    if not kind or not dataset:
        if strategy == FRIENDLY:
            raise InputError("--data: what this network was trained on is not known; give an .npz with arrays x and y, and --test another")
        return None
    if strategy == FRIENDLY:
        return zoo_data(kind, dataset)
    try:
        return zoo_data(kind, dataset, train=False)
    except (NotFoundError, EngineError) as missing:
        click.echo(str(missing), err=True)
        return None


def _show(epoch: int, loss: float) -> None:
    click.echo(f"epoch {epoch}  loss {loss:.4f}", err=True)


def _counted(replaced: tuple[str, ...]) -> dict[str, int]:
    return {what: replaced.count(what) for what in dict.fromkeys(replaced)}


def _figures(result: Conversion, out: str | None) -> dict[str, Any]:
    loss = result.loss_points
    return {
        "model": result.name,
        "strategy": result.strategy,
        "replaced": _counted(result.replaced),
        "accuracy_before": result.accuracy_before,
        "accuracy_after": result.accuracy_after,
        "loss_points": None if loss is None else round(loss, 4),
        "test_rows": result.test_rows,
        "rounds_before": result.rounds_before,
        "rounds_after": result.rounds_after,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 3),
        "public": list(result.program.public_constants),
        "output": out,
    }


def _text(result: Conversion, out: str | None) -> str:
    lines = [f"{result.name}, strategy {result.strategy}"]
    lines += [f"  {what}, {times} places" if times > 1 else f"  {what}" for what, times in _counted(result.replaced).items()]
    if not result.replaced:
        lines.append("  nothing is replaced")
    if result.accuracy_before is not None and result.accuracy_after is not None and result.loss_points is not None:
        word = "lost" if result.loss_points >= 0 else "gained"
        lines.append(
            f"  accuracy {result.accuracy_before:.2%} before, {result.accuracy_after:.2%} after, on {result.test_rows} held-out rows: "
            f"{abs(result.loss_points):.2f} points {word}"
        )
    else:
        lines.append("  accuracy not measured: there are no held-out rows (--test, an .npz with arrays x and y)")
    lines.append(f"  rounds {result.rounds_before} before, {result.rounds_after} after")
    if result.epochs:
        lines.append(f"  {result.epochs} epochs of fine-tuning, {result.seconds:.0f} s in all")
    lines += [f"  {note}" for note in result.program.notes]
    lines += [f"  goes to the data owner: {entry}" for entry in result.program.public_constants]
    if out:
        lines.append(f"saved {out}")
    return "\n".join(lines)
