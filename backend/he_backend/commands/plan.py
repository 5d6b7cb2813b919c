"""`he-nn plan`: what a model becomes and will cost, before anything is run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import numpy as np

from he_backend.ckks.engines import check_engine, default_engine
from he_backend.ckks.params import load_params
from he_backend.commands.options import RunOptions, errors_shown, run_options
from he_backend.commands.targets import check_file, writing
from he_backend.errors import EngineError, ParameterError
from he_backend.graph import Program
from he_backend.graph import convert as convert_model
from he_backend.inference.cost import costs_path, load_costs
from he_backend.inference.describe import plan_figures, plan_table, round_costs
from he_backend.inference.plan import PlanSpec, ServerPlan
from he_backend.inference.planner import make_plan

_MOST_RANDOM_VALUES = 1 << 28


@click.command("plan")
@click.argument("model", type=click.Path(dir_okay=False))
@click.option("--rows", type=click.IntRange(1, 10**15), default=1, show_default=True, help="That one inference is about.")
@click.option("--png", type=click.Path(dir_okay=False), help="Draw the plan: what each round takes, under which packing.")
@click.option("--run", is_flag=True, help="Run it too, on random rows in this process, to see measured beside estimated time.")
@run_options
def plan(model: str, rows: int, png: str | None, run: bool, options: RunOptions) -> None:
    """Rounds, packings, bits, bytes, estimated time and who holds what for MODEL (an ONNX file)."""
    with errors_shown():
        check_file("--png", png, [".png"])
        program = convert_model(model)
        engine = default_engine() if options.engine == "auto" else check_engine(options.engine)
        params = None if options.preset == "auto" else load_params(options.preset, options.allow_insecure)
        literal, name = ("auto", "auto") if params is None else (params.literal(), params.name)
        costs = load_costs(costs_path())
        spec = PlanSpec(
            "local", engine, literal, options.packing, options.bits, rows, name, options.allow_insecure, costs, options.minimise
        )
        made = make_plan(program, "local", program.name, spec)
        measured = _run(program, rows, options) if run else []
        if png is not None:
            with writing("--png", png):
                drawn = _draw(made, rows, measured, Path(png))
            if not drawn:
                raise EngineError("--png needs matplotlib: pip install 'he-nn[bench]'")
    shown = (made.client, rows, made.considered, measured)
    click.echo(json.dumps(plan_figures(*shown)) if options.as_json else plan_table(*shown))


def _run(program: Program, rows: int, options: RunOptions) -> list[float]:
    """Seconds of each round, of the middle one of three inferences of random rows."""
    from he_backend.local import infer

    generator = np.random.default_rng(0)
    values = {}
    size = rows * sum(math.prod(spec.shape) for spec in program.inputs)
    if size > _MOST_RANDOM_VALUES:
        raise ParameterError(f"--run: {rows} rows are {size} values; allowed: {_MOST_RANDOM_VALUES} values in memory; give fewer --rows")
    for spec in program.inputs:
        if not np.issubdtype(np.dtype(spec.dtype), np.floating):
            raise ParameterError(f"--run makes random rows of real numbers; input {spec.name} takes {spec.dtype}")
        values[spec.name] = generator.uniform(0.0, 1.0, (rows, *spec.shape)).astype(spec.dtype)
    report = infer(program, values, repeat=3, **options.arguments()).report
    return [sum(value for name, value in this.seconds.items() if name != "step") for this in report.per_round]


def _draw(made: ServerPlan, rows: int, measured: list[float], path: Path) -> bool:
    from he_backend.bench.plan_chart import draw

    plan = made.client
    rounds = [
        {
            "label": str(cost.index),
            "packing": cost.packing,
            "estimated": {name: value * 1e-6 for name, value in considered},
            "bytes": (cost.bytes_up, cost.bytes_down),
            "measured": 1e3 * measured[cost.index] if measured else None,
        }
        for cost, considered in zip(round_costs(plan, rows), made.considered)
    ]
    title = f"{plan.model_name}: {len(rounds)} rounds for {rows} row{'s' if rows > 1 else ''}, {plan.params.name}, {plan.engine}"
    return draw(title, rounds, path)
