"""Costs: what a calibration writes is what plans read; a damaged file is refused; choices follow the costs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import he_backend as he
from he_backend.errors import ParameterError
from he_backend.inference.cost import Costs, load_costs, save_costs
from he_backend.inference.plan import PlanSpec, make_plan
from tests.graph.networks import NetworkBuilder

PRESET = {"poly_modulus_degree": 2048, "coeff_modulus": [54], "security_level": 128}


def packings(rows, **costs):
    net = NetworkBuilder((8, 12, 12))
    net.apply("Conv", net.weights(8, 8, 3, 3), shape=(1, 8, 12, 12), kernel_shape=[3, 3], pads=[1] * 4)
    spec = PlanSpec("m", "clear", PRESET, rows=rows, costs=replace(Costs(), **costs))
    made = make_plan(he.convert(net.model()), "m", "m", spec)
    assert {name for name, _ in made.considered[0]} == {"batch", "grid", "product"}
    return [this.packing for this in made.client.rounds]


def test_what_is_saved_is_loaded(tmp_path):
    costs = replace(Costs(), multiply=0.25, byte=3.0)

    save_costs(costs, tmp_path / "a" / "costs.json")

    assert load_costs(tmp_path / "a" / "costs.json") == costs
    assert load_costs(tmp_path / "none.json") == Costs()


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: "nothing",
        lambda raw: json.dumps({**raw, "read": 0}),
        lambda raw: json.dumps({**raw, "read": "fast"}),
        lambda raw: json.dumps({**raw, "reed": 1.0}),
        lambda raw: json.dumps({name: value for name, value in raw.items() if name != "byte"}),
        lambda raw: json.dumps([1, 2]),
        lambda raw: "[" * 100000,
    ],
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path, change):
    path = tmp_path / "costs.json"
    save_costs(Costs(), path)
    path.write_text(change(json.loads(path.read_text())))

    with pytest.raises(ParameterError, match="run he-nn calibrate"):
        load_costs(path)


def test_choices_follow_the_costs():
    assert packings(1) == ["product"]
    assert packings(4096) == ["batch"]
    assert packings(1, multiply=1e4) == ["grid"]
    assert packings(4096, scalar=1e3) == ["product"]
