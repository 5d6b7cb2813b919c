"""The components by way of an HE-server and an HE-client service, as real processes: the same predictions, no host party."""

from __future__ import annotations

import json

import numpy as np
import pytest

from he_backend.api import HEServer
from he_backend.errors import InputError, NotFoundError, ParameterError, TransportError
from he_nn.guest import DataOwner
from he_nn.host import ModelOwner
from he_nn.params import EvalParams, InferenceParams, LoadParams
from he_nn.table import Rows
from tests import processes
from tests.he_nn.test_roles import CUSTOM, Recorder, digits


class NoChannel:
    """Fails when a task waits on it: with a service there may be no host party at all. What nobody has to read is kept."""

    def __init__(self):
        self.notified = []

    def notify(self, data):
        self.notified.append(data)

    def send(self, data):
        raise AssertionError("the channel was used")

    receive = send


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    server = processes.server(tmp_path_factory.mktemp("server"))
    client = processes.client(tmp_path_factory.mktemp("client"), server.http)
    yield server, client
    assert (client.stop(), server.stop()) == (0, 0)


@pytest.fixture(scope="module")
def bound(services):
    return guest("load", LoadParams.of({"model_type": "MLP", "server_url": services[0].http}))[0]


def guest(operation, params, *given):
    recorder = Recorder()
    return getattr(DataOwner(recorder), operation)(NoChannel(), params, *given), recorder


def inference(services, through_client, **values):
    urls = {"server_url": services[0].http, "client_url": services[1].http, "client": through_client}
    more = {"model_type": "MLP", "is_encryption": True, "encryption_parameters": "N11_L1"}
    return InferenceParams.of({**urls, **more, **values})


def test_a_model_is_bound_at_the_server(services, bound):
    assert HEServer(services[0].http).find("MLP", "latest").model_id == bound.model_id
    assert bound.model_name == bound.model_id[:6] + "MLP" and bound.preset == bound.plan["preset"] == "N13_L8" and bound.plan["rounds"] == 3


@pytest.mark.parametrize("at", [0, 1])
def test_a_bound_model_is_loaded_again_at_either_port(services, bound, at):
    params = LoadParams.of({"model_type": "MLP", "server_url": services[at].http, "is_init": False, "model_id": bound.model_name})

    assert guest("load", params)[0] == bound


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_server_evaluates(services, bound, encrypted):
    params = EvalParams.of(
        {"model_type": "MLP", "server_url": services[0].http, "start_batch": 2, "batch_size": 50, "is_encryption": encrypted}
    )

    done, recorder = guest("evaluate", params, bound)

    x, y = digits(150)[0].values, digits(150)[0].labels
    assert len(x) == len(y) == 150
    right = digits(150)[1].argmax(axis=1) == y
    assert done.figures["test_acc"] == pytest.approx(float(right[100:].mean()))
    assert done.figures["start_row"] == 100 and done.figures["is_encryption"] is encrypted
    assert done.model_id == bound.model_id and done.test_acc == bound.test_acc
    assert recorder.figures["model_id"] == bound.model_id
    assert len(recorder.series_by_name["round_ms"]) == (3 if encrypted else 0)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("through_client", [False, True])
def test_predictions_are_those_of_onnx_runtime(services, bound, through_client, encrypted):
    rows, plain = digits(20)

    done, recorder = guest("infer", inference(services, through_client, is_encryption=encrypted), rows, bound)

    assert done.rows is rows and done.predictions.result == plain.argmax(axis=1).tolist()
    assert done.artifact.model_id == bound.model_id and done.artifact.plan == bound.plan
    assert done.artifact.figures["is_encryption"] is encrypted and done.artifact.figures["rows"] == 20
    assert recorder.figures["accuracy"] == pytest.approx(float((plain.argmax(axis=1) == rows.labels).mean()))
    if encrypted:
        assert done.artifact.preset == "N11_L1" and recorder.figures["rounds"] == 3
        assert recorder.points[-1][0] == recorder.points[-1][1]


@pytest.mark.parametrize("through_client", [False, True])
def test_custom_parameters_go_along(services, bound, through_client):
    rows, plain = digits(5)
    params = inference(services, through_client, encryption_parameters=json.dumps(CUSTOM), is_custom_enc_param=True)

    done, _ = guest("infer", params, rows)

    assert done.artifact.preset == "custom_enc_param" and done.predictions.result == plain.argmax(axis=1).tolist()


def test_rows_come_from_a_file(services, bound, tmp_path):
    rows, plain = digits(6)
    np.save(tmp_path / "rows.npy", rows.values.astype(np.float32))

    done, _ = guest("infer", inference(services, True, file_inference=str(tmp_path / "rows.npy"), num_inference=4))

    assert done.rows.ids == ("0", "1", "2", "3") and done.predictions.result == plain[:4].argmax(axis=1).tolist()


@pytest.mark.parametrize(
    "values, error, says",
    [
        ({"model_id": "nobody"}, NotFoundError, "nobody"),
        ({"server_url": "127.0.0.1:1"}, TransportError, "no answer"),
        ({"client_url": "127.0.0.1:1", "client": True}, TransportError, "no answer"),
    ],
)
def test_what_a_service_refuses_is_told(services, bound, values, error, says):
    with pytest.raises(error, match=says):
        guest("infer", inference(services, False, **values), digits(2)[0])


@pytest.mark.parametrize("through_client", [False, True])
def test_rows_that_do_not_fit_are_refused(services, bound, through_client):
    with pytest.raises(InputError, match="63"):
        guest("infer", inference(services, through_client), Rows((1, 2), np.full((2, 63), 0.5)))


def test_an_he_client_as_server_url_is_told_apart(services, bound):
    with pytest.raises(ParameterError, match="is an HE-client"):
        guest("infer", inference(services, False, server_url=services[1].http), digits(2)[0])


@pytest.mark.parametrize(
    ("operation", "params"), [("load", LoadParams()), ("evaluate", EvalParams()), ("infer", InferenceParams(client=True))]
)
def test_a_host_party_has_nothing_to_do(operation, params):
    recorder, channel = Recorder(), NoChannel()

    artifact = getattr(ModelOwner(_no_registry, recorder), operation)(channel, params)

    assert artifact.model_name == "" and "nothing to do" in recorder.lines[0] and len(channel.notified) == 1


def _no_registry():
    raise AssertionError("a host without work needs no registry")


def test_a_federation_that_does_not_work_is_no_obstacle_for_a_service():
    class Broken(NoChannel):
        def notify(self, data):
            raise OSError("the broker is gone")

    recorder = Recorder()

    ModelOwner(_no_registry, recorder).load(Broken(), LoadParams())

    assert "the guest could not be told that this party uses an HE service (OSError)" in recorder.lines[0]
