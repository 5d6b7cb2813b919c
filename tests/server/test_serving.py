"""Both parties over gRPC: a registry served, a server that goes away in the middle, one that comes back."""

from __future__ import annotations

import numpy as np
import pytest

import he_backend as he
from he_backend.errors import NotFoundError, TransportError
from he_backend.protocol.transport import Retry
from he_backend.server.models import OneModel
from he_backend.server.registry import Registry
from he_backend.zoo import shipped
from tests.parties import digits


@pytest.fixture(scope="module")
def parties():
    return digits(40)


def test_a_registered_model_is_inferred_by_name_id_and_latest(tmp_path, parties):
    _, rows, labels = parties
    record = Registry(tmp_path).add(shipped("MLP", "digits").onnx_path, "MLP")
    server = he.Server(tmp_path).start("127.0.0.1:0")
    client = he.Client(f"127.0.0.1:{server.port}", preset="N11_L1")
    try:
        results = [client.infer(name, rows).output.argmax(axis=1) for name in (record.model_name, record.model_id, "latest")]
        with pytest.raises(NotFoundError, match="nobody"):
            client.infer("nobody", rows)
    finally:
        client.close()
        server.stop(1.0)
    assert (results[0] == labels).mean() > 0.9
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_a_server_gone_in_the_middle_ends_the_task_and_its_successor_takes_the_next(parties):
    program, rows, _ = parties
    server = he.Server(models=OneModel(program)).start("127.0.0.1:0")
    address = f"127.0.0.1:{server.port}"
    gone = []

    def stop_at_round_1(at):
        if at.round == 1 and not gone:
            gone.append(True)
            server.stop(0.0)

    client = he.Client(address, preset="N11_L1", retry=Retry(attempts=3, backoff_s=0.3), progress=stop_at_round_1)
    try:
        with pytest.raises(TransportError):
            client.infer("latest", rows)
        successor = he.Server(models=OneModel(program)).start(address)
        try:
            assert client.infer("latest", rows).output.shape == (40, 10)
        finally:
            successor.stop(1.0)
    finally:
        client.close()


def test_a_server_that_comes_back_in_time_continues_the_task(parties):
    """A round needs nothing that an earlier one left behind: another server answers the retry."""
    program, rows, _ = parties
    first = he.Server(models=OneModel(program)).start("127.0.0.1:0")
    address, servers = f"127.0.0.1:{first.port}", [first]

    def replace_at_round_1(at):
        if at.round == 1 and len(servers) == 1:
            first.stop(0.0)
            servers.append(he.Server(models=OneModel(program)).start(address))

    client = he.Client(address, preset="N11_L1", progress=replace_at_round_1)
    try:
        result = client.infer("latest", rows)
    finally:
        client.close()
        servers[-1].stop(1.0)
    assert len(servers) == 2
    assert np.array_equal(result.output.argmax(axis=1), he.infer(program, rows).output.argmax(axis=1))
