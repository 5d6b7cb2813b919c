"""Two FATE 2.2 sites over RabbitMQ: predictions agree and nothing that crossed holds a row; and the parts that this is made of."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from he_backend import zoo
from he_backend.errors import HeError
from he_backend.graph import Reference
from he_nn.fate2 import broker
from he_nn.fate2.crossing import WINDOW_BYTES, entropy, inspect, row_needles
from he_nn.fate2.wires import Management, Relay, Router
from tests.he_nn.test_fate_job import PYTHON, TOP, left_over

live = [
    pytest.mark.fate,
    pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-fate: scripts/fate_env.sh makes it"),
    pytest.mark.skipif(broker.binary() is None, reason=broker.MISSING),
]


# two sites


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("two_sites")


@pytest.fixture(scope="module")
def checks(home):
    command = [str(PYTHON), "-W", "ignore", "-m", "tests.he_nn.two_sites_checks", str(home)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {line["check"]: line for line in map(json.loads, done.stdout.splitlines())}


class TestTwoSites:
    pytestmark = live

    @pytest.mark.parametrize("check", ["encrypted", "plain"])
    def test_predictions_are_those_of_onnx_runtime(self, checks, check):
        assert checks[check]["status"] == "success", checks[check]["failures"]
        x, _ = zoo.shipped("MLP").load_test()
        plain = next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(x[:200]).values())).argmax(axis=1)

        by_id = {int(row["match_id"]): int(row["predict_result"]) for row in checks[check]["rows"]}
        assert [by_id[index] for index in range(200)] == plain.tolist()
        assert checks[check]["guest"]["is_encryption"] is (check == "encrypted")

    def test_ciphertexts_crossed_and_no_row(self, checks):
        crossed, figures = checks["encrypted"]["crossed"], checks["encrypted"]["guest"]

        assert crossed["found"] == 0 and crossed["needles"] >= 8 * 150
        assert crossed["bytes"] > figures["bytes_up"] + figures["bytes_down"]
        assert crossed["random_share"] > 0.8
        assert checks["encrypted"]["model_was_seen"] == 1  # the recording is of the channel, and readable where nothing is encrypted

    def test_the_same_search_finds_the_rows_of_a_plain_inference(self, checks):
        assert checks["plain"]["crossed"]["found"] >= 150

    def test_the_channel_took_few_calls(self, checks):
        assert checks["encrypted"]["host"]["calls"] == checks["encrypted"]["guest"]["rounds"] + 3

    def test_nothing_is_left_running(self, checks, home):
        for folder in ("9999", "10000", "9999/broker", "10000/broker"):
            assert left_over(home / folder) == []

    def test_models_and_records_are_each_sites_own(self, checks, home):
        assert list((home / "10000" / "models").glob("*.onnx"))
        assert not (home / "9999" / "models").exists()


# its parts


class _Site(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["dest-party-id"], body))
        self.send_response(201)
        self.send_header("X-Site", str(self.server.server_address[1]))
        self.end_headers()
        self.wfile.write(b"taken")

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def sites():
    servers = [HTTPServer(("127.0.0.1", 0), _Site) for _ in range(2)]
    for server in servers:
        server.seen = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def post(port, party, body=b"{}"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/partner/job/create", data=body, headers={"dest-party-id": party})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)


def test_the_router_goes_by_the_header_and_keeps_what_passed(sites, tmp_path):
    ports = {str(party): server.server_address[1] for party, server in zip((9999, 10000), sites)}

    with Router(ports, tmp_path / "requests") as router:
        with post(router.port, "10000", b'{"job": 1}') as answer:
            assert (answer.status, answer.read(), answer.headers["X-Site"]) == (201, b"taken", str(ports["10000"]))
        with pytest.raises(urllib.error.HTTPError) as refusal:
            post(router.port, "12345")

    assert refusal.value.code == 400 and b"there are 9999, 10000" in refusal.value.read()
    assert sites[0].seen == [] and sites[1].seen == [("/v2/partner/job/create", "10000", b'{"job": 1}')]
    assert (tmp_path / "requests").read_bytes() == b'{"job": 1}\ntaken\n'


class _Broker(BaseHTTPRequestHandler):
    """Refuses each setting twice, as one that stumbles over queues that are being removed."""

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(self.path)
        self.send_response(500 if self.server.seen.count(self.path) <= self.server.refusals else 204)
        self.end_headers()

    do_DELETE = do_PUT

    def log_message(self, format, *arguments):
        pass


@pytest.mark.parametrize(
    "method, refusals, status, asked", [("PUT", 2, 204, 3), ("PUT", 99, 500, 6), ("PUT", 0, 204, 1), ("DELETE", 2, 500, 1)]
)
def test_a_broker_that_stumbles_over_a_setting_is_asked_again(monkeypatch, method, refusals, status, asked):
    monkeypatch.setattr("he_nn.fate2.wires._PAUSES_S", (0.01,) * 5)
    server = HTTPServer(("127.0.0.1", 0), _Broker)
    server.seen, server.refusals = [], refusals
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Management(server.server_address[1]) as management:
            request = urllib.request.Request(f"http://127.0.0.1:{management.port}/api/policies/x", data=b"{}", method=method)
            try:
                answered = urllib.request.urlopen(request, timeout=10).status
            except urllib.error.HTTPError as problem:
                answered = problem.code
    finally:
        server.shutdown()
        server.server_close()

    assert (answered, server.seen) == (status, ["/api/policies/x"] * asked)


def test_a_site_that_is_gone_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Router({"1": port}, tmp_path / "requests") as router, pytest.raises(urllib.error.HTTPError) as refusal:
        post(router.port, "1")

    assert refusal.value.code == 502


def test_the_relay_copies_both_ways_and_keeps_every_byte(tmp_path):
    sent, reply = np.random.default_rng(1).bytes(300_000), np.random.default_rng(2).bytes(200_000)

    def serve(listener):
        peer, _ = listener.accept()
        with peer:
            got = b""
            while len(got) < len(sent):
                got += peer.recv(1 << 16)
            peer.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with Relay(listener.getsockname()[1], tmp_path / "kept") as relay:
            with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as near:
                near.sendall(sent)
                back = b""
                while len(back) < len(reply):
                    back += near.recv(1 << 16)
            names = [path.name for path in relay.recorded()]

    assert back == reply and names == ["000-back", "000-there"]
    assert (tmp_path / "kept" / "000-there").read_bytes() == sent
    assert (tmp_path / "kept" / "000-back").read_bytes() == reply


def test_a_crossing_is_measured_and_searched(tmp_path):
    rows = np.random.default_rng(4).uniform(size=(5, 16)).astype(np.float32)
    needles = row_needles(rows)
    (tmp_path / "random").write_bytes(np.random.default_rng(5).bytes(4 * WINDOW_BYTES))
    (tmp_path / "text").write_bytes(b"model id 1234 " * 10_000)

    quiet = inspect(sorted(tmp_path.iterdir()), needles)
    assert (quiet.found, quiet.needles, quiet.random_bytes) == (0, 40, 4 * WINDOW_BYTES)
    assert quiet.random_share == pytest.approx(4 * WINDOW_BYTES / (4 * WINDOW_BYTES + 140_000))

    for name, content in {
        "float32": rows[0].tobytes(),
        "float64": rows[1].astype(np.float64).tobytes(),
        "csv": ",".join(map(repr, rows[2].astype(np.float64).tolist())).encode(),
        "json": json.dumps(rows[3].astype(np.float64).tolist()).encode(),
        "hex": rows[4].tobytes().hex().encode(),
    }.items():
        (tmp_path / name).write_bytes(b"..." + content + b"...")
    assert inspect(sorted(tmp_path.iterdir()), needles).found == 5


def test_rows_with_nothing_to_tell_them_by_are_not_searched_for():
    assert row_needles(np.zeros((3, 10))) == []
    assert entropy(b"\0" * 100) == 0.0 and entropy(bytes(range(256))) == pytest.approx(8.0)


def test_a_missing_rabbitmq_is_told_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(broker, "binary", lambda: None)

    with pytest.raises(HeError, match="apt-get install rabbitmq-server"):
        broker.Broker(tmp_path).start()


def test_the_demo_says_so_too(monkeypatch, capsys):
    from he_nn.fate2 import two_sites

    monkeypatch.setattr(two_sites, "binary", lambda: None)

    assert two_sites.main([]) == 2
    assert "RabbitMQ is not installed" in capsys.readouterr().err
