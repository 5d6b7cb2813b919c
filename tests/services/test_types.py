"""AlexNet, RNN and BERT as built-in types of the two services."""

from __future__ import annotations

import json

import numpy as np
import pytest

from he_backend import zoo
from he_backend.graph import Reference
from tests import processes
from tests.processes import post
from tests.services.test_flows import ok, upload

PRESET = "N11_L1"


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """A server and a client without data sets: the networks are those of digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HE_NN_DATA", str(tmp_path_factory.mktemp("nothing")))
        server = processes.server(tmp_path_factory.mktemp("server"))
        client = processes.client(tmp_path_factory.mktemp("client"), server.http)
        yield server, client
        assert client.stop() == 0
        assert server.stop() == 0


@pytest.mark.parametrize("model_type, rounds", [("AlexNet", 8), ("RNN", 9), ("BERT", 10)])
def test_a_type_is_loaded_evaluated_and_inferred(services, model_type, rounds):
    server, client = services
    network = zoo.shipped(model_type, "digits")
    rows = network.load_test()[0][:5]
    plain = next(iter(Reference(network.onnx_path).run(rows).values()))

    model = ok(post(server.http, "/model/load", form={"model_type": model_type, "is_init": 1}))
    asked = {"model_type": model_type, "model_name": model["model_name"]}
    evaluated = ok(post(server.http, "/model/test", {**asked, "is_encryption": True, "enc_param": PRESET, "batch_size": 5}))
    file = {"inf_file_name": upload(client.http, rows), "is_encryption": "yes", "encryption_params": PRESET, "batch_size": 5}
    inferred = ok(post(client.http, "/model/inference", {**asked, **file}))

    assert model["model_name"] == model["model_id"][:6] + model_type and model["plan"]["rounds"] == rounds
    assert model["test_acc"] == pytest.approx(network.test_acc, abs=2e-3)
    assert evaluated["figures"]["rounds"] == rounds
    assert evaluated["test_acc"] == ok(post(server.http, "/model/test", {**asked, "batch_size": 5}))["test_acc"]
    np.testing.assert_allclose(json.loads(inferred["inference_result"]), plain, atol=2e-2)
