"""`he-nn train`: a network of the zoo, trained and saved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from he_backend.commands.options import errors_shown
from he_backend.commands.targets import check_folder, writing
from he_backend.zoo.activations import ACTIVATIONS
from he_backend.zoo.saved import draw_curve, save
from he_backend.zoo.train import Epoch
from he_backend.zoo.train import train as train_network


@click.command("train")
@click.argument("model_type", metavar="TYPE")
@click.option("--data", default="auto", show_default=True, help="digits, mnist, cifar10, trec, sst2, or auto: the type's own.")
@click.option("--epochs", type=click.IntRange(min=1), default=None, help="Passes over the training rows; by default the type's own.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the initial weights and the order of rows.")
@click.option("--activation", type=click.Choice(ACTIVATIONS), default=None, help="Instead of the type's own (MLP, CNN, AlexNet).")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="That training may use.")
@click.option("--out", type=click.Path(file_okay=False), default="models", show_default=True, help="Folder for the result.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def train(model_type: str, data: str, epochs: int | None, seed: int, activation: str | None, threads: int, out: str, as_json: bool) -> None:
    """Train a network of the zoo (MLP, CNN, AlexNet, RNN, BERT) and save it as ONNX, with its accuracy on held-out rows and its curve."""
    with errors_shown():
        check_folder("--out", out)
        result = train_network(model_type, data, epochs, seed, _show if sys.stderr.isatty() else None, threads, activation)
        with writing("--out", out):
            path = save(result, Path(out))
            drawn = draw_curve(result, path.with_suffix(".png"))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "model": str(path),
                    "type": result.model_type,
                    "dataset": result.dataset,
                    "test_acc": result.test_acc,
                    "test_rows": result.test_rows,
                    "epochs": len(result.curve),
                    "seed": result.seed,
                    "seconds": result.seconds,
                }
            )
        )
    else:
        click.echo(f"{result.model_type} on {result.dataset}: {result.test_acc:.2%} of {result.test_rows} held-out rows")
        click.echo(f"{len(result.curve)} epochs, seed {result.seed}, {result.seconds:.1f} s")
        files = [path.with_suffix(".json").name, *([path.with_suffix(".png").name] if drawn else [])]
        click.echo(f"saved {path}, {' and '.join(files)}")
        if not drawn:
            click.echo("no picture of the curve: matplotlib is not installed (pip install 'he-nn[bench]')", err=True)


def _show(point: Epoch, epochs: int) -> None:
    click.echo(f"\repoch {point.epoch}/{epochs}  loss {point.loss:.4f}  accuracy {point.test_acc:.4f}", err=True, nl=point.epoch == epochs)
