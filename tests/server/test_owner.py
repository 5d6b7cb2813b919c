"""What the model owner computes in the clear: piece by piece, so that it can be ended."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from he_backend import zoo
from he_backend.ckks.params import load_params
from he_backend.client.rows import check_rows
from he_backend.errors import Cancelled, CapacityError, EngineError, InputError, ParameterError
from he_backend.graph import Reference, convert
from he_backend.server.models import RegistryModels
from he_backend.server.owner import Owner, simulate
from he_backend.server.registry import Registry


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path)


@pytest.fixture
def record(registry):
    return registry.add(zoo.shipped("MLP").onnx_path, "MLP")


@pytest.fixture
def owner(registry):
    return Owner(registry, RegistryModels(registry))


def test_plain_predictions_come_in_pieces_and_end_when_they_shall(owner, record):
    rows, looks = zoo.shipped("MLP").load_test()[0][:100], []

    outputs = owner.predict(record, rows, lambda: looks.append(1))

    np.testing.assert_allclose(outputs, next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(rows).values())), rtol=1e-5, atol=1e-6)
    assert len(looks) > 2

    def proceed():
        if len(looks) > 3:
            raise Cancelled("stopped")
        looks.append(1)

    looks.clear()
    with pytest.raises(Cancelled):
        owner.predict(record, rows, proceed)


@pytest.mark.parametrize("value", [1e39, -1e300, np.nan, np.inf])
def test_rows_that_the_network_s_type_cannot_hold_are_refused_as_in_encrypted_inference(owner, record, value):
    rows = np.zeros((3, 64))
    rows[1, 5] = value

    with pytest.raises(InputError) as plain:
        owner.predict(record, rows)
    with pytest.raises(InputError) as encrypted:
        check_rows(rows, convert(str(zoo.shipped("MLP").onnx_path)).inputs)
    assert str(plain.value) == str(encrypted.value) == "input x: 1 of 3 rows have NaN or infinity; mend or leave out these rows"


@pytest.mark.parametrize(
    "stderr, error, says",
    [
        (
            'a warning\n{"error": "parameter", "message": "answer modulus 5; allowed: more"}',
            ParameterError,
            "answer modulus 5; allowed: more",
        ),
        ('{"error": "capacity", "message": "too large"}', CapacityError, "too large"),
        ('{"error": "transport", "message": "gone"}', EngineError, "gone"),
        ('{"error": "__class__", "message": "x"}', EngineError, "x"),
        ('Traceback\nValueError: "x"', EngineError, 'ValueError: "x"'),
        ("[1]", EngineError, r"\[1\]"),
        ("", EngineError, "it ended without a word"),
    ],
)
def test_a_simulated_client_that_fails_is_told_by_the_kind_of_its_error(monkeypatch, stderr, error, says):
    failed = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)

    with pytest.raises(error, match=f"^the simulated client failed: {says}$") as told:
        simulate("id", np.zeros((1, 2)), load_params("N11_L1"), "127.0.0.1:1")
    assert type(told.value) is error


def test_a_simulated_client_that_takes_too_long_is_cancelled(monkeypatch):
    def slow(*_, **__):
        raise subprocess.TimeoutExpired("infer", 1.5)

    monkeypatch.setattr(subprocess, "run", slow)

    with pytest.raises(Cancelled, match=r"longer than the 1.5 s that one may \(--task-seconds\)"):
        simulate("id", np.zeros((1, 2)), load_params("N11_L1"), "127.0.0.1:1", timeout_s=1.5)
