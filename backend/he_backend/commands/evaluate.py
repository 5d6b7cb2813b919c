"""`he-nn eval`: a network's accuracy, plain and encrypted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from he_backend import zoo
from he_backend.bench.evaluation_chart import draw
from he_backend.commands.infer import report_text
from he_backend.commands.options import RunOptions, errors_shown, registry_database, run_options
from he_backend.commands.targets import check_file, writing
from he_backend.errors import EngineError, InputError, NotFoundError
from he_backend.evaluation import MOST_ROWS, Evaluation, Measured, evaluate
from he_backend.graph import Program, convert
from he_backend.graph.card import Card
from he_backend.server.model_files import read_source, unpack_test_set
from he_backend.server.models import registered_program
from he_backend.server.registry import Registry, default_root


class Labelled(NamedTuple):
    """A network, its test set, and what it is called where it is registered."""

    program: Program
    x: np.ndarray
    y: np.ndarray
    card: Card
    names: dict[str, str]


@click.command("eval")
@click.argument("model")
@click.option("--test", type=click.Path(dir_okay=False), help="An .npz with arrays x and y, instead of the model's own test set.")
@click.option("--registry", type=click.Path(file_okay=False), default=None, help="Folder of models; default $HE_NN_HOME/models.")
@registry_database
@click.option("--start-batch", type=click.IntRange(min=0), default=0, show_default=True, help="Rows from START_BATCH · BATCH_SIZE on.")
@click.option("--batch-size", type=click.IntRange(1, MOST_ROWS), default=MOST_ROWS, show_default=True, help="Rows.")
@click.option("--plain", is_flag=True, help="Plain accuracy only.")
@click.option("--png", type=click.Path(dir_okay=False), help="Draw the figures to this file.")
@run_options
def eval_command(
    model: str,
    test: str | None,
    registry: str | None,
    registry_database: str | None,
    start_batch: int,
    batch_size: int,
    plain: bool,
    png: str | None,
    options: RunOptions,
) -> None:
    """Accuracy of MODEL on labelled rows, plain and encrypted, with 95% intervals, time and bytes.

    MODEL is an ONNX file (with --test), a registered model's name or id, or a type: its newest registered model, or the one that comes
    with the package.
    """
    with errors_shown():
        check_file("--png", png, [".png"])
        found = find(model, test, registry, registry_database)
        done = evaluate(
            found.program,
            found.x,
            found.y,
            start_batch=start_batch,
            batch_size=batch_size,
            encrypted=not plain,
            card=found.card,
            **options.arguments(),
        )
        values = {**found.names, **done.to_dict()}
        if png is not None:
            with writing("--png", png):
                drawn = draw(values, Path(png))
            if not drawn:
                raise EngineError("--png needs matplotlib: pip install 'he-nn[bench]'")
    click.echo(json.dumps(values) if options.as_json else text(done, found.names))
    if png and not options.as_json:
        click.echo(f"chart: {png}")


def find(model: str, test: str | None, registry: str | None, database: str | None = None) -> Labelled:
    """The network that a user means by MODEL, with its test set. Raises NotFoundError saying where it was looked for."""
    given = unpack_test_set(read_source(test, "test set")) if test else None
    if Path(model).is_file():
        if given is None:
            raise InputError(f"--test: {model} is a file without a test set; give an .npz with arrays x and y")
        return Labelled(convert(model), *given, Card.read(Path(model).read_bytes()), {})
    store = Registry(registry or default_root(), database)
    try:
        record = _registered(store, model)
    except NotFoundError as missing:
        return _shipped(model, given, str(missing))
    program = registered_program(store, record)
    names = {"model_id": record.model_id, "model_name": record.model_name, "model_type": record.model_type}
    return Labelled(program, *(given or store.test_set(record)), Card.of(record.meta), names)


def _registered(store: Registry, model: str) -> Any:
    """By name or id; by type otherwise."""
    try:
        return store.get(model)
    except NotFoundError as missing:
        try:
            return store.get("latest", model)
        except (NotFoundError, ValueError):
            raise missing from None


def _shipped(model: str, given: Any, missing: str) -> Labelled:
    try:
        network = zoo.shipped(model)
    except NotFoundError:
        raise NotFoundError(f"{missing}; nor is there a file {model}, or a type of that name with the package") from None
    x, y = given or network.load_test()
    return Labelled(convert(network.onnx_path), x, y, Card(), {"model_type": network.model_type})


def text(done: Evaluation, names: dict[str, str]) -> str:
    """The figures for people."""
    title = names.get("model_name", done.model)
    lines = [f"{title}: rows {done.start_row} to {done.start_row + done.rows - 1} of {done.test_rows} test rows"]
    lines.append(_line("plain", done.plain))
    if done.encrypted is not None and done.report is not None:
        loss = 100 * (done.plain.accuracy - done.encrypted.accuracy)
        lines += [_line("encrypted", done.encrypted), f"  accuracy lost by encryption: {loss:.2f} points", report_text(done.report)]
    return "\n".join(lines)


def _line(name: str, measured: Measured) -> str:
    low, high = measured.interval
    return (
        f"  {name:9}  {measured.accuracy:7.2%}  ({measured.correct} of {measured.labels}; 95% interval {low:.2%} to {high:.2%})"
        f"  {measured.seconds:.3f} s"
    )
