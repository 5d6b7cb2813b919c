"""What the services take at most, and how they end: in order, with the rounds under way finished."""

from __future__ import annotations

import contextlib
import json
import socket

import numpy as np
import pytest

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.client.inference import Client
from he_backend.errors import Cancelled, ProtocolError
from he_backend.graph import Reference
from tests import processes
from tests.processes import wait_until

PRESET = "N11_L1"


@pytest.fixture(scope="module")
def rows():
    x = zoo.shipped("MLP").load_test()[0]
    return np.resize(x, (20_480, *x.shape[1:]))


def test_limits_of_time_and_size(homes, running, rows):
    server = processes.server(homes[0], "--call-bytes", 1 << 20)
    client = processes.client(homes[1], server.http, "--task-seconds", 0.1, "--memory", 12 << 20)
    running += [server, client]
    api = HEClient(client.http)
    HEServer(server.http).load("MLP")

    with pytest.raises(ProtocolError, match="longer than the 1048576 bytes that are allowed"):
        Client(server.channel, preset=PRESET).infer("latest", rows[:4096])

    slow = api.start_inference("MLP", np.concatenate([rows, rows]), preset=PRESET)
    with pytest.raises(Cancelled):
        api.wait(slow)
    record = api.get_inference(slow)
    assert record.state == "stopped" and "longer than the 0.1 s" in record.message
    wait_until(lambda: api.health()["pending"] == 0)  # its turn is free again


def test_idle_connections_keep_nobody_out(homes, running):
    client = processes.client(homes[1], "127.0.0.1:1", "--idle-seconds", 2, "--max-requests", 3)
    running.append(client)
    host, _, port = client.http.partition(":")
    with contextlib.ExitStack() as held:
        idle = [held.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(75)]
        for connection in idle:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")

        assert processes.get(client.http, "/healthz")[0] == processes.post(client.http, "/model/get_inference")[0] == 200
        assert idle[-1].recv(1 << 16).startswith(b"HTTP/1.1 408 ")
    assert client.stop() == 0 and client.log() == ""


def test_a_server_that_is_told_to_end_finishes_its_rounds_and_its_successor_goes_on(homes, running, rows):
    server = processes.server(homes[0], "--log-format", "json", "--log-level", "info")
    client = processes.client(homes[1], server.http, "--memory", 12 << 20)
    running += [server, client]
    api = HEClient(client.http)
    HEServer(server.http).load("MLP")
    inference_id = api.start_inference("MLP", rows, preset=PRESET)
    wait_until(lambda: api.get_inference(inference_id).progress > 5)

    log = homes[0] / "serve.log"
    status = server.stop()
    answered = [json.loads(line) for line in log.read_text().splitlines() if "round answered" in line]
    again = processes.server(homes[0], "--http-port", server.http.split(":")[1], "--port", server.channel.split(":")[1])
    running.append(again)
    done = api.wait(inference_id)

    assert status == 0 and answered and {one["task_id"] for one in answered} == {inference_id}
    assert '"level": "error"' not in log.read_text() and "Traceback" not in log.read_text()
    plain = next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(rows).values()))
    np.testing.assert_allclose(done.outputs, plain, atol=5e-2)
    assert done.figures["rounds"] == 3
