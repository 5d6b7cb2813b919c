"""Networks for tables: trained on the owner's rows, exported with their card, good on held-out rows, and refusals that name columns."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from he_backend.cli import main
from he_backend.errors import InputError, ParameterError
from he_backend.graph import Reference, convert
from he_backend.graph.card import Card
from he_backend.graph.quality import quality
from he_backend.server.registry import Registry
from he_backend.zoo.tabular import read_table, train_table


def write(path, header, rows):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


@pytest.fixture
def features():
    """Columns of very different sizes, one of them constant."""
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(size=300), rng.normal(50, 1000, 300), rng.normal(5, 0.01, 300), np.full(300, 7.0)])


def table(tmp_path, features, labels, name="rows.csv"):
    rows = [[f"id{index}", label, *values] for index, (label, values) in enumerate(zip(labels, features.tolist()))]
    return read_table(write(tmp_path / name, ["id", "y", "a", "b", "c", "d"], rows), "y")


def test_a_table_is_read_without_its_ids(tmp_path, features):
    found = table(tmp_path, features, range(300))

    assert found.features == ("a", "b", "c", "d") and found.y.tolist() == list(range(300))
    np.testing.assert_array_equal(found.x, features)


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (lambda x: (x[:, 0] + x[:, 1] / 1000 > 0).astype(int), "binary", (0, 1)),
        (lambda x: np.where(x[:, 0] > 0, 7, 3), "binary", (3, 7)),
        (lambda x: np.digitize(x[:, 1], [-500, 500]), "multi", (0, 1, 2)),
        (lambda x: np.array(["low", "mid", "high"])[np.digitize(x[:, 0], [-0.5, 0.5])], "multi", ("high", "low", "mid")),
        (lambda x: 3 * x[:, 0] + x[:, 1] / 500 + 0.25, "regression", ()),
    ],
)
def test_a_network_is_good_on_rows_it_has_not_seen_and_says_what_it_is(tmp_path, features, labels, task, classes):
    model = train_table(table(tmp_path, features, labels(features)), hidden=(16,), epochs=400)

    assert model.card == Card(("a", "b", "c", "d"), task, classes) == Card.read(model.onnx)
    assert len(model.test_y) == 60 and model.train_rows == 240
    program = convert(model.onnx)
    model.card.check(program)
    measured = quality(next(iter(Reference(program).run(model.test_x).values())), model.test_y, model.card)
    assert measured == pytest.approx(model.figures, abs=1e-3)
    assert measured["r2"] > 0.9 if task == "regression" else measured["test_acc"] > 0.85


def test_the_same_arguments_give_the_same_network(tmp_path, features):
    found = table(tmp_path, features, (features[:, 0] > 0).astype(int))

    assert train_table(found, epochs=5).onnx == train_table(found, epochs=5).onnx != train_table(found, epochs=5, seed=1).onnx


def test_columns_that_do_not_serve_are_named_without_their_values(tmp_path):
    path = write(tmp_path / "rows.csv", ["id", "y", "pay", "name"], [["1", "0", "3", "secret"], ["2", "1", "", "x"]])

    with pytest.raises(InputError, match="column pay, name has missing values or what is no number") as refusal:
        read_table(path, "y")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        (["id", "a"], [["1", "2"]], "no column 'y'"),
        (["id", "y"], [["1", "2"]], "no columns beside its label"),
        (["id", "y", "a"], [], "no rows"),
        (["id", "y", "a"], [["1", "2"]], "another length than its header"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, header, rows, told):
    with pytest.raises(InputError, match=told):
        read_table(write(tmp_path / "rows.csv", header, rows), "y")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "missing.csv", "y")


@pytest.mark.parametrize(
    ("values", "error", "told"),
    [
        ({"task": "guess"}, ParameterError, "task: 'guess'"),
        ({"hidden": ()}, ParameterError, "hidden:"),
        ({"hidden": (0,)}, ParameterError, "hidden:"),
        ({"test_share": 1.0}, ParameterError, "test_share: 1.0"),
        ({"task": "binary"}, InputError, "has 3 different labels"),
    ],
)
def test_wrong_arguments_are_refused_by_name(tmp_path, features, values, error, told):
    with pytest.raises(error, match=told):
        train_table(table(tmp_path, features, np.arange(300) % 3), **values)


def test_the_command_trains_and_the_registry_takes_what_it_wrote(tmp_path, features):
    table(tmp_path, features, (features[:, 0] > 0).astype(int), "loans.csv")

    done = CliRunner().invoke(main, ["train-table", str(tmp_path / "loans.csv"), "--hidden", "8", "--epochs", "40", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "binary, 4 columns: test_acc 0." in done.output and "he-nn model add" in done.output

    options = ["--type", "Loans", "--test", str(tmp_path / "loans.npz"), "--registry", str(tmp_path / "models"), "--json"]
    added = CliRunner().invoke(main, ["model", "add", str(tmp_path / "loans.onnx"), *options])
    assert added.exit_code == 0, added.output
    card = {"features": ["a", "b", "c", "d"], "task": "binary", "classes": [0, 1]}
    assert json.loads(added.output)["meta"] == {**card, "rounds": 2, "input_shape": [4]}
    assert Registry(tmp_path / "models").get("latest", "Loans").test_path is not None


def test_the_command_refuses_sizes_that_are_none(tmp_path):
    path = write(tmp_path / "rows.csv", ["y", "a"], [["1", "2"]])

    assert CliRunner().invoke(main, ["train-table", str(path), "--hidden", "8,x"]).exit_code == 2


@pytest.mark.parametrize(
    ("card", "told"),
    [("{", "--card: .* is not JSON"), ('{"features": ["a"]}', "names 1 features, the model takes 4"), ("[]", "not a JSON object")],
)
def test_a_card_that_does_not_fit_is_not_registered(tmp_path, features, card, told):
    model = train_table(table(tmp_path, features, (features[:, 0] > 0).astype(int)), hidden=(4,), epochs=2)
    (tmp_path / "model.onnx").write_bytes(model.onnx)
    (tmp_path / "card.json").write_text(card)
    options = ["--type", "Own", "--card", str(tmp_path / "card.json"), "--registry", str(tmp_path / "models")]

    done = CliRunner().invoke(main, ["model", "add", str(tmp_path / "model.onnx"), *options])

    assert done.exit_code == 1
    assert Registry(tmp_path / "models").list() == []
    assert re.search(told, done.output)
