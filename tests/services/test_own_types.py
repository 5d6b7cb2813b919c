"""A type that a user added works over HTTP as a built-in one does: load, list, evaluation, plain and encrypted inference."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from he_backend.graph import Reference
from tests import processes
from tests.graph.networks import NetworkBuilder
from tests.processes import post
from tests.services.test_flows import ok, refused, upload

TYPE = "Fraud-v2"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """ONNX file, rows, labels (what the plain network predicts)."""
    net = NetworkBuilder((5,), seed=1)
    net.apply("MatMul", net.weights(5, 7), shape=(1, 7))
    net.apply("Tanh")
    net.apply("MatMul", net.weights(7, 4), shape=(1, 4))
    folder = tmp_path_factory.mktemp("network")
    path = folder / "net.onnx"
    path.write_bytes(net.model().SerializeToString())
    x = np.random.default_rng(0).standard_normal((24, 5)).astype(np.float32)
    y = next(iter(Reference(str(path)).run(x).values())).argmax(axis=1)
    np.savez(folder / "test.npz", x=x, y=y)
    return path, x, y


@pytest.fixture(scope="module")
def services(network, tmp_path_factory):
    """HE-server and HE-client; the network was added to the server's registry on the command line."""
    homes = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("client")
    add = [sys.executable, "-m", "he_backend.cli", "model", "add", str(network[0]), "--type", TYPE, "--json"]
    add += ["--test", str(network[0].parent / "test.npz")]
    paths = os.pathsep.join([str(processes.TOP / "backend"), str(processes.TOP)])
    environment = {**os.environ, "HE_NN_HOME": str(homes[0]), "PYTHONPATH": paths}
    record = json.loads(subprocess.run(add, env=environment, check=True, capture_output=True, text=True).stdout)
    server = processes.server(homes[0])
    client = processes.client(homes[1], server.http)
    yield server, client, record
    assert client.stop() == 0
    assert server.stop() == 0


def test_it_is_loaded_listed_and_registered_again(services):
    server, _, record = services
    loaded = ok(post(server.http, "/model/load", {"model_type": TYPE.lower(), "is_init": 0}))
    assert (loaded["model_id"], loaded["test_acc"]) == (record["model_id"], 1.0)
    again = ok(post(server.http, "/model/load", {"model_type": TYPE, "is_init": 1}))
    assert again["model_id"] != record["model_id"]
    assert again["model_name"] == again["model_id"][:6] + TYPE
    assert again["test_acc"] == 1.0
    listed = ok(post(server.http, "/model/get_list", {"model_type": TYPE}))["model_list"]
    assert [one["model_id"] for one in listed] == [record["model_id"], again["model_id"]]


@pytest.mark.parametrize("encrypted", [False, True])
def test_it_is_evaluated(services, encrypted):
    server, _, record = services
    body = {"model_type": TYPE, "model_name": record["model_name"], "is_encryption": encrypted, "enc_param": "N11_L1", "batch_size": 24}
    done = ok(post(server.http, "/model/test", body))
    assert (done["model_type"], done["batch_size"]) == (TYPE, 24)
    assert done["test_acc"] >= 23 / 24  # a tie may fall the other way


@pytest.mark.parametrize("encrypted", ["no", "yes"])
def test_it_is_inferred(services, network, encrypted):
    _, client, record = services
    body = {
        "model_type": TYPE, "model_name": record["model_id"], "inf_file_name": upload(client.http, network[1]),
        "is_encryption": encrypted, "encryption_params": "N11_L1", "batch_size": 24,
    }  # fmt: skip
    done = ok(post(client.http, "/model/inference", body))
    scores = np.array(json.loads(done["inference_result"]))
    due = next(iter(Reference(str(network[0])).run(network[1]).values()))
    assert float(np.abs(scores - due).max()) <= 2.0**-10 * float(np.abs(due).max())


def test_a_type_that_nobody_added_says_how_to_add_it(services):
    message = refused(post(services[0].http, "/model/load", {"model_type": "Unheard", "is_init": 1}), 404)
    assert "he-nn model add FILE --type Unheard" in message
