"""What the model owner computes in the clear: piece by piece, so that it can be ended."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend import zoo
from he_backend.errors import Cancelled
from he_backend.graph import Reference
from he_backend.server.models import RegistryModels
from he_backend.server.owner import Owner
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
