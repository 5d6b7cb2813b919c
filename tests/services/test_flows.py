"""Flows A and B of the two services, as real processes: every path of the API, in the forms that users send, and its refusals."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.errors import InputError, NotFoundError, ParameterError, SecurityError, TransportError
from he_backend.graph import Reference
from tests import postgres, processes
from tests.processes import get, multipart, post

PRESET = "N11_L1"


@pytest.fixture(scope="module")
def homes(tmp_path_factory, databases):
    return tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def databases(request):
    """Options of the HE-server and of the HE-client that say where the records are; the two may share a database."""
    if request.param == "sqlite":
        yield (), ()
        return
    with postgres.cluster() as cluster:
        tasks = ("--database", cluster.create())
        yield (*tasks, "--registry-database", cluster.create()), tasks


@pytest.fixture(scope="module")
def server(homes, databases):
    service = processes.server(homes[0], "--upload-bytes", 1 << 20, *databases[0])
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def client(homes, server, databases):
    service = processes.client(homes[1], server.http, *databases[1])
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def model(server):
    return ok(post(server.http, "/model/load", {"model_type": "MLP", "is_init": 1}))


@pytest.fixture(scope="module")
def rows():
    return zoo.shipped("MLP").load_test()[0][:30]


@pytest.fixture(scope="module")
def plain(rows):
    return next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(rows).values()))


def ok(reply):
    status, envelope = reply
    assert status == envelope["code"] == 200 and envelope["message"] == "success", envelope
    return envelope["data"]


def refused(reply, code):
    status, envelope = reply
    assert status == envelope["code"] == code and set(envelope) == {"code", "data", "message", "headers"}, envelope
    return envelope["message"]


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def upload(http, array, name="test.npy"):
    return ok(multipart(http, "/model/uploadfile", {"file_name": name}, [(name, npy(array))]))["inf_file_name"]


# flow A


def test_a_new_model_is_registered_named_and_measured(server, model):
    assert model["loadModel"] == "success" and model["model_type"] == "MLP" and model["model_owner"] == ""
    assert model["model_name"] == model["model_id"][:6] + "MLP"
    assert model["test_acc"] == pytest.approx(zoo.shipped("MLP").test_acc)
    assert f"127.0.0.1:{model['ciphertext_port']}" == server.channel
    assert model["plan"]["rounds"] == 3


@pytest.mark.parametrize("name", ["latest", "id", "model_name"])
@pytest.mark.parametrize("through_client", [False, True])
def test_a_registered_model_is_loaded_by_name_id_or_as_the_latest(server, client, model, name, through_client):
    wanted = model.get("model_id" if name == "id" else name, name)

    data = ok(
        post((client if through_client else server).http, "/model/load", form={"model_type": "MLP", "is_init": 0, "model_name": wanted})
    )

    assert (data["model_id"], data["test_acc"]) == (model["model_id"], model["test_acc"])


@pytest.mark.parametrize("body", [{"model_type": "all"}, {"model_type": ""}, {}, {"model_type": "MLP"}])
@pytest.mark.parametrize("through_client", [False, True])
def test_models_are_listed_by_type(server, client, model, body, through_client):
    data = ok(post((client if through_client else server).http, "/model/get_list", body))

    assert [one["model_id"] for one in data["model_list"]] == [model["model_id"]]
    assert data["model_list"][0]["model_name"] == model["model_name"]
    assert data["query_state"] == data["quary_state"] == "success"


def test_another_type_has_no_models_yet(server, model):
    assert ok(post(server.http, "/model/get_list", {"model_type": "CNN"}))["model_list"] == []


@pytest.mark.parametrize("through_client", [False, True])
def test_a_model_is_shown_with_its_rounds(server, client, model, through_client):
    data = ok(post((client if through_client else server).http, "/model/show", {"model_name": model["model_id"]}))

    assert data["model_name"] == model["model_name"] and data["rounds"] == 3
    assert data["segments"][1] == {"index": 1, "client_step": "Relu", "sends": 64, "answers": 64}
    assert data["inputs"] == [{"name": "x", "shape": [64], "dtype": "float32"}] and data["last_step"] == "nothing"


def test_the_newest_inferences_alone_may_be_asked_for(client, model, rows):
    api = HEClient(client.http)
    newest = [api.inference("MLP", rows[:1], preset=PRESET).inference_id for _ in range(2)]

    data = ok(post(client.http, "/model/get_inference", {"limit": 1}))

    assert [one["inference_id"] for one in data["inference_list"]] == newest[1:]


@pytest.mark.parametrize("through_client", [False, True])
def test_a_plain_evaluation_takes_the_batch_it_names(server, client, model, through_client):
    x, y = zoo.shipped("MLP").load_test()
    right = next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(x).values())).argmax(axis=1) == y

    data = ok(
        multipart((client if through_client else server).http, "/model/test", {"model_type": "MLP", "start_batch": 3, "batch_size": 32})
    )

    assert data["test_acc"] == pytest.approx(float(right[96:128].mean()))
    assert data["batch_size"] == 32 and data["is_enc"] is False and data["loadModel"] == "success"
    assert data["model_id"] == model["model_id"] and re.fullmatch(r"\d+\.\d{3}\(s\)", data["time_cost"])


def test_an_encrypted_evaluation_runs_a_simulated_client(server, model):
    asked = {"model_type": "MLP", "model_name": model["model_name"], "is_encryption": True, "enc_param": PRESET, "batch_size": 200}

    data = ok(post(server.http, "/model/test", asked))

    assert data["is_enc"] is True and data["encryption_parameters"] == f"he_seal_ckks_config_{PRESET}.json"
    assert data["figures"]["rounds"] == 3 and data["figures"]["preset"] == PRESET and data["figures"]["bytes_up"] > 10_000
    assert data["test_acc"] == ok(post(server.http, "/model/test", {**asked, "is_encryption": False}))["test_acc"]
    assert "simulated client" in data["log"]


# flow B


def test_encrypted_inference_gives_what_onnx_runtime_gives(server, client, model, rows, plain):
    name = upload(client.http, rows)
    asked = {"model_type": "MLP", "model_name": model["model_name"], "inf_file_name": name, "is_encryption": "yes", "batch_size": len(rows)}

    data = ok(post(client.http, "/model/inference", {**asked, "encryption_params": PRESET, "server_url": server.http}))

    assert re.fullmatch(r"[0-9a-f]{6}test\.npy", name)
    np.testing.assert_allclose(json.loads(data["inference_result"]), plain, atol=1e-2)
    assert data["inference_file"] == name and data["inference_size"] == 30 and data["is_encryption"] == "yes"
    assert (data["model_id"], data["model_name"], data["model_type"]) == (model["model_id"], model["model_name"], "MLP")
    assert (
        data["loadModel"] == "success" and re.fullmatch(r"\d+\.\d{3}\(s\)", data["time_cost"]) and "environment test passed" in data["log"]
    )

    shown = ok(post(client.http, "/model/get_inference", {"inference_id": data["inference_id"]}))
    record = shown["inference_list"][0]
    assert shown["query_state"] == shown["quary_state"] == "success" and len(shown["inference_list"]) == 1
    assert (
        record["state"] == "finished"
        and record["progress"] == 100.0
        and record["encryption_parameter"] == f"he_seal_ckks_config_{PRESET}.json"
    )
    assert record["start_time"] <= record["finish_time"] and record["stop_time"] == ""
    assert record["inference_result"] == data["inference_result"]
    rounds = record["figures"]["per_round"]
    assert (record["rounds_done"], record["rounds"], record["queued"]) == (3, 3, False) and [one["index"] for one in rounds] == [0, 1, 2]
    assert sum(one["bytes_up"] for one in rounds) == record["figures"]["bytes_up"] > 0
    assert sum(one["bytes_down"] for one in rounds) == record["figures"]["bytes_down"] > 0
    assert all(set(one["seconds"]) == {"encrypt", "server", "decrypt", "step", "wire"} for one in rounds)


def test_the_default_parameters_are_n13_l8_and_forms_do(client, model, rows, plain):
    name = upload(client.http, rows)

    data = ok(
        post(client.http, "/model/inference", form={"model_type": "MLP", "inf_file_name": name, "is_encryption": "yes", "batch_size": 4})
    )

    np.testing.assert_allclose(json.loads(data["inference_result"]), plain[:4], atol=1e-2)
    assert data["encryption_parameter"] == "he_seal_ckks_config_N13_L8.json"


@pytest.mark.parametrize("through_client", [False, True])
def test_plain_inference(server, client, model, rows, plain, through_client):
    http = (client if through_client else server).http
    name = upload(http, rows.reshape(len(rows), -1).astype(np.float64))

    data = ok(multipart(http, "/model/inference", {"model_type": "MLP", "inf_file_name": name, "is_encryption": "no"}))

    np.testing.assert_allclose(json.loads(data["inference_result"]), plain, rtol=1e-5)
    assert data["is_encryption"] == "no" and data["encryption_parameter"] == ""
    assert "in the clear" in data["log"]
    found = ok(post(http, "/model/get_inference"))["inference_list"]
    assert [one["inference_id"] for one in found].count(data["inference_id"]) == 1


def test_the_server_gets_no_file_and_no_record_of_an_encrypted_inference(server, client, model, rows, homes):
    before = len(ok(post(server.http, "/model/get_inference"))["inference_list"])
    name = upload(client.http, rows, "private.npy")

    ok(
        post(
            client.http,
            "/model/inference",
            {"model_type": "MLP", "inf_file_name": name, "is_encryption": "yes", "encryption_params": PRESET},
        )
    )

    assert len(ok(post(server.http, "/model/get_inference"))["inference_list"]) == before
    assert not [path for home in homes for path in home.rglob("*private*")]
    assert "no such file" in refused(post(server.http, "/model/inference", {"model_type": "MLP", "inf_file_name": name}), 404)


def test_an_inference_that_nobody_waits_for_is_watched(client, model, rows, plain):
    api = HEClient(client.http)

    done = api.wait(api.start_inference("MLP", rows, preset=PRESET))

    np.testing.assert_allclose(done.outputs, plain, atol=1e-2)
    assert done.figures["rounds"] == 3


def test_custom_parameters_come_as_text(client, model, rows, plain):
    custom = {"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [40, 40]}

    done = HEClient(client.http).inference("MLP", rows[:3], preset=json.dumps(custom))

    np.testing.assert_allclose(done.outputs, plain[:3], atol=1e-2)
    assert done.figures["preset"] == "custom_enc_param"


# the Python client


def test_the_python_client_gives_typed_values(server, model, rows, plain):
    api = HEServer(f"http://{server.http}/")

    assert api.find("MLP", model["model_name"]).model_id == model["model_id"]
    assert [one.test_acc for one in api.get_list("MLP")] == [model["test_acc"]]
    done = api.inference("MLP", rows)
    np.testing.assert_allclose(done.outputs, plain, rtol=1e-5)
    assert api.get_inference(done.inference_id).state == "finished"
    assert api.ciphertext_address() == server.channel
    assert api.show(model["model_name"])["rounds"] == 3


def test_errors_of_a_service_are_those_of_the_family(server, client, model, rows):
    weak = json.dumps({"poly_modulus_degree": 1024, "coeff_modulus": [40]})
    for error, says, call in (
        (NotFoundError, "no MLP model 'nobody'", lambda: HEClient(client.http).inference("MLP", rows, "nobody")),
        (ParameterError, "model_type", lambda: HEServer(server.http).get_list("a/b")),
        (SecurityError, "at most 27 bits", lambda: HEClient(client.http).inference("MLP", rows, preset=weak)),
        (InputError, r"shape is \(2, 63\)", lambda: HEClient(client.http).inference("MLP", np.zeros((2, 63)), preset=PRESET)),
        (InputError, "takes", lambda: HEServer(server.http).inference("MLP", np.zeros((2, 63)))),
        (TransportError, "no answer", lambda: HEClient(client.http, "127.0.0.1:1").inference("MLP", rows)),
        (TransportError, "no answer", lambda: HEServer("127.0.0.1:1").health()),
    ):
        with pytest.raises(error, match=says):
            call()


# refusals


@pytest.mark.parametrize(
    "body, says",
    [
        ({}, "is_encryption: is missing; yes or no"),
        ({"is_encryption": None}, "is_encryption: is missing; yes or no"),
        ({"is_encryption": ""}, "is_encryption: is missing; yes or no"),
        ({"encrypted": "yes"}, r"'encrypted': there is no such field; there are model_type.*is_encryption.*server_url; is_encryption"),
        ({"is_encryption": "no", "Is_Encryption": "yes"}, "'Is_Encryption': there is no such field"),
    ],
)
def test_the_client_sends_no_rows_unless_it_is_said_whether_encrypted(server, client, model, rows, body, says):
    name, before = upload(client.http, rows), len(HEServer(server.http).get_inferences())

    for given in ({"body": body}, {"form": body}) if None not in body.values() else ({"body": body},):
        asked = {kind: {"model_type": "MLP", "inf_file_name": name, **fields} for kind, fields in given.items()}
        assert re.search(says, refused(post(client.http, "/model/inference", **asked), 400))
    assert len(HEServer(server.http).get_inferences()) == before


def test_an_encrypted_inference_is_refused_by_the_server_alone(server, model, rows):
    name = upload(server.http, rows)

    message = refused(post(server.http, "/model/inference", {"model_type": "MLP", "inf_file_name": name, "is_encryption": "yes"}), 400)

    assert "in the clear" in message and "HE-client" in message


@pytest.mark.parametrize(
    "path, body, code, says",
    [
        ("/model/load", {}, 400, "model_type: is missing"),
        ("/model/load", {"model_type": "nothing", "is_init": 1}, 404, "not in the zoo"),
        ("/model/load", {"model_type": "all", "is_init": 1}, 400, "model_type is 'all'; allowed are MLP"),
        ("/model/load", {"model_type": "", "is_init": 1}, 400, "model_type is ''; allowed are MLP"),
        ("/model/load", {"model_type": "MLP", "is_init": 2}, 400, "is_init: 2; allowed"),
        ("/model/load", {"model_type": "MLP", "is_init": 1, "model_name": "x"}, 400, "only with is_init 0"),
        ("/model/load", {"model_type": "MLP", "is_init": 0, "model_name": "zzz"}, 404, "no model 'zzz'"),
        ("/model/test", {"model_type": "MLP", "batch_size": 513}, 400, "batch_size: 513; allowed: a whole number from 1 to 512"),
        ("/model/test", {"model_type": "MLP", "start_batch": -1, "batch_size": "x"}, 400, "start_batch: -1.*batch_size: 'x'"),
        ("/model/test", {"model_type": "MLP", "start_batch": 9999}, 400, "the last batch"),
        ("/model/test", {"model_type": "MLP", "is_encryption": "maybe"}, 400, "yes or no"),
        ("/model/test", {"model_type": "MLP", "is_encryption": "yes", "enc_param": "N10"}, 400, "N13_L8"),
        ("/model/test", {"model_type": "MLP", "is_encryption": "yes", "enc_param": "/etc/hostname"}, 400, "allowed"),
        ("/model/inference", {"model_type": "MLP", "inf_file_name": "../../x.npy"}, 404, "no such file"),
        ("/model/get_inference", {"inference_id": "nothing"}, 404, "no inference 'nothing'"),
        ("/model/stop_inference", {"inference_id": "nothing"}, 404, "no inference"),
        ("/model/get_list", b"{", 400, "not JSON"),
        ("/model/get_list", b"[1]", 400, "not a JSON object"),
        ("/model/nothing", {}, 404, "/docs"),
        ("/model/get_list/", {}, 404, "/docs"),
        ("/model/get_inference", b'{"inference_id": "\\ud800"}', 400, "inference_id: .*surrogate"),
        ("/model/get_list", b" " * ((1 << 20) + 1), 413, "rows come by /model/uploadfile"),
    ],
)
def test_wrong_requests_say_what_to_change(server, model, path, body, code, says):
    assert re.search(says, refused(post(server.http, path, body), code))


def test_parameters_that_a_model_cannot_run_under_are_the_caller_s_to_change(server):
    ok(post(server.http, "/model/load", {"model_type": "AlexNet", "is_init": 1}))
    small = json.dumps({"poly_modulus_degree": 2048, "coeff_modulus": [20]})
    asked = {"model_type": "AlexNet", "is_encryption": True, "enc_param": small, "batch_size": 2}

    assert "no usable precision" in refused(post(server.http, "/model/test", asked), 400)


@pytest.mark.parametrize(
    "name, data, code, says",
    [
        ("x.txt", npy(np.ones(3)), 400, "file_name"),
        ("../x.npy", npy(np.ones(3)), 400, "file_name"),
        ("x.npy", b"not an array", 400, "not an .npy"),
        ("x.npy", npy(np.array([{"a": 1}], dtype=object)), 400, "Python objects"),
        ("x.npy", npy(np.ones((4, 4)))[:-8], 400, "cut off"),
        ("x.npy", npy(np.zeros((0, 4))), 400, "no rows"),
        ("x.npy", npy(np.zeros((2000, 100))), 413, "more than the"),
    ],
)
def test_files_that_are_refused(server, name, data, code, says):
    assert says in refused(multipart(server.http, "/model/uploadfile", {"file_name": name}, [(name, data)]), code)


def test_an_upload_that_is_no_form_is_refused(server):
    assert "multipart" in refused(post(server.http, "/model/uploadfile", {"file_name": "x.npy"}), 400)
    assert "0 files" in refused(multipart(server.http, "/model/uploadfile", {"file_name": "x.npy"}), 400)


def test_a_deleted_file_is_gone(client, rows):
    name = upload(client.http, rows)

    ok(post(client.http, "/model/deletefile", {"inf_file_name": name}))

    asked = {"model_type": "MLP", "inf_file_name": name, "is_encryption": "yes"}
    assert "no such file" in refused(post(client.http, "/model/inference", asked), 404)


def test_more_rows_than_the_file_has_are_refused(client, model, rows):
    asked = {"model_type": "MLP", "inf_file_name": upload(client.http, rows), "is_encryption": "yes", "batch_size": 31}

    assert "the file has 30 rows" in refused(post(client.http, "/model/inference", asked), 400)


def test_an_inference_that_ended_cannot_be_stopped(client, model, rows):
    api = HEClient(client.http)
    done = api.inference("MLP", rows[:1], preset=PRESET)

    with pytest.raises(ParameterError, match=r"has ended already \(finished\)"):
        api.stop_inference(done.inference_id)


# operations


def test_health_readiness_and_documents(server, client, model):
    assert ok(get(server.http, "/healthz"))["service"] == "he-server" and ok(get(client.http, "/healthz"))["service"] == "he-client"
    assert ok(get(server.http, "/readyz"))["models"] >= 1 and ok(get(client.http, "/readyz"))["server"]["service"] == "he-server"
    for service in (server, client):
        document = get(service.http, "/openapi.json")[1]
        page = get(service.http, "/docs")[1]
        paths = {"load", "get_list", "test", "inference", "uploadfile", "get_inference"}
        assert {f"/model/{path}" for path in paths} <= set(document["paths"])
        assert "/model/inference" in page and "encryption_params" in page and not re.search(r"<script|src=|<link", page)


def test_the_logs_are_silent_about_rows(server, client):
    assert server.log() == client.log() == ""
