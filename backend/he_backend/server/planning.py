"""The plan of a registered model, as its owner shows it."""

from __future__ import annotations

from typing import Any

from he_backend.ckks.engines import default_engine
from he_backend.ckks.params import Params
from he_backend.graph import Program
from he_backend.inference.cost import costs_path, load_costs
from he_backend.inference.describe import plan_figures
from he_backend.inference.plan import PlanSpec
from he_backend.inference.planner import make_plan
from he_backend.server.registry import ModelRecord


def plan_of(record: ModelRecord, program: Program, params: Params, rows: int = 1) -> dict[str, Any]:
    """The figures of the plan that a client would get for so many rows under a parameter set, by this machine's costs."""
    costs = load_costs(costs_path())
    spec = PlanSpec(record.model_id, default_engine(), params.literal(), rows=rows, preset_name=params.name, costs=costs)
    return plan_figures(make_plan(program, record.model_id, record.model_name, spec).client, rows)
