"""Accuracy on labelled rows: the interval, the rows that are taken, what is refused, and `he-nn eval` with files, names and types."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from he_backend import zoo
from he_backend.cli import main
from he_backend.errors import InputError, ParameterError
from he_backend.evaluation import evaluate, plain_quality, wilson
from he_backend.graph import convert
from tests.graph.networks import NetworkBuilder
from tests.parties import digits


def test_interval_is_wilsons():
    # Brown, Cai and DasGupta (Statistical Science, 2001) tabulate the same formula; values by its definition, in high precision
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    # both ends are where the share is 1.96 standard errors away, the standard error taken at the end itself
    for end in wilson(503, 512):
        assert abs(abs(503 / 512 - end) - 1.959963984540054 * (end * (1 - end) / 512) ** 0.5) < 1e-12


@pytest.mark.parametrize("correct, low, high", [(0, 0.0, 0.2775), (10, 0.7225, 1.0)])
def test_interval_of_none_and_all_right_has_a_width(correct, low, high):
    found = wilson(correct, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize("correct, count", [(-1, 5), (6, 5), (0, 0)])
def test_interval_of_no_share_is_refused(correct, count):
    with pytest.raises(ParameterError, match="is no share"):
        wilson(correct, count)


def test_plain_and_encrypted_accuracy_are_of_the_rows_of_the_batch():
    program, x, y = digits(90)

    done = evaluate(program, x, y, start_batch=2, batch_size=40, engine="clear")

    assert (done.start_row, done.rows, done.test_rows) == (80, 10, 90)
    assert done.plain.correct == round(10 * plain_quality(program, x[80:], y[80:])["test_acc"])
    assert done.encrypted.correct == done.plain.correct
    assert done.report.rows == 10
    assert done.to_dict()["accuracy_loss"] == 0.0


def test_wrong_labels_lower_the_accuracy():
    program, x, y = digits(50)
    wrong = y.copy()
    wrong[:25] = (wrong[:25] + 1) % 10
    right, half = (evaluate(program, x, labels, encrypted=False).plain.correct for labels in (y, wrong))
    assert half <= right - 23


@pytest.mark.parametrize(
    "given, message", [({"batch_size": 513}, "1 to 512"), ({"batch_size": 0}, "1 to 512"), ({"start_batch": -1}, "0 or more")]
)
def test_rows_out_of_range_are_refused(given, message):
    with pytest.raises(ParameterError, match=message):
        evaluate(*digits(20), **given)


def test_a_batch_beyond_the_test_set_says_which_is_the_last():
    with pytest.raises(InputError, match="the last batch of 8 is 2"):
        evaluate(*digits(20), start_batch=3, batch_size=8)


def test_labels_that_do_not_fit_are_refused():
    program, x, y = digits(20)
    with pytest.raises(InputError, match="labels are float64"):
        evaluate(program, x, y + 0.5, encrypted=False)
    with pytest.raises(InputError, match=r"whole numbers of shape \(20,\)"):
        evaluate(program, x, np.stack([y, y], axis=1), encrypted=False)


def test_one_score_a_row_has_no_accuracy():
    net = NetworkBuilder((4,))
    net.apply("MatMul", net.weights(4, 1), shape=(1, 1))
    with pytest.raises(InputError, match="one for each of two classes or more"):
        evaluate(convert(net.model()), np.zeros((3, 4), np.float32), np.zeros(3, int), encrypted=False)


# The command line


@pytest.fixture
def own(tmp_path):
    """A network of a user's own, its test set, and a registry."""
    net = NetworkBuilder((6,), seed=3)
    net.apply("MatMul", net.weights(6, 8), shape=(1, 8))
    net.apply("Relu")
    net.apply("MatMul", net.weights(8, 3), shape=(1, 3))
    model, test = tmp_path / "own.onnx", tmp_path / "test.npz"
    model.write_bytes(net.model().SerializeToString())
    random = np.random.default_rng(0)
    np.savez(test, x=random.standard_normal((30, 6)).astype(np.float32), y=random.integers(0, 3, 30))
    return model, test, tmp_path / "models"


def he_nn(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_a_network_of_ones_own_is_added_evaluated_and_removed_by_name(own):
    model, test, registry = own
    added = he_nn("model", "add", model, "--type", "Fraud", "--test", test, "--registry", registry, "--json")
    record = json.loads(added.output)
    assert record["model_type"] == "Fraud"
    assert record["model_name"] == record["model_id"][:6] + "Fraud"

    results = [
        json.loads(he_nn("eval", name, "--registry", registry, "--batch-size", 20, "--engine", "clear", "--json").output)
        for name in (record["model_name"], record["model_id"], "fraud", "latest")
    ]
    from_file = json.loads(he_nn("eval", model, "--test", test, "--plain", "--json").output)

    assert {result["model_id"] for result in results} == {record["model_id"]}
    assert {result["plain"]["accuracy"] for result in results} == {results[0]["encrypted"]["accuracy"]}
    assert from_file["plain"]["accuracy"] == record["test_acc"]
    assert from_file["encrypted"] is None
    shown = json.loads(he_nn("model", "show", "latest", "--registry", registry).output)
    assert (shown["model_id"], shown["meta"]["rounds"]) == (record["model_id"], 2)
    assert record["model_name"] in he_nn("model", "list", "--registry", registry).output
    assert he_nn("model", "rm", record["model_name"], "--registry", registry).exit_code == 0
    gone = he_nn("eval", record["model_name"], "--registry", registry)
    assert gone.exit_code == 1
    assert "none is registered" in gone.output


def test_text_says_accuracy_interval_loss_and_cost(tmp_path):
    result = he_nn("eval", "MLP", "--batch-size", 64, "--engine", "clear", "--registry", tmp_path)
    assert result.exit_code == 0, result.output
    for words in ("rows 0 to 63 of 653", "plain ", "encrypted ", "95% interval", "accuracy lost by encryption", "rounds", "agree"):
        assert words in result.output


def test_a_chart_is_drawn(own, tmp_path):
    pytest.importorskip("matplotlib")
    model, test, _ = own
    for how in ("--plain", "--engine=clear"):
        picture = tmp_path / f"chart{how.strip('-').replace('=', '')}.png"
        result = he_nn("eval", model, "--test", test, how, "--png", picture)
        assert result.exit_code == 0, result.output
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_file_without_a_test_set_is_refused(own):
    result = he_nn("eval", own[0])
    assert result.exit_code == 1
    assert "--test" in result.output


def test_a_test_set_that_does_not_fit_is_refused_and_nothing_is_registered(own, tmp_path):
    model, _, registry = own
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=np.zeros((4, 7), np.float32), y=np.zeros(4, int))
    result = he_nn("model", "add", model, "--type", "Fraud", "--test", wrong, "--registry", registry)
    assert result.exit_code == 1
    assert "(rows, 6)" in result.output
    assert "no models are registered" in he_nn("model", "list", "--registry", registry).output


def test_shipped_networks_are_evaluated_by_type(tmp_path):
    result = he_nn("eval", "Cryptonets", "--plain", "--json", "--registry", tmp_path)
    assert json.loads(result.output)["plain"]["accuracy"] == pytest.approx(zoo.shipped("CNN").test_acc, abs=0.01)
