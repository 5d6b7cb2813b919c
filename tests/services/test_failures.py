"""What the services do when processes die, are stopped, or get more than they take."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time

import numpy as np
import pytest

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.errors import Cancelled, TransportError
from he_backend.graph import Reference
from tests import processes
from tests.processes import post, wait_until

PRESET = "N11_L1"
ROWS = 20_480  # ten chunks of 2048


@pytest.fixture
def pair(homes, running):
    server = processes.server(homes[0])
    client = processes.client(homes[1], server.http, "--memory", 12 << 20, "--workers", 1, "--queue", 1)
    running += [server, client]
    HEServer(server.http).load("MLP")
    return server, client


@pytest.fixture(scope="module")
def rows():
    x = zoo.shipped("MLP").load_test()[0]
    return np.resize(x, (ROWS, *x.shape[1:]))


def started(api, rows):
    """An inference in the middle of its rounds."""
    inference_id = api.start_inference("MLP", rows, preset=PRESET)
    wait_until(lambda: (now := api.get_inference(inference_id)).progress > 5 or now.state != "started")
    record = api.get_inference(inference_id)
    assert record.state == "started", record.data
    return inference_id


def test_a_server_that_is_killed_and_restarted_goes_on_with_the_inference(homes, running, pair, rows):
    server, client = pair
    api = HEClient(client.http)
    inference_id = started(api, rows)

    server.kill()
    at_kill = api.get_inference(inference_id)
    again = processes.server(homes[0], "--http-port", server.http.split(":")[1], "--port", server.channel.split(":")[1])
    running.append(again)
    done = api.wait(inference_id)

    assert at_kill.state == "started" and at_kill.progress < 95
    plain = next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(rows).values()))
    np.testing.assert_allclose(done.outputs, plain, atol=5e-2)
    assert again.stop() == 0


def test_an_inference_of_a_killed_client_shows_as_failed_and_leaves_no_rows(homes, running, pair, rows):
    server, client = pair
    inference_id = started(HEClient(client.http), rows)

    client.kill()
    again = processes.client(homes[1], server.http)
    running.append(again)
    record = HEClient(again.http).get_inference(inference_id)

    assert record.state == "failed" and "ended while this inference ran" in record.message
    files = [path for path in homes[1].rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"client-tasks.sqlite", "client-serve.log"}
    row = rows[0].astype(np.float32).tobytes()
    assert not any(row[:32] in path.read_bytes() or row[-32:] in path.read_bytes() for path in files)
    assert sum(path.stat().st_size for path in files) < 100_000


def test_a_stopped_inference_ends_and_says_so(pair, rows):
    api = HEClient(pair[1].http)
    inference_id = started(api, rows)

    api.stop_inference(inference_id)

    with pytest.raises(Cancelled, match="was stopped"):
        api.wait(inference_id)
    record = api.get_inference(inference_id)
    assert record.state == "stopped" and record.data["stop_time"] and "inference_result" not in record.data


@pytest.fixture(scope="module")
def sentences():
    x = zoo.shipped("BERT").load_test()[0]
    return np.resize(x, (60_000, *x.shape[1:]))


def test_a_plain_inference_is_stopped_here_and_at_the_server(homes, running, sentences):
    server = processes.server(homes[0])
    client = processes.client(homes[1], server.http)
    running += [server, client]
    HEServer(server.http).load("BERT")
    there, here = HEServer(server.http), HEClient(client.http)

    inference_id = here.start_inference("BERT", sentences, encrypted=False)
    wait_until(lambda: any(one.state == "started" for one in there.get_inferences()))
    here.stop_inference(inference_id)
    with pytest.raises(Cancelled, match="was stopped"):
        here.wait(inference_id)
    wait_until(lambda: [one.state for one in there.get_inferences()] == ["stopped"], 20)

    here.start_inference("BERT", sentences, encrypted=False)
    wait_until(lambda: any(one.state == "started" for one in there.get_inferences()))
    started = time.monotonic()
    assert client.stop() == server.stop() == 0
    assert time.monotonic() - started < 15


def test_a_plain_inference_has_its_time_too(homes, running, sentences):
    server = processes.server(homes[0], "--task-seconds", 0.5)
    running.append(server)
    HEServer(server.http).load("BERT")

    with pytest.raises(Cancelled, match="longer than the 0.5 s"):
        HEServer(server.http).inference("BERT", sentences)


def test_evaluations_through_the_client_count_as_their_caller_s(homes, running):
    client = processes.client(homes[1], "127.0.0.1:1", "--queue-per-caller", 1)
    running.append(client)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a server that says nothing
        asked = {"model_type": "MLP", "server_url": f"127.0.0.1:{silent.getsockname()[1]}"}
        thread = threading.Thread(target=lambda: post(client.http, "/model/test", asked))
        thread.start()
        connection, _ = silent.accept()
        status, envelope = post(client.http, "/model/test", asked)
        connection.close()
        thread.join(60)

    assert status == 503 and "has 1 at work or waiting already" in envelope["message"]


def test_who_waits_for_a_stopped_inference_hears_of_it(pair, rows):
    api, heard = HEClient(pair[1].http), []
    name = api.upload(rows)
    asked = {"model_type": "MLP", "inf_file_name": name, "is_encryption": "yes", "encryption_params": PRESET}
    thread = threading.Thread(target=lambda: heard.append(post(pair[1].http, "/model/inference", asked)))
    thread.start()
    wait_until(lambda: any(one.state == "started" for one in api.get_inferences()))

    api.stop_inference(api.get_inferences()[0].inference_id)
    thread.join(60)

    status, envelope = heard[0]
    assert status == 409 and "stopped on request" in envelope["message"]


def test_a_full_queue_is_answered_with_503_and_when_to_ask_again(pair, rows):
    api = HEClient(pair[1].http)
    first, second = started(api, rows), api.start_inference("MLP", rows[:10], preset=PRESET)
    name = api.upload(rows[:10])

    status, envelope = post(pair[1].http, "/model/inference", {"model_type": "MLP", "inf_file_name": name, "is_encryption": "yes"})

    assert status == envelope["code"] == 503 and "queue is full" in envelope["message"]
    assert int({key.lower(): value for key, value in envelope["headers"].items()}["retry-after"]) > 0
    with pytest.raises(TransportError, match="queue is full"):
        api.inference("MLP", rows[:10])
    assert post(pair[1].http, "/model/get_inference")[0] == 200
    api.stop_inference(first)
    assert api.wait(second).outputs.shape == (10, 10)


def test_a_client_that_is_told_to_end_ends_and_its_inference_is_failed(homes, pair, rows):
    server, client = pair
    inference_id = started(HEClient(client.http), rows)

    assert client.stop() == 0

    with sqlite3.connect(homes[1] / "client-tasks.sqlite") as database:
        found = database.execute("select state, message from he_nn_inferences where inference_id = ?", (inference_id,)).fetchall()
    database.close()
    assert found == [("failed", "the service was shut down")]
    assert server.stop() == 0


def test_a_server_that_is_gone_fails_the_inference_at_once_when_it_starts(running, pair, rows):
    server, client = pair
    assert server.stop() == 0

    with pytest.raises(TransportError, match="no answer"):
        HEClient(client.http).inference("MLP", rows[:2], preset=PRESET)


def test_a_port_that_is_taken_is_told(homes, pair):
    with pytest.raises(AssertionError, match="cannot listen"):
        processes.server(homes[0], "--http-port", pair[0].http.split(":")[1], "--port", 0)
    with pytest.raises(AssertionError, match="server_url"):
        processes.client(homes[1], "not an address")
