"""AlexNet, RNN and BERT through the whole of an encrypted inference and through the registry, on digits."""

from __future__ import annotations

import numpy as np
import pytest

import he_backend as he
from he_backend.graph import Reference
from he_backend.server.models import RegistryModels, registered_program
from he_backend.server.owner import Owner
from he_backend.server.registry import Registry
from he_backend.zoo import resolve, shipped
from he_backend.zoo.evaluate import accuracy

ROUNDS = {"AlexNet": 8, "RNN": 9, "BERT": 10}


@pytest.fixture(autouse=True)
def only_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("HE_NN_DATA", str(tmp_path / "nothing"))


@pytest.mark.parametrize("model_type", ROUNDS)
@pytest.mark.parametrize("rows", [1, 40])
def test_encrypted_scores_are_the_plain_ones(model_type, rows):
    network = shipped(model_type, "digits")
    x = network.load_test()[0][:rows]

    result = he.infer(network.onnx_path, x, preset="N11_L1")

    assert result.report.rounds == ROUNDS[model_type] and result.report.engine != "clear"
    assert result.report.agreement == 1.0
    assert result.report.max_abs_error < 2.0**-8 * max(1.0, float(np.abs(result.output).max()))


@pytest.mark.parametrize("model_type", ROUNDS)
def test_a_type_is_registered_measured_evaluated_and_loaded_again(tmp_path, model_type):
    registry = Registry(tmp_path)
    owner = Owner(registry, RegistryModels(registry))

    record = owner.register(model_type.upper())

    assert record.model_name == record.model_id[:6] + model_type and record.test_acc == pytest.approx(
        shipped(model_type).test_acc, abs=2e-3
    )
    assert owner.evaluate(record, 0, 512, None, "").rows == 512
    assert owner.load(model_type).model_id == record.model_id
    assert registered_program(registry, record).rounds == ROUNDS[model_type]


@pytest.mark.parametrize("model_type", ["RNN", "BERT"])
def test_a_registered_model_keeps_what_its_owner_chose_for_its_tables(tmp_path, model_type):
    registry, network = Registry(tmp_path), shipped(model_type, "digits")
    assert network.describe()["embeddings"] == "public"
    public = registry.add(network.onnx_path, model_type, meta=network.describe())
    private = registry.add(network.onnx_path, model_type, meta={"embeddings": "private"})
    models = RegistryModels(registry)

    programs = [models.find(record.model_id).program for record in (public, private, public)]

    assert programs[0] is programs[2]  # the two are the same file, and are not mistaken for each other
    assert programs[1].rounds == programs[0].rounds + 1
    assert any("embedding table" in entry for entry in programs[0].public_constants)
    assert not any("embedding table" in entry for entry in programs[1].public_constants)
    assert any("one-hot" in note for note in programs[1].notes)


@pytest.mark.parametrize("name", ["alexnet-mnist", "rnn-trec", "rnn-sst2", "bert-sst2"])
def test_networks_of_real_data_are_as_good_as_promised(name):
    model_type, dataset = name.split("-")
    least = {"alexnet": 0.992, "rnn": 0.80, "bert": 0.80}[model_type]

    network = shipped(model_type, dataset)

    assert network.test_acc >= least and network.onnx_path.stat().st_size < 1_500_000
    assert network.embeddings == ("public" if resolve(model_type).text else "")


def test_accuracy_of_ids_is_measured_like_that_of_images():
    network = shipped("RNN", "digits")
    x, y = network.load_test()

    found = next(iter(Reference(network.onnx_path).run(x).values())).argmax(axis=1)

    assert float((found == y).mean()) == accuracy(network.onnx_path.read_bytes(), x, y)
