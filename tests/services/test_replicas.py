"""Two replicas of an HE-server with one registry: the rounds of one task go round among them, and past one that dies."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter

import numpy as np
import pytest

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.client.inference import Client
from he_backend.graph import Reference, convert
from he_backend.protocol import messages
from he_backend.protocol.grpc_transport import serve
from he_backend.server.models import OneModel
from he_backend.server.service import CipherService
from tests import processes
from tests.processes import wait_until


@pytest.fixture(scope="module")
def network():
    return zoo.shipped("MLP")


def rows(network, count):
    x = network.load_test()[0]
    return np.resize(x, (count, *x.shape[1:]))


def plain(network, x):
    return next(iter(Reference(str(network.onnx_path)).run(x).values()))


def both(*ports):
    return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)


def test_both_replicas_answer_rounds_of_one_task(network):
    answered = Counter()

    def counting(name):
        service = CipherService(OneModel(convert(network.onnx_path)))

        def handle(frames):
            head = next(frames)
            answered[name, type(messages.decode(head)).__name__] += 1
            return service.handle(_again(head, frames))

        return handle

    with contextlib.ExitStack() as stack:
        handles = [serve(counting(name), "127.0.0.1:0") for name in ("one", "other")]
        for handle in handles:
            stack.callback(handle.stop, 1.0)
        client = Client(both(*(handle.port for handle in handles)), preset="N11_L1", memory_bytes=10 << 20)
        stack.callback(client.close)
        x = rows(network, 20_000)

        result = client.infer("local", x)

    rounds = [answered[name, "RoundRequest"] for name in ("one", "other")]
    np.testing.assert_allclose(result.output, plain(network, x), atol=5e-2)
    assert sum(rounds) == 30 and abs(rounds[0] - rounds[1]) <= 6


def _again(head, frames):
    yield head
    yield from frames


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_task_goes_on_when_one_of_two_replicas_is_killed(network, tmp_path):
    for name in ("one", "other", "client"):
        (tmp_path / name).mkdir()
    x = rows(network, 20_480)
    with contextlib.ExitStack() as stack:
        other = processes.server(tmp_path / "other", "--registry", tmp_path / "models")
        stack.callback(other.stop)
        port, http = free_port(), free_port()
        address = both(port, other.channel.split(":")[1])
        options = ("--registry", tmp_path / "models", "--port", port, "--http-port", http, "--advertise", address)
        one = processes.server(tmp_path / "one", *options)
        client = processes.client(tmp_path / "client", one.http, "--memory", 12 << 20)
        stack.callback(client.stop)
        HEServer(one.http).load("MLP")
        api = HEClient(client.http)

        inference_id = api.start_inference("MLP", x, preset="N11_L1")
        wait_until(lambda: api.get_inference(inference_id).progress > 5)
        one.kill()
        at_kill = api.get_inference(inference_id)
        done = api.wait(inference_id)

        assert at_kill.state == "started" and at_kill.progress < 95
        np.testing.assert_allclose(done.outputs, plain(network, x), atol=5e-2)
        assert [model.model_type for model in HEServer(other.http).get_list()] == ["MLP"]
