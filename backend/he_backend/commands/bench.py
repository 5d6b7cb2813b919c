"""`he-nn bench`: the measurements that the README quotes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from he_backend.bench import suite
from he_backend.bench.charts import draw
from he_backend.commands.options import errors_shown
from he_backend.commands.targets import check_folder, writing

_PARTS = ("primitives", "networks", "precision", "scaling")


@click.command("bench")
@click.argument("parts", nargs=-1, type=click.Choice(_PARTS))
@click.option("--quick", is_flag=True, help="Fewer and smaller runs.")
@click.option("--out", type=click.Path(file_okay=False), default="build/bench", show_default=True, help="Folder for results and chart.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def bench(parts: tuple[str, ...], quick: bool, out: str, as_json: bool) -> None:
    """Measure PARTS (all by default): encryption, networks, precision against speed, scaling."""
    folder = Path(out)

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    results: dict[str, list[dict[str, Any]]] = {}
    with errors_shown():
        check_folder("--out", out)
    say(suite.machine())
    with errors_shown(), tempfile.TemporaryDirectory() as scratch:
        for part in parts or _PARTS:
            say(f"\n{part}")
            if part == "primitives":
                results[part] = suite.primitives(say, quick)
            else:
                results[part] = getattr(suite, part)(say, quick, Path(scratch))
    with errors_shown(), writing("--out", out):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"machine": suite.machine(), **results}, indent=1))
        drawn = {"networks", "precision", "scaling"} <= set(results) and draw(results, folder / "bench.png")
    if drawn:
        say(f"\nchart: {folder / 'bench.png'}")
    say(f"results: {folder / 'results.json'}")
    if as_json:
        click.echo(json.dumps(results))
