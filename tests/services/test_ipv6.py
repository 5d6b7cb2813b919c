"""Both services on the IPv6 loopback: by the HE-client, from the command line, and as the FATE components call them."""

from __future__ import annotations

import contextlib
import json
import socket

import numpy as np
import pytest
from click.testing import CliRunner

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.cli import main
from he_backend.graph import Reference
from he_nn.params import EvalParams, InferenceParams, LoadParams
from he_nn.service import evaluate, infer, load
from he_nn.table import Rows
from tests import processes
from tests.he_nn.test_roles import Recorder

PRESET = "N11_L1"


def _has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as found:
        found.bind(("::1", 0))
        return True
    return False


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    service = processes.server(tmp_path_factory.mktemp("server"), "--host", "::1")
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def client(tmp_path_factory, server):
    service = processes.client(tmp_path_factory.mktemp("client"), server.http, "--host", "::1")
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def model(server):
    return HEServer(server.http).load("MLP")


@pytest.fixture(scope="module")
def rows():
    return zoo.shipped("MLP").load_test()[0][:10]


@pytest.fixture(scope="module")
def plain(rows):
    return next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(rows).values()))


@pytest.mark.parametrize("named", [False, True])
def test_an_encrypted_inference_through_the_he_client(server, client, model, rows, plain, named):
    assert server.http.startswith("[::1]:") and client.http.startswith("[::1]:")

    done = HEClient(client.http, server.http if named else "").inference("MLP", rows, preset=PRESET)

    assert done.model_id == model.model_id
    assert np.abs(done.outputs - plain).max() < 2.0 ** -done.figures["expected_bits"] * np.abs(plain).max()


@pytest.mark.parametrize("by", ["http", "channel"])
def test_he_nn_infer(server, model, rows, tmp_path, by):
    np.save(tmp_path / "rows.npy", rows)
    address = f"http://{server.http}" if by == "http" else server.channel

    ran = CliRunner().invoke(main, ["infer", "latest", str(tmp_path / "rows.npy"), "--server", address, "--preset", PRESET, "--json"])

    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["rows"] == 10


@pytest.mark.parametrize("through_client", [False, True])
def test_the_components(server, client, model, rows, plain, through_client):
    urls = {"model_type": "MLP", "server_url": server.http}
    more = {"client": through_client, "client_url": client.http, "is_encryption": True, "encryption_parameters": PRESET}
    given = Rows(tuple(range(len(rows))), rows.reshape(len(rows), -1).astype(np.float64))

    bound = load(LoadParams.of({**urls, "is_init": False, "model_id": model.model_id}))
    measured = evaluate(EvalParams.of({**urls, "model_id": model.model_id, "batch_size": 10}), bound)
    served = infer(InferenceParams.of({**urls, **more, "model_id": model.model_id}), given, Recorder())

    assert bound.model_id == measured.model_id == served.model.model_id == model.model_id
    assert np.array_equal(served.outputs.argmax(axis=1), plain.argmax(axis=1))
