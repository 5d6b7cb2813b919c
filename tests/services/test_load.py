"""Many inferences at once through one HE-server and one HE-client process: all right, none lost, memory bounded."""

from __future__ import annotations

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.graph import Reference
from tests import processes
from tests.load import memory_bytes, wave

AT_ONCE = 16
MOST_GROWTH = 64 << 20  # of memory over a second wave; one inference of 64 rows holds less than a mebibyte


def test_inferences_at_once_are_all_right_and_none_is_lost(tmp_path):
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    network = zoo.shipped("MLP")
    rows = network.load_test()[0]
    plain = next(iter(Reference(str(network.onnx_path)).run(rows).values()))
    server = processes.server(tmp_path / "server")
    client = processes.client(tmp_path / "client", server.http)
    try:
        HEServer(server.http).load("MLP")

        first = wave(client.http, rows, plain, 64, AT_ONCE, AT_ONCE, "N11_L1")
        between = [memory_bytes(one.process.pid) for one in (server, client)]
        second = wave(client.http, rows, plain, 64, AT_ONCE, AT_ONCE, "N11_L1")
        after = [memory_bytes(one.process.pid) for one in (server, client)]
        records = {one.inference_id: one.state for one in HEClient(client.http).get_inferences()}
        busy = HEClient(client.http).health()["pending"]
    finally:
        statuses = [client.stop(), server.stop()]

    assert records == dict.fromkeys(first.ids | second.ids, "finished") and len(records) == 2 * AT_ONCE and busy == 0
    assert max(first.largest_error, second.largest_error) < 1e-2 and first.same_labels and second.same_labels
    assert all(now - before < MOST_GROWTH for before, now in zip(between, after))
    assert statuses == [0, 0]
