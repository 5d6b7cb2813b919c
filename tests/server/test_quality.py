"""How a server measures networks of its own: labels by the card, and errors in place of an accuracy for a regression."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.api import HEServer
from he_backend.server.models import RegistryModels
from he_backend.server.owner import Owner
from he_backend.server.registry import Registry
from he_backend.zoo.tabular import Table, train_table
from tests import processes


def add(registry, labels):
    x = np.random.default_rng(0).normal(size=(400, 3))
    model = train_table(Table(("a", "b", "c"), x, labels(x)), hidden=(16,), epochs=300)
    return registry.add(model.onnx, "Own", test=(model.test_x, model.test_y), meta=model.card.to_dict()), model


def regression(x):
    return x[:, 0] - 2 * x[:, 1] + 0.5


def test_a_regression_has_errors_and_no_accuracy(tmp_path):
    registry = Registry(tmp_path)
    record, model = add(registry, regression)
    owner = Owner(registry, RegistryModels(registry))

    assert owner.measure(record).test_acc is None
    done = owner.evaluate(record, 0, 80, None, "")
    assert done.test_acc is None and done.figures["r2"] == pytest.approx(model.figures["r2"]) and done.figures["rmse"] > 0


def test_a_classifier_is_measured_by_the_labels_of_its_card(tmp_path):
    registry = Registry(tmp_path)
    record, model = add(registry, lambda x: np.where(x[:, 0] > 0, 9, 4).astype(float))  # one output, labels 4 and 9
    owner = Owner(registry, RegistryModels(registry))

    assert owner.measure(record).test_acc == pytest.approx(model.figures["test_acc"]) and model.figures["test_acc"] > 0.9


def test_the_service_tells_the_card_and_measures_by_it(tmp_path):
    record, _ = add(Registry(tmp_path / "models"), regression)
    service = processes.server(tmp_path)
    try:
        server = HEServer(service.http)
        found = server.find("Own")
        done = server.test("Own", record.model_id, encrypted=True, preset="N12_L4", batch_size=50)
    finally:
        assert service.stop() == 0

    assert found.data["meta"]["features"] == ["a", "b", "c"] and found.data["meta"]["task"] == "regression" and found.test_acc is None
    assert done.test_acc is None and done.figures["r2"] > 0.9 and "rmse" in done.log
