"""Conversion by a strategy, from Python and as `he-nn convert`: accuracy before and after, rounds, refusals."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import he_backend as he
from he_backend.commands.convert import convert as command
from he_backend.errors import InputError, ModelError, NotFoundError, ParameterError
from he_backend.strategies import STRATEGIES, convert_by, strategy
from he_backend.strategies.convert import file_data, source_of, zoo_data
from he_backend.zoo import model_types, shipped
from he_backend.zoo.storage import is_half


@pytest.fixture(autouse=True)
def only_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("HE_NN_DATA", str(tmp_path / "nothing"))


def converted(model_type, name="he-friendly", **options):
    network = shipped(model_type, "digits")
    return convert_by(name, network.onnx_path.read_bytes(), zoo_data(model_type, "digits"), model_name=network.onnx_path.stem, **options)


@pytest.mark.parametrize("model_type", [kind.name for kind in model_types()])
def test_exact_loses_nothing(model_type):
    network = shipped(model_type, "digits")

    result = converted(model_type, "exact")

    assert result.accuracy_before == pytest.approx(network.test_acc, abs=2e-3) and result.loss_points == pytest.approx(0, abs=0.16)
    assert result.rounds_before == result.rounds_after and result.model == network.onnx_path.read_bytes()
    assert result.replaced == () and result.test_rows == 653


# Points that the original service lost, and what is replaced.
FRIENDLY = {
    "MLP": (1.1, {"Relu -> polynomial of degree 2": 2}),
    "AlexNet": (1.5, {"Relu -> polynomial of degree 2": 7, "MaxPool -> AveragePool": 3}),
    "RNN": (6.4, {"GRU -> GRU with HardSigmoid and Softsign": 1}),
}


@pytest.mark.parametrize("model_type", FRIENDLY)
def test_he_friendly_loses_no_more_than_the_original_service(model_type):
    pytest.importorskip("torch")
    most, replaced = FRIENDLY[model_type]

    result = converted(model_type, epochs=8 if model_type == "AlexNet" else 3)

    assert {what: result.replaced.count(what) for what in result.replaced} == replaced
    assert result.loss_points <= most and result.accuracy_after > 0.9
    assert result.rounds_after == result.rounds_before and is_half(result.model) == (model_type != "MLP")


def test_a_friendly_network_runs_encrypted_and_keeps_its_tables_public():
    pytest.importorskip("torch")
    x = shipped("BERT", "digits").load_test()[0][:8]

    result = converted("BERT", epochs=1)
    found = he.infer(he.convert(result.model), x, preset="N11_L1")

    assert found.report.agreement == 1.0 and found.report.rounds == result.rounds_after
    assert any("embedding table" in entry for entry in result.program.public_constants)


def test_the_same_seed_gives_the_same_network_and_another_does_not():
    pytest.importorskip("torch")
    first, again, other = (converted("MLP", epochs=1, seed=seed) for seed in (1, 1, 2))

    assert first.model == again.model and first.model != other.model


def test_squares_are_left_as_they_are():
    pytest.importorskip("torch")

    result = converted("CNN")

    assert result.replaced == () and result.epochs == 0 and result.loss_points == pytest.approx(0, abs=0.16)


def test_a_choice_for_the_tables_is_written_into_the_result():
    result = converted("RNN", "exact", embeddings="private")

    assert result.rounds_after == shipped_rounds("RNN") + 1
    assert he.convert(result.model).rounds == result.rounds_after
    assert {entry.value for entry in onnx.load_from_string(result.model).metadata_props} == {"private"}


def shipped_rounds(model_type):
    return he.convert(shipped(model_type, "digits").onnx_path).rounds


def test_refusals():
    model = shipped("MLP", "digits").onnx_path.read_bytes()
    with pytest.raises(ParameterError, match="'fast' is not known: take one of exact, he-friendly"):
        strategy("fast")
    with pytest.raises(InputError, match="needs|give it training rows"):
        convert_by("he-friendly", model)
    with pytest.raises(ModelError, match="not an ONNX model"):
        convert_by("exact", b"nothing")
    with pytest.raises(ParameterError, match="learning_rate is 2"):
        convert_by("he-friendly", model, zoo_data("MLP", "digits"), learning_rate=2)
    with pytest.raises(ParameterError, match="epochs is 0"):
        convert_by("he-friendly", model, zoo_data("MLP", "digits"), epochs=0)
    with pytest.raises(NotFoundError, match="not in the zoo"):
        source_of("GPT")


@pytest.mark.parametrize(
    "arrays", [{"a": np.zeros(3)}, {"x": np.zeros((3, 4)), "y": np.zeros(2)}, {"x": np.zeros((0, 4)), "y": np.zeros(0)}]
)
def test_other_row_files_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "rows.npz", **arrays)

    with pytest.raises(InputError, match=r"rows\.npz"):
        file_data(str(tmp_path / "rows.npz"), None)


# he-nn convert


def run(*arguments):
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_help_lists_every_strategy_and_what_it_does_to_each_type():
    text = run("--help").output

    for one in STRATEGIES:
        assert f"{one.name}: " in text
        for model_type in one.by_type:
            assert f"    {model_type}: " in text


def test_a_type_is_reported_and_written(tmp_path):
    answer = run("AlexNet", "--out", tmp_path / "a.onnx")

    assert answer.exit_code == 0, answer.output
    assert "alexnet-digits, strategy exact" in answer.stdout and "0.00 points lost" in answer.stdout
    assert "rounds 8 before, 8 after" in answer.stdout
    assert he.convert(tmp_path / "a.onnx").rounds == 8


def test_a_network_of_ones_own_with_its_own_rows_as_json(tmp_path):
    pytest.importorskip("torch")
    data, network = zoo_data("MLP", "digits"), shipped("MLP", "digits")
    (tmp_path / "mine.onnx").write_bytes(network.onnx_path.read_bytes())
    np.savez(tmp_path / "train.npz", x=data.kind.as_input(data.train_x), y=data.train_y)
    np.savez(tmp_path / "test.npz", x=data.test_x, y=data.test_y)
    files = ["--data", tmp_path / "train.npz", "--test", tmp_path / "test.npz", "--out", tmp_path / "out.onnx"]

    answer = run(tmp_path / "mine.onnx", "--strategy", "he-friendly", "--epochs", "5", "--json", *files)

    report = json.loads(answer.stdout)
    assert report["model"] == "mine" and report["replaced"] == {"Relu -> polynomial of degree 2": 2} and report["epochs"] == 5
    assert report["loss_points"] <= 1.1 and report["accuracy_before"] == pytest.approx(network.test_acc, abs=2e-3)
    assert he.convert(tmp_path / "out.onnx").rounds == report["rounds_after"] == 3


def test_an_unknown_networks_accuracy_is_not_measured_and_he_friendly_asks_for_rows(tmp_path):
    (tmp_path / "mine.onnx").write_bytes(shipped("MLP", "digits").onnx_path.read_bytes())

    exact, friendly = run(tmp_path / "mine.onnx"), run(tmp_path / "mine.onnx", "--strategy", "he-friendly")

    assert exact.exit_code == 0 and "accuracy not measured" in exact.stdout
    assert friendly.exit_code == 1 and "give an .npz" in friendly.output


def test_exact_does_without_the_data_set_and_says_what_is_missing():
    answer = run("AlexNet", "--data", "mnist")

    assert answer.exit_code == 0 and "train-images" not in answer.stdout
    assert "t10k-images-idx3-ubyte.gz" in answer.output and "accuracy not measured" in answer.stdout
    assert run("AlexNet", "--data", "mnist", "--strategy", "he-friendly").exit_code == 1


def test_wrong_usage(tmp_path):
    assert run("MLP", "--strategy", "magic").exit_code == 2
    assert run("GPT").exit_code == 1
    assert run("MLP", "--epochs", "0").exit_code == 2
    missing = run(tmp_path / "none.onnx")
    assert missing.exit_code == 1 and "cannot be read" in missing.output
