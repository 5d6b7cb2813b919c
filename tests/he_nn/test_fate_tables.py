"""Networks that the host trained on FATE's example tables, asked by the guest: columns by header, and output that Evaluation can read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from he_backend.cli import main
from he_backend.errors import InputError, ProtocolError
from he_backend.graph import Reference
from he_backend.graph.card import Card
from he_backend.zoo.tabular import read_table, save_table_model, train_table
from he_nn.guest import read_card
from he_nn.params import EvalParams, InferenceParams, LoadParams
from he_nn.table import Rows, from_columns, read_detail
from tests.he_nn import fate_tables
from tests.he_nn.test_roles import EMBEDDED, Site

HALVES = {"Breast": ("breast_homo_host", "breast_homo_guest"), "Vehicle": ("vehicle_scale_homo_host", "vehicle_scale_homo_guest")}


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def add(site, tmp_path, name, table, task=""):
    """Trained by the host on its table, and registered with the command that a host uses."""
    model = train_table(table, task, (16, 8), seed=1)
    path = save_table_model(model, tmp_path / "trained", name)
    options = ["--type", name, "--test", str(path.with_suffix(".npz")), "--registry", str(site.registry.root), "--json"]
    done = CliRunner().invoke(main, ["model", "add", str(path), *options])
    assert done.exit_code == 0, done.output
    return model, json.loads(done.output)


def guest_rows(table, labels=True, count=200, shuffled=True):
    """The guest's table with its columns in another order than the model's, and a column that the model does not know."""
    order = np.random.default_rng(3).permutation(len(table.features)) if shuffled else np.arange(len(table.features))
    columns = {table.features[index]: table.x[:count, index] for index in order}
    columns["unused"] = np.arange(float(min(count, len(table.x))))
    ids = [f"id{index}" for index in range(min(count, len(table.x)))]
    return from_columns(ids, columns, table.y[:count] if labels else None)


def inference(name, **values):
    return InferenceParams.of({**EMBEDDED, "model_type": name, "is_encryption": True, "encryption_parameters": "N12_L4", **values})


@pytest.mark.parametrize(("name", "task", "least"), [("Breast", "binary", 0.9), ("Vehicle", "multi", 0.6)])
def test_a_classifier_of_the_hosts_own_is_asked_by_header(site, tmp_path, name, task, least):
    host, guest = (read_table(fate_tables.table(half), "y") for half in HALVES[name])
    model, added = add(site, tmp_path, name, host)
    rows = guest_rows(guest)
    plain = next(iter(Reference(model.onnx).run(guest.x[: len(rows)].astype(np.float32)).values()))

    loaded = site.load(name, is_init=False, model_id=added["model_name"])
    done, _ = site.run("infer", inference(name), rows, loaded)

    assert done.predictions.task == task == done.artifact.figures["task"]
    assert done.rows.ids == rows.ids and done.rows.labels is rows.labels
    labels = [int(label) for label in model.card.labels_of(plain)]
    assert done.predictions.result == labels
    assert done.artifact.figures["accuracy"] == pytest.approx(float((np.asarray(labels) == rows.labels).mean()))
    assert done.artifact.figures["accuracy"] > least
    scores = np.array([list(read_detail(text).values()) for text in done.predictions.detail])
    expected = np.concatenate([1 - plain, plain], axis=1) if task == "binary" else plain
    np.testing.assert_allclose(scores, expected, atol=5e-3)
    np.testing.assert_allclose(done.predictions.score, expected[:, 1] if task == "binary" else expected.max(axis=1), atol=5e-3)
    assert any("unused" in line for line in site.guest.lines)
    assert loaded.test_acc == pytest.approx(model.figures["test_acc"])


def test_a_regression_of_the_hosts_own_has_errors_and_no_accuracy(site, tmp_path):
    table = read_table(fate_tables.table("motor_hetero_host"), "torque", ("idx",))
    model, added = add(site, tmp_path, "Motor", table)
    rows = guest_rows(table)
    plain = next(iter(Reference(model.onnx).run(table.x[: len(rows)].astype(np.float32)).values()))

    loaded = site.load("Motor", is_init=False)
    values = {**EMBEDDED, "model_type": "Motor", "batch_size": 100, "is_encryption": True}
    evaluated, _ = site.run("evaluate", EvalParams.of(values), loaded)
    done, _ = site.run("infer", inference("Motor"), rows, evaluated)

    assert loaded.test_acc is None and model.card.task == "regression" and added["test_acc"] is None
    assert evaluated.figures["r2"] == pytest.approx(evaluated.figures["plain_r2"], abs=1e-2) and evaluated.figures["r2"] > 0.8
    assert done.predictions.task == "regression" and "accuracy" not in done.artifact.figures
    np.testing.assert_allclose(done.predictions.score, plain[:, 0], atol=1e-2)
    assert done.predictions.result == done.predictions.score
    assert done.artifact.figures["rmse"] == pytest.approx(float(np.sqrt(((plain[:, 0] - rows.labels) ** 2).mean())), abs=5e-3)


def test_credit_default_is_asked_by_its_23_columns(site, tmp_path):
    host_path, guest_path = fate_tables.credit(tmp_path, host_rows=6000, guest_rows=300)
    model, _ = add(site, tmp_path, "Credit", read_table(host_path, "y"))
    rows = guest_rows(read_table(guest_path, "y"), count=300)

    done, host = site.run("infer", inference("Credit"), rows, site.load("Credit", is_init=False))

    assert len(model.card.features) == 23 and model.card.task == "binary"
    assert done.artifact.figures["accuracy"] > 0.75
    assert set(done.predictions.result) == {0, 1}
    assert host.figures["calls"] == 4 + done.artifact.figures["rounds"] - 1  # hello, plan, environment test, rounds


@pytest.fixture
def breast(site, tmp_path):
    table = read_table(fate_tables.table("breast_homo_host"), "y")
    add(site, tmp_path, "Breast", table)
    return table


def test_a_column_that_is_missing_is_named(site, breast):
    rows = guest_rows(breast, count=4)
    keep = [index for index, name in enumerate(rows.columns) if name not in ("x3", "x17")]
    fewer = Rows(rows.ids, rows.values[:, keep], tuple(rows.columns[index] for index in keep))

    with pytest.raises(InputError, match="lacks 2 of the 30 columns that the model takes: x3, x17"):
        site.run("infer", inference("Breast"), fewer)
    assert isinstance(site.host_error, InputError)


def test_a_file_has_no_header_and_goes_in_as_it_is(site, breast, tmp_path):
    np.save(tmp_path / "rows.npy", breast.x[:5].astype(np.float32))

    done, _ = site.run("infer", inference("Breast", file_inference=str(tmp_path / "rows.npy"), num_inference=5))

    assert len(done.predictions.result) == 5 and done.predictions.task == "binary"


def test_plain_and_encrypted_agree(site, breast):
    rows = guest_rows(breast, count=50)

    plain, _ = site.run("infer", inference("Breast", is_encryption=False), rows)
    encrypted, _ = site.run("infer", inference("Breast"), rows)

    assert plain.predictions.result == encrypted.predictions.result
    np.testing.assert_allclose(plain.predictions.score, encrypted.predictions.score, atol=5e-3)


@pytest.mark.parametrize("values", [None, {"task": "guess"}, {"features": [1]}])
def test_a_host_that_describes_nonsense_is_refused(values):
    with pytest.raises(ProtocolError, match="model owner's description is wrong"):
        read_card(values)
    assert read_card({}) == Card()


def test_a_load_by_another_types_name_is_refused(site, breast):
    with pytest.raises(Exception, match="there is no model of type MLP yet"):
        site.run("load", LoadParams.of({**EMBEDDED, "model_type": "MLP", "is_init": False}))
