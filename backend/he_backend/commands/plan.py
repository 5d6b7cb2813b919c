"""`he-nn plan`: what a model becomes and will cost, before anything is run."""

from __future__ import annotations

import json

import click

from he_backend.ckks.engines import check_engine, default_engine
from he_backend.ckks.params import load_params
from he_backend.commands.options import RunOptions, errors_shown, run_options
from he_backend.graph import convert as convert_model
from he_backend.inference.describe import plan_figures, plan_table
from he_backend.inference.plan import PlanSpec, make_plan


@click.command("plan")
@click.argument("model", type=click.Path(dir_okay=False))
@click.option("--rows", type=click.IntRange(min=1), default=1, show_default=True, help="That one inference is about.")
@run_options
def plan(model: str, rows: int, options: RunOptions) -> None:
    """Rounds, bits, bytes and who holds what for MODEL (an ONNX file)."""
    with errors_shown():
        program = convert_model(model)
        engine = default_engine() if options.engine == "auto" else check_engine(options.engine)
        params = None if options.preset == "auto" else load_params(options.preset, options.allow_insecure)
        literal, name = ("auto", "auto") if params is None else (params.literal(), params.name)
        spec = PlanSpec("local", engine, literal, options.packing, options.bits, rows, name, options.allow_insecure)
        made = make_plan(program, "local", program.name, spec).client
    click.echo(json.dumps(plan_figures(made, rows)) if options.as_json else plan_table(made, rows))
