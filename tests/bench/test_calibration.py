"""The calibration measures every cost that plans use, and plans and pictures of it can be had from the command line."""

from __future__ import annotations

import json
from dataclasses import fields

import onnx
import pytest
from click.testing import CliRunner

from he_backend.ckks import ring
from he_backend.cli import main
from he_backend.inference.cost import Costs, load_costs
from tests.graph.networks import NetworkBuilder


@pytest.fixture
def model(tmp_path):
    net = NetworkBuilder((2, 8, 8))
    net.apply("Conv", net.weights(3, 2, 3, 3), shape=(1, 3, 6, 6), kernel_shape=[3, 3])
    net.apply("Relu")
    onnx.save(net.model(), tmp_path / "net.onnx")
    return str(tmp_path / "net.onnx")


@pytest.mark.skipif(not ring.available(), reason="the native core is not built")
def test_a_calibration_is_what_plans_read(tmp_path, monkeypatch, model):
    monkeypatch.setenv("HE_NN_HOME", str(tmp_path))

    done = CliRunner().invoke(main, ["calibrate", "--json"])

    assert done.exit_code == 0, done.output
    measured = json.loads(done.stdout)
    assert set(measured) == {field.name for field in fields(Costs)} and all(value > 0 for value in measured.values())
    assert load_costs(tmp_path / "costs.json") == Costs(**measured)
    (tmp_path / "costs.json").write_text("{}")
    refused = CliRunner().invoke(main, ["plan", model])
    assert refused.exit_code == 1 and "run he-nn calibrate" in refused.output


def test_a_plan_shows_and_draws_what_was_considered_and_what_it_took(tmp_path, monkeypatch, model):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("HE_NN_HOME", str(tmp_path))

    table = CliRunner().invoke(main, ["plan", model, "--engine", "clear", "--run", "--png", str(tmp_path / "plan.png")])
    figures = CliRunner().invoke(main, ["plan", model, "--engine", "clear", "--run", "--json"])

    assert table.exit_code == 0, table.output
    assert "estimated" in table.output and "ran in" in table.output and "batch" in table.output
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    (this,) = json.loads(figures.stdout)["per_round"]
    assert set(this["estimated_seconds"]) == {"batch", "grid", "product"} and this["measured_seconds"] > 0
