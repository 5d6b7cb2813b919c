"""Plans: what they promise, what travels, and that a forged plan is refused before anything is computed with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import he_backend as he
from he_backend.ckks.engines import available
from he_backend.ckks.params import check_params, load_params
from he_backend.ckks.serial import TensorHeader
from he_backend.errors import CapacityError, EngineError, HeError, ParameterError, ProtocolError
from he_backend.graph.affine import AffineMap, Block
from he_backend.inference import describe, planner
from he_backend.inference.plan import PlanSpec
from he_backend.inference.planner import make_plan
from he_backend.inference.schedule import Schedule, make_schedule
from he_backend.inference.wire import plan_digest, plan_from_bytes, plan_to_bytes
from tests.parties import client_of, digits, service_of


def plan_of(preset="N11_L1", engine="clear", bits=12, model_type="MLP", packing="auto", rows=1):
    params = load_params(preset)
    spec = PlanSpec("id", engine, params.literal(), packing, bits, rows, params.name)
    return make_plan(digits(1, model_type)[0], "id", "name", spec)


@pytest.mark.parametrize("packing", ["batch", "product"])
def test_the_client_plan_has_no_weights(packing):
    plan = plan_of(packing=packing)
    data = plan_to_bytes(plan.client)
    if packing == "batch":
        weights = sum(block.weights.size for linear in plan.maps for block in linear.blocks)
    else:
        weights = sum(product.weights.size for product in plan.maps)
    assert weights > 2000
    assert len(data) < 8192  # shapes, norms and steps only; 2000 weights would not fit
    for step in plan.client.steps:
        assert len(step.model) < 1024


def test_plans_survive_the_wire_and_equal_specs_make_equal_plans():
    data = plan_to_bytes(plan_of().client)
    assert plan_from_bytes(data) == plan_of().client
    assert plan_digest(data) == plan_digest(plan_to_bytes(plan_of().client))
    assert plan_digest(data) != plan_digest(plan_to_bytes(plan_of(bits=14).client)) or plan_of(bits=14).client == plan_of().client


def test_more_bits_take_more_primes():
    few, many = plan_of("N13_L8", bits=4).client, plan_of("N13_L8", bits=16).client
    assert few.rounds[0].level < many.rounds[0].level
    assert few.expected_bits < many.expected_bits


@pytest.mark.parametrize("engine, preset", [("clear", "N11_L1_small"), ("clear", "N11_L1"), ("seal", "N11_L1"), ("seal", "N13_L8")])
@pytest.mark.parametrize("model_type", ["MLP", "CNN"])
def test_what_is_promised_is_reached(engine, preset, model_type):

    program, rows, _ = digits(64, model_type)
    report = he.infer(program, rows, engine=engine, preset=preset).report
    print(f"{model_type} {engine} {preset}: {report.bits_of_precision:.1f} bits reached, {report.expected_bits:.1f} promised")
    assert report.bits_of_precision >= report.expected_bits


def test_the_table_says_who_holds_what_and_the_bytes_that_travel():
    program, rows, _ = digits(64)
    service = service_of(program)
    client, _ = client_of(service, engine="seal", preset="N11_L1")
    task = client.prepare("latest", 64)
    figures = describe.plan_figures(task.plan, 64)

    report = client.infer(task, rows).report

    assert abs(report.bytes_up / figures["bytes_up"] - 1) < 0.05
    assert abs(report.bytes_down / figures["bytes_down"] - 1) < 0.05
    table = describe.plan_table(task.plan, 64)
    assert "128-bit secure" in table and "server: all weights" in table and "3 rounds" not in table.split("\n")[3]
    assert json.dumps(figures)


SMALL = [(1024, [20]), (2048, [25]), (2048, [20, 20]), (4096, [24, 30]), (4096, [20, 40, 40]), (8192, [20, 60, 60]), (16384, [22, 22])]


@pytest.mark.parametrize("engine, packing", [("native", "auto"), ("native", "batch"), ("seal", "auto"), ("clear", "auto")])
@pytest.mark.parametrize("degree, bits", SMALL)
def test_small_primes_keep_what_they_promise_or_are_refused_in_planning(engine, packing, degree, bits, tmp_path):
    program, rows, _ = digits(16)
    literal = {"scheme_name": "HE_SEAL", "poly_modulus_degree": degree, "security_level": 128, "coeff_modulus": bits}
    (tmp_path / "small.json").write_text(json.dumps(literal))
    refused = engine == "seal" and (degree, bits) in [(1024, [20]), (2048, [20, 20]), (16384, [22, 22])]

    if refused:
        with pytest.raises(ParameterError, match="preset small: coeff_modulus: .* no usable precision: .*; take larger primes"):
            make_plan(program, "id", "name", PlanSpec("id", engine, literal, packing, preset_name="small"))
        return
    report = he.infer(program, rows, engine=engine, preset=tmp_path / "small.json", packing=packing).report

    print(f"{engine} {degree} {bits}: {report.bits_of_precision:.1f} reached, {report.expected_bits:.1f} promised")
    assert report.bits_of_precision >= report.expected_bits > 0.0


def test_an_answer_is_never_switched_above_the_ciphertexts_own_modulus():
    for degree, bits in SMALL:
        params = check_params({"poly_modulus_degree": degree, "coeff_modulus": bits})
        plan = make_plan(digits(1)[0], "id", "name", PlanSpec("id", "native", params.literal(), bits=24)).client
        assert all(plan.answer_moduli(this.index)[0] <= plan.modulus(this.index) for this in plan.rounds)


@pytest.mark.parametrize("engine, packing", [("native", "batch"), ("native", "grid"), ("native", "product"), ("seal", "batch")])
def test_a_plans_bytes_are_those_of_its_chunks_however_many_these_are(engine, packing, monkeypatch):
    plan, headers = plan_of(engine=engine, packing=packing, model_type="CNN").client, []
    each = make_schedule(plan, 10**6).rows

    def counted(*given):
        headers.append(given)
        return TensorHeader(*given)

    monkeypatch.setattr(describe, "TensorHeader", counted)

    def sent(rows):
        monkeypatch.setattr(describe, "make_schedule", lambda plan, _: Schedule(each))
        return [(cost.bytes_up, cost.bytes_down) for cost in describe.round_costs(plan, rows)]

    chunk, rest = np.array(sent(each)), np.array(sent(5))
    assert np.array_equal(sent(3 * each + 5), 3 * chunk + rest) and np.array_equal(sent(2 * each), 2 * chunk)
    headers.clear()
    assert sent(10**12 * each)[0][0] == 10**12 * int(chunk[0][0]) and len(headers) == 2 * len(plan.rounds)


@pytest.mark.parametrize("options, says", [({"packing": "other"}, "packing"), ({"bits": 3}, "bits"), ({"bits": "12"}, "bits")])
def test_options_out_of_range(options, says):
    literal = load_params("N11_L1").literal()
    with pytest.raises(ParameterError, match=says):
        make_plan(digits(1)[0], "id", "name", PlanSpec(**{"model": "id", "engine": "clear", "preset": literal, **options}))


def test_a_modulus_without_room_is_refused_by_round(monkeypatch):
    program, size = digits(1)[0], 200_000
    block = Block(0, np.arange(size, dtype=np.int32)[None, None], np.ones((1, size, 1)), np.zeros((1, 1, 1), np.int32))
    monkeypatch.setattr(planner, "lower", lambda segment, shapes: AffineMap((size,), (1,), (block,), np.zeros(1)))
    tiny = {"poly_modulus_degree": 1024, "coeff_modulus": [20]}
    with pytest.raises(CapacityError, match="round 0 .*take a preset with a larger modulus"):
        make_plan(program, "id", "name", PlanSpec("id", "seal", tiny, preset_name="tiny"))


def test_one_row_takes_products_and_thousands_go_in_batches():
    packings = {rows: {this.packing for this in plan_of(engine="clear", rows=rows).client.rounds} for rows in (1, 4096)}
    assert packings == {1: {"product"}, 4096: {"batch"}}
    assert {this.packing for this in plan_of(engine="clear", packing="batch").client.rounds} == {"batch"}
    assert {this.packing for this in plan_of(engine="clear", packing="product", rows=4096).client.rounds} == {"product"}


def test_an_engine_of_slots_has_no_products():
    with pytest.raises(EngineError, match="packing 'product' needs engine native or clear"):
        plan_of(engine="seal", packing="product")
    assert {this.packing for this in plan_of(engine="seal").client.rounds} == {"batch"}


@pytest.mark.parametrize("rows", [1, 5])
def test_bytes_of_products_are_those_that_travel(rows):
    program, images, _ = digits(rows, "CNN")
    client, _ = client_of(service_of(program), engine="native", preset="N11_L1", packing="product")
    task = client.prepare("latest", rows)
    figures = describe.plan_figures(task.plan, rows)

    report = client.infer(task, images).report

    assert report.packing == ("product",)
    assert abs(report.bytes_up / figures["bytes_up"] - 1) < 0.05
    assert abs(report.bytes_down / figures["bytes_down"] - 1) < 0.05
    assert "product" in describe.plan_table(task.plan, rows)


@pytest.mark.parametrize(
    "packing, rows, schedule",
    [
        ("product", 7, Schedule(7, 2)),
        ("product", 21, Schedule(11, 2)),
        ("batch", 2048, Schedule(2048, 2)),
        ("batch", 20_000, Schedule(8192, 2)),
    ],
)
def test_rows_make_several_chunks_where_these_are_large_enough(packing, rows, schedule):
    assert make_schedule(plan_of(packing=packing).client, rows, 1 << 30) == schedule


def test_memory_bounds_the_rows_of_a_chunk():
    client = plan_of(packing="product").client
    column = max(client.in_count(i) + client.out_count(i) for i in range(len(client.rounds))) * 2048 * 32
    assert make_schedule(client, 99, 3 * column, lanes=1) == Schedule(3)
    assert make_schedule(client, 99, 6 * column, lanes=2) == Schedule(3, lanes=2)
    assert make_schedule(client, 99, column, lanes=2) == Schedule(1, lanes=1)
    with pytest.raises(CapacityError, match="allow more"):
        make_schedule(client, 99, column - 1)


def forge(change, packing="batch"):
    raw = json.loads(plan_to_bytes(plan_of(packing=packing).client))
    change(raw)
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("steps"),
        lambda raw: raw["steps"].pop(),
        lambda raw: raw["rounds"][0].update(level=99),
        lambda raw: raw["rounds"][0].update(level=True),
        lambda raw: raw["rounds"][0].update(scales=[[[32, 0.0]]]),
        lambda raw: raw["rounds"][0].update(scales=[[[31, 1.0]]]),
        lambda raw: raw["rounds"][0].update(scales=[[[-1, 1.0], [33, 1.0]]]),
        lambda raw: raw["rounds"][0].update(scales=[]),
        lambda raw: raw["rounds"][0].update(constant=-1.0),
        lambda raw: raw["rounds"][0].update(norms=[[1]]),
        lambda raw: raw["rounds"][0].update(norms=[[-1] * len(raw["rounds"][0]["norms"][0])]),
        lambda raw: raw["rounds"][0].update(inputs=["nowhere"]),
        lambda raw: raw["rounds"][0].update(inputs=[]),
        lambda raw: raw["shapes"].update({next(iter(raw["shapes"])): [1 << 30]}),
        lambda raw: raw["steps"][0].update(model="????"),
        lambda raw: raw.update(engine="other"),
        lambda raw: raw.update(expected_bits="many"),
    ],
)
def test_forged_plans_are_refused(change):
    with pytest.raises(ProtocolError, match="same version"):
        plan_from_bytes(forge(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda this: this.update(layout=None),
        lambda this: this.update(packing="batch"),
        lambda this: this.update(packing="grid"),
        lambda this: this["layout"].update(in_count=this["layout"]["in_count"] + 1),
        lambda this: this["layout"].update(in_count=True),
        lambda this: this["layout"].update(out_count=0),
        lambda this: this["layout"].update(width=2049),
        lambda this: this["layout"].update(width=1),
        lambda this: this["layout"].update(error_norm=-1),
        lambda this: this["layout"].pop("targets"),
        lambda this: this["layout"].update(targets=[]),
        lambda this: this["layout"].update(targets=this["layout"]["targets"] * 2),
        lambda this: this["layout"].update(sources=this["layout"]["sources"] * 2),
        lambda this: this["layout"].update(sources=this["layout"]["sources"] * 2000),
        lambda this: this["layout"]["sources"][0].update(first=-1),
        lambda this: this["layout"]["sources"][0].update(first=10**6),
        lambda this: this["layout"]["sources"][0].update(place=10**6),
        lambda this: this["layout"]["sources"][0].update(place=1 << 80),
        lambda this: this["layout"]["sources"][0].update(place=-1),
        lambda this: this["layout"]["sources"][0].update(place=0.5),
        lambda this: this["layout"]["sources"][0].update(sizes=[1 << 30]),
        lambda this: this["layout"]["sources"][0].update(sizes=[0]),
        lambda this: this["layout"]["sources"][0].update(sizes=[1 << 20] * 5, steps=[1] * 5, strides=[1] * 5),
        lambda this: this["layout"]["sources"][0].update(steps=[]),
        lambda this: this["layout"]["targets"][0].update(place=2000),
    ],
)
def test_forged_layouts_are_refused(change):
    with pytest.raises(ProtocolError, match="same version"):
        plan_from_bytes(forge(lambda raw: change(raw["rounds"][0]), "product"))


@pytest.mark.parametrize("polynomials, accepted", [(20_000, True), (40_000, False)])
def test_a_layout_of_many_polynomials_that_are_all_but_empty_is_refused(polynomials, accepted):
    """2048 coefficients are read of the first polynomial and one of each other: all would come back with 2048."""

    def change(raw):
        this, elements = raw["rounds"][0], 2047 + polynomials
        raw["shapes"][this["outputs"][0]] = [elements]
        first = {"first": 0, "place": 0, "sizes": [2048], "steps": [1], "strides": [1]}
        others = {"first": 2048, "place": 2048, "sizes": [polynomials - 1], "steps": [1], "strides": [2048]}
        this.update(scales=[[[elements, 1.0]]])
        this["layout"].update(out_count=polynomials, width=2048, targets=[first, others])

    if accepted:
        assert plan_from_bytes(forge(change, "product")).rounds[0].layout.out_count == polynomials
    else:
        with pytest.raises(ProtocolError, match="same version"):
            plan_from_bytes(forge(change, "product"))


def test_layouts_survive_the_wire():
    client = plan_of(packing="product", model_type="CNN").client
    assert plan_from_bytes(plan_to_bytes(client)) == client
    with pytest.raises(ProtocolError, match="same version"):
        plan_from_bytes(forge(lambda raw: raw.update(engine="seal"), "product"))


def test_forged_parameters_and_steps_are_refused():
    with pytest.raises(HeError, match="at most 54 bits"):
        plan_from_bytes(forge(lambda raw: raw["preset"].update(coeff_modulus=[60])))
    with pytest.raises(HeError):
        plan_from_bytes(forge(lambda raw: raw["steps"][1].update(model="AAAA")))
    with pytest.raises(ProtocolError, match="same version"):
        plan_from_bytes(b"\xff")


def test_no_weights_no_values_in_repr():
    assert "array" not in repr(plan_of().client)
    assert np.isfinite(plan_of().client.expected_bits)


@pytest.mark.parametrize("engine", [name for name in ("native", "seal") if name in available()])
@pytest.mark.parametrize("preset", ["N13_L8", {"poly_modulus_degree": 4096, "coeff_modulus": [40, 30, 30]}])
@pytest.mark.parametrize("bits", [10, 16, 20, 24])
def test_what_is_promised_with_many_primes_is_reached(engine, preset, bits, tmp_path):
    """Moduli beyond 64 bits bring precision only up to what float64 encodes; the promise knows."""
    program, rows, _ = digits(16)
    if not isinstance(preset, str):
        (tmp_path / "wide.json").write_text(json.dumps(preset))
        preset = tmp_path / "wide.json"
    report = he.infer(program, rows, engine=engine, preset=preset, bits=bits).report
    levels = [this.level for this in report.per_round]
    print(f"{engine} {bits} bits: levels {levels}, {report.bits_of_precision:.1f} reached, {report.expected_bits:.1f} promised")
    assert report.bits_of_precision >= min(report.expected_bits, 21.0)  # float32 steps and references end there
    assert report.expected_bits >= min(bits, 17.0)
