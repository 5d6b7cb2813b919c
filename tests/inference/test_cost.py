"""Costs: what a calibration writes is what plans read; a damaged file is refused; choices follow the costs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import he_backend as he
from he_backend.bench.networks import lenet, resnet20
from he_backend.errors import ParameterError
from he_backend.inference.cost import Costs, load_costs, save_costs
from he_backend.inference.describe import plan_figures
from he_backend.inference.plan import PlanSpec
from he_backend.inference.planner import make_plan
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


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("make", [lenet.lenet, resnet20.resnet20])
def test_least_bytes_are_no_more_than_those_of_least_time(make, rows):
    program = he.convert(make())
    sent, taken = {}, {}
    for goal in ("latency", "bytes"):
        made = make_plan(program, "m", "m", PlanSpec("m", "clear", PRESET, bits=8, rows=rows, goal=goal))
        figures = plan_figures(made.client, rows, made.considered)
        sent[goal], taken[goal] = figures["bytes_up"] + figures["bytes_down"], figures["estimated_seconds"]

    assert sent["bytes"] <= sent["latency"]
    assert taken["latency"] <= taken["bytes"] * 1.001


def test_a_goal_that_is_not_known_is_refused():
    with pytest.raises(ParameterError, match="minimise: 'money' is not known; allowed: latency, bytes"):
        make_plan(he.convert(lenet.lenet()), "m", "m", PlanSpec("m", "clear", PRESET, goal="money"))


@pytest.mark.parametrize("bits", [7, 10, 12])
@pytest.mark.parametrize("rows", [1, 64, 4096])
def test_auto_keeps_what_it_promises_with_the_smallest_prime_that_can(bits, rows):
    program = he.convert(lenet.lenet())
    found = make_plan(program, "m", "m", PlanSpec("m", "native", "auto", bits=bits, rows=rows)).client
    assert found.expected_bits >= bits and found.params.ring_degree == 2048
    smaller = {"poly_modulus_degree": 2048, "coeff_modulus": [found.params.moduli[0].bit_length() - 4], "security_level": 128}
    few = make_plan(program, "m", "m", PlanSpec("m", "native", smaller, bits=bits, rows=rows)).client
    assert few.expected_bits < bits


LARGER = {**PRESET, "poly_modulus_degree": 4096, "coeff_modulus": [60]}


@pytest.fixture(scope="module")
def demanding():
    """A network whose promise leaves much for its client steps."""
    net = NetworkBuilder((64,))
    net.apply("MatMul", net.weights(64, 64), shape=(1, 64))
    net.apply("Softmax", shape=(1, 64))
    net.apply("MatMul", net.weights(64, 8), shape=(1, 8))
    net.apply("LayerNormalization", net.weights(8), shape=(1, 8), axis=-1)
    net.apply("MatMul", net.weights(8, 8), shape=(1, 8))
    return he.convert(net.model())


def expected(program, preset, bits, goal="latency"):
    return make_plan(program, "m", "m", PlanSpec("m", "native", preset, bits=bits, goal=goal)).client.expected_bits


@pytest.mark.parametrize("goal", ["latency", "bytes"])
@pytest.mark.parametrize("bits", range(4, 25))
def test_auto_reaches_the_bits_wherever_a_ring_can(demanding, bits, goal):
    most = max(expected(demanding, preset, bits, goal) for preset in (PRESET, LARGER))
    found = expected(demanding, "auto", bits, goal)
    assert found >= bits or most < bits + 0.2  # a tenth of a bit is kept in hand, another may go into smaller answers


def test_a_network_that_auto_cannot_make_as_precise_does_not_pay_for_almost_nothing(demanding):
    best = max(expected(demanding, preset, 24) for preset in (PRESET, LARGER))
    assert best - 1.0 <= expected(demanding, "auto", 24) < 24
