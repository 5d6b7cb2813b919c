"""PostgreSQL under the services: who dies when, one database for both, a database that goes away and comes back."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.database import open_database
from he_backend.errors import ParameterError
from he_backend.server.registry import Registry
from he_backend.web.records import _METADATA, Records
from tests import postgres, processes
from tests.processes import post, wait_until

PRESET = "N11_L1"


@pytest.fixture(scope="module")
def cluster():
    with postgres.cluster() as running:
        yield running


def rows(count):
    x = zoo.shipped("MLP").load_test()[0]
    return np.resize(x, (count, *x.shape[1:]))


def test_a_killed_client_s_inference_is_failed_and_the_server_s_records_stay(cluster, homes, running):
    url = cluster.create()
    server = processes.server(homes[0], "--database", url, "--registry-database", cluster.create())
    client = processes.client(homes[1], server.http, "--database", url, "--memory", 12 << 20)
    running += [server, client]
    HEServer(server.http).load("MLP")
    plain = HEServer(server.http).inference("MLP", rows(2))
    api = HEClient(client.http)
    inference_id = api.start_inference("MLP", rows(40_960), preset=PRESET)
    wait_until(lambda: api.get_inference(inference_id).progress > 5)

    client.kill()
    again = processes.client(homes[1], server.http, "--database", url)
    running.append(again)

    record = HEClient(again.http).get_inference(inference_id)
    assert record.state == "failed" and "ended while this inference ran" in record.message
    assert record.data["rounds"] == 60 and 0 <= record.data["rounds_done"] < 60
    assert [(one.inference_id, one.state) for one in HEServer(server.http).get_inferences()] == [(plain.inference_id, "finished")]
    assert not list(homes[1].glob("*.sqlite")) and not list((homes[0] / "models").glob("*.sqlite"))


def test_a_database_that_goes_away_is_told_and_used_again_when_it_is_back(cluster, homes, running):
    server = processes.server(homes[0], "--database", cluster.create(), "--registry-database", cluster.create())
    running.append(server)
    HEServer(server.http).load("MLP")

    cluster.stop()
    try:
        status, envelope = post(server.http, "/model/get_inference")
        ready = processes.get(server.http, "/readyz")[0]
        alive = processes.get(server.http, "/healthz")[0]
    finally:
        cluster.start()

    assert status == ready == 500 and alive == 200
    assert "the task database failed" in envelope["message"] and "postgres@" not in envelope["message"]
    assert post(server.http, "/model/get_inference")[0] == 200
    assert [one.model_type for one in HEServer(server.http).get_list()] == ["MLP"]


def test_a_database_of_an_earlier_version_goes_on_working(cluster):
    url = cluster.create()
    records = Records(url, "client")
    records.start("a", {"model_name": "m", "caller": "alice"})
    records.close()
    engine = open_database(url, _METADATA, "the task database's")
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE he_nn_inferences DROP COLUMN caller"))
    engine.dispose()

    again = Records(url, "client")

    assert [one.inference_id for one in again.list(caller="alice")] == ["a"] and again.list(caller="bob") == []
    again.close()


def test_two_processes_open_a_new_database_at_the_same_time(cluster):
    url = cluster.create()

    first, second = Records(url, "client"), Records(url, "server")
    first.start("a", {"model_name": "m"})

    assert [one.inference_id for one in first.list()] == ["a"] and second.list() == []
    first.close(), second.close()


def test_a_url_without_a_driver_takes_the_one_that_is_installed(cluster, tmp_path):
    url = cluster.create()
    assert url.startswith("postgresql://")

    registry = Registry(tmp_path, url)
    record = registry.add(zoo.shipped("MLP").onnx_path, "MLP", test_acc=0.5)

    assert Registry(tmp_path, url).get(record.model_name) == record
    registry.close()


@pytest.mark.parametrize(
    "url, says",
    [
        ("postgresql://user:secret-word@/none?host=/nowhere", "cannot be opened"),
        ("oracle+nothing://user:secret-word@host/x", "driver that is not installed"),
        ("secret-word", "is not one"),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_without_its_password(url, says):
    with pytest.raises(ParameterError, match=says) as refusal:
        open_database(url, _METADATA, "the task database's")

    assert "secret-word" not in str(refusal.value)
