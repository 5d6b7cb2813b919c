"""Both services as real processes behind tokens and mutual TLS: what goes through, what is refused, what is logged, what the wire shows."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest

from he_backend import zoo
from he_backend.access.credentials import Credentials
from he_backend.access.dev_ca import make_dev_ca
from he_backend.access.tokens import TokenFile
from he_backend.api import HEClient, HEServer
from he_backend.client.connect import open_link
from he_backend.client.inference import Client
from he_backend.errors import InputError, NotFoundError, NotPermitted, ParameterError, TransportError, Unauthenticated
from he_backend.graph import Reference
from he_backend.protocol.transport import Retry
from tests import processes
from tests.certificates import expired
from tests.processes import wait_until
from tests.services.recording import RecordingProxy, is_tls

PRESET = "N11_L1"
ONCE = Retry(attempts=1)


class Secured(processes.Service):
    """A service that asks for certificates, so that only its port can be asked whether it is there."""

    def _answers(self):
        host, _, port = self.http.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 5).close()
        except OSError:
            assert self.process.poll() is None, self.log()
            return False
        return True


class Place:
    """The two services, their tokens by name, and credentials for them."""

    def __init__(self, folder):
        self.tls, self.folder, self.proxy = folder / "tls", folder, RecordingProxy()
        make_dev_ca(self.tls)
        self.homes = folder / "server", folder / "client"
        for home in self.homes:
            home.mkdir()
        server, client = (TokenFile(home / "tokens.json") for home in self.homes)
        self.server_tokens = {
            "root": server.add("root", "admin"),
            "he-client": server.add("he-client"),
            "cnn": server.add("cnn", models=["CNN"]),
            "prom": server.add("prom", "monitor"),
        }
        self.client_tokens = {
            "boss": client.add("boss", "admin"),
            "alice": client.add("alice", models=["MLP"]),
            "bob": client.add("bob"),
            "cnn": client.add("cnn", models=["CNN"]),
        }
        own = ("--tls-cert", self.tls / "server.pem", "--tls-key", self.tls / "server-key.pem", "--client-ca", self.tls / "ca.pem")
        own = (*own, "--log-format", "json", "--log-level", "debug")
        self.server = Secured("serve", self.homes[0], "--port", 0, "--http-port", 0, "--advertise", self.proxy.address, *own)
        self.proxy.target = self.server.channel
        (folder / "token").write_text(self.server_tokens["he-client"])
        shown = ("--token-file", folder / "token", "--ca", self.tls / "ca.pem")
        shown = (*shown, "--cert", self.tls / "client.pem", "--key", self.tls / "client-key.pem")
        where = ("--http-port", 0, "--server-url", f"https://{self.server.http}")
        self.client = Secured("client-serve", self.homes[1], *where, *shown, *own)

    def credentials(self, token="", certificate=None):
        pair = certificate or (str(self.tls / "client.pem"), str(self.tls / "client-key.pem"))
        return Credentials(token, str(self.tls / "ca.pem"), *pair, tls=True)

    def he_server(self, name):
        return HEServer(f"https://{self.server.http}", credentials=self.credentials(self.server_tokens.get(name, name)))

    def he_client(self, name):
        return HEClient(f"https://{self.client.http}", credentials=self.credentials(self.client_tokens.get(name, name)))

    def logs(self):
        return self.server.log() + self.client.log()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("place"))
    yield made
    assert made.client.stop() == made.server.stop() == 0
    made.proxy.close()


@pytest.fixture(scope="module")
def model(place):
    return place.he_server("root").load("MLP")


@pytest.fixture(scope="module")
def rows():
    """Rows with values that nothing else in a log looks like."""
    x = zoo.shipped("MLP").load_test()[0][:20].astype(np.float64)
    return (x * 0.9376251 + 0.0124937).astype(np.float32)


@pytest.fixture(scope="module")
def plain(rows):
    return next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(rows).values()))


def test_an_encrypted_inference_goes_through_and_the_wire_shows_tls_alone(place, model, rows, plain):
    done = place.he_client("alice").inference("MLP", rows, preset=PRESET)

    np.testing.assert_allclose(done.outputs, plain, atol=1e-2)
    streams = place.proxy.recorded()
    assert sum(map(len, streams)) > 100_000 and all(is_tls(stream) for stream in streams)
    assert not any(word in stream for stream in streams for word in (model.model_id.encode(), b"he_nn", b"he-nn", b"N11_L1", b"hnn_"))


def test_the_recording_shows_what_is_said_without_tls(place, model, rows, tmp_path):
    server = processes.server(tmp_path, "--registry", place.homes[0] / "models", "--tokens", "")
    proxy = RecordingProxy()
    proxy.target = server.channel
    client = Client(open_link(proxy.address, Credentials()), preset=PRESET)
    client.infer(model.model_id, rows)
    client.close()
    assert server.stop() == 0
    proxy.close()

    assert not any(is_tls(stream) for stream in proxy.recorded())
    assert any(model.model_id.encode() in stream for stream in proxy.recorded())


def test_the_servers_own_simulated_client_needs_no_certificate(place, model):
    done = place.he_server("he-client").test("MLP", encrypted=True, preset=PRESET, batch_size=50)

    assert done.figures["rounds"] == 3 and done.test_acc > 0.8


@pytest.mark.parametrize("token", ["", "wrong", "hnn_000000000000_" + "A" * 43])
def test_without_a_token_or_with_a_wrong_one_both_services_refuse(place, model, rows, token):
    for call in (
        lambda: place.he_server(token).get_list(),
        lambda: place.he_client(token).get_list(),
        lambda: place.he_client(token).inference("MLP", rows, preset=PRESET),
        lambda: place.he_client(token).get_inferences(),
        lambda: Client(open_link(place.server.channel, place.credentials(token)), retry=ONCE).prepare(model.model_id),
    ):
        with pytest.raises(Unauthenticated, match="token") as refused:
            call()
        assert "alice" not in str(refused.value) and model.model_name not in str(refused.value)
    assert '"message": "refused: ' in place.server.log() and '"message": "refused: ' in place.client.log()


def test_a_model_that_is_not_permitted_is_refused_with_403_and_logged_by_name(place, model, rows):
    for call in (
        lambda: place.he_client("cnn").inference("MLP", rows, preset=PRESET),
        lambda: place.he_client("cnn").inference("MLP", rows, model.model_id, encrypted=False),
        lambda: place.he_client("cnn").test("MLP"),
        lambda: place.he_client("alice").test("CNN"),
        lambda: place.he_client("alice").load("MLP"),
        lambda: place.he_server("cnn").inference("MLP", rows),
        lambda: place.he_server("cnn").test("MLP", model.model_id),
        lambda: place.he_server("cnn").load("MLP", is_init=False),
        lambda: place.he_server("he-client").load("MLP"),
        lambda: place.he_server("prom").get_list(),
        lambda: Client(open_link(place.server.channel, place.credentials(place.server_tokens["cnn"])), retry=ONCE).prepare(model.model_id),
    ):
        with pytest.raises(NotPermitted, match="token '") as refused:
            call()
        assert model.model_id not in str(refused.value) and model.model_name not in str(refused.value)
    assert place.he_client("cnn").get_list() == place.he_server("cnn").get_list() == []
    assert [one.model_id for one in place.he_client("alice").get_list()] == [model.model_id]
    for log in (place.server.log(), place.client.log()):
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        assert any(one.get("status") == 403 and one["level"] == "warning" and one["caller"] == "cnn" for one in lines)


def test_callers_see_their_own_inferences_and_files_alone(place, model, rows):
    alice, bob, boss = (place.he_client(name) for name in ("alice", "bob", "boss"))
    mine = alice.inference("MLP", rows[:2], preset=PRESET).inference_id
    name = alice.upload(rows[:2])

    assert alice.get_inference(mine).state == "finished" and mine in [one.inference_id for one in alice.get_inferences()]
    assert boss.get_inference(mine).data["caller"] == "alice" and mine not in [one.inference_id for one in bob.get_inferences()]
    for call in (lambda: bob.get_inference(mine), lambda: bob.stop_inference(mine), lambda: bob.delete_file(name)):
        with pytest.raises(NotFoundError, match=r"there is no inference|no such file"):
            call()
    with pytest.raises(NotFoundError, match="no such file"):
        bob.post("/model/inference", model_type="MLP", inf_file_name=name, is_encryption="yes")
    alice.delete_file(name)


def test_an_expired_certificate_is_refused_on_both_sides(place, tmp_path):
    old = expired(place.tls, tmp_path, "old-client")
    with pytest.raises(ParameterError, match="has expired on"):  # at the client's own door
        place.credentials("", old)

    context = ssl.create_default_context(cafile=str(place.tls / "ca.pem"))
    context.load_cert_chain(*old)
    for service, port in ((place.server, place.server.http), (place.client, place.client.http)):
        before = len(service.log())
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _shake(context, port)
        wait_until(lambda service=service, before=before: "certificate has expired" in service.log()[before:], 10)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _shake(context, place.server.channel)


def test_a_renewed_certificate_is_shown_to_the_next_connection(tmp_path):
    make_dev_ca(tmp_path / "tls")
    pair = ("--tls-cert", tmp_path / "tls" / "server.pem", "--tls-key", tmp_path / "tls" / "server-key.pem")
    server = Secured("serve", tmp_path, "--port", 0, "--http-port", 0, *pair)
    context = ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.pem"))
    try:
        before = [_certificate(context, port) for port in (server.http, server.channel)]
        make_dev_ca(tmp_path / "tls", renew=True)
        after = [_certificate(context, port) for port in (server.http, server.channel)]
        again = [_certificate(context, port) for port in (server.http, server.channel)]
    finally:
        assert server.stop() == 0

    assert before[0] == before[1] and after == again and after[0] == after[1] != before[0]


def test_the_command_line_shows_token_and_certificate(place, model, rows, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "token").write_text(place.server_tokens["he-client"])
    trust = ["--ca", place.tls / "ca.pem", "--cert", place.tls / "client.pem", "--key", place.tls / "client-key.pem"]
    arguments = ["infer", model.model_name, tmp_path / "rows.npy", "--preset", PRESET, "--json", *trust]

    for where in (f"https://{place.server.http}", place.server.channel):
        done = run(*arguments, "--server", where, "--token-file", tmp_path / "token")
        assert done.returncode == 0 and json.loads(done.stdout)["rows"] == 20, done.stderr
        assert place.server_tokens["he-client"] not in done.stdout + done.stderr
        refused = run(*arguments, "--server", where)
        assert refused.returncode == 1 and "token" in refused.stderr and "Traceback" not in refused.stderr


def test_a_client_with_a_wrong_token_for_its_server_is_not_ready(place, tmp_path):
    (tmp_path / "token").write_text("hnn_wrong")
    trust = ["--ca", place.tls / "ca.pem", "--cert", place.tls / "client.pem", "--key", place.tls / "client-key.pem"]
    client = processes.client(tmp_path, f"https://{place.server.http}", "--token-file", tmp_path / "token", *trust)

    status, envelope = processes.get(client.http, "/readyz")

    assert status == 401 and "token" in envelope["message"] and processes.get(client.http, "/healthz")[0] == 200
    assert client.stop() == 0


def test_a_service_with_an_expired_certificate_does_not_start(place, tmp_path):
    certificate, key = expired(place.tls, tmp_path, "old-server")
    with pytest.raises(AssertionError, match="has expired on"):
        processes.server(tmp_path, "--tls-cert", certificate, "--tls-key", key)


def test_a_server_with_another_authority_and_a_client_in_the_clear_are_refused(place, model, tmp_path):
    make_dev_ca(tmp_path / "other")
    stranger = Credentials("", str(tmp_path / "other" / "ca.pem"), tls=True)
    in_the_clear = HEServer(f"http://{place.server.http}", credentials=Credentials())
    nameless = HEServer(f"https://{place.server.http}", credentials=Credentials("", str(place.tls / "ca.pem"), tls=True))
    for call, says in (
        (lambda: HEServer(f"https://{place.server.http}", credentials=stranger).health(), "no TLS connection"),
        (in_the_clear.health, "is it https://"),
        (nameless.health, "does it ask for a certificate|no TLS connection"),
        (lambda: Client(open_link(place.server.channel, stranger), retry=ONCE).prepare("latest"), "TLS the same on both sides"),
        (lambda: Client(open_link(place.server.channel, Credentials()), retry=ONCE).prepare("latest"), "server 127"),
    ):
        with pytest.raises(TransportError, match=says):
            call()


def test_the_token_goes_to_the_configured_server_alone(place, model, rows):
    """A request may name any server_url; the one named here keeps what it hears."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        stranger = place.he_client("bob")
        stranger._more = {"server_url": f"http://127.0.0.1:{listener.getsockname()[1]}"}

        def listen():
            connection, _ = listener.accept()
            heard.append(connection.recv(1 << 16))
            connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(TransportError):
            stranger.get_list("MLP")
        thread.join(20)

    assert b"POST /model/get_list" in heard[0] and b"uthorization" not in heard[0] and b"hnn_" not in heard[0]


def test_the_metrics_tell_of_rounds_at_both_ends(place, model, rows):
    place.he_client("bob").inference("MLP", rows, preset=PRESET)

    for http, token, service in (
        (place.server.http, place.server_tokens["prom"], "he-server"),
        (place.client.http, place.client_tokens["boss"], "he-client"),
    ):
        text = _get(http, "/metrics", place.credentials(token), token)
        assert f'he_nn_up{{service="{service}"}} 1.0' in text
        for segment in range(3):
            found = re.search(rf'he_nn_rounds_total{{model="{model.model_name}",segment="{segment}"}} (\S+)', text)
            assert found and float(found.group(1)) >= 1
        assert "process_resident_memory_bytes" in text and "he_nn_queue_limit" in text


def test_one_task_can_be_followed_through_both_logs(place, model, rows):
    done = place.he_client("bob").inference("MLP", rows, preset=PRESET)

    def lines(log):
        return [json.loads(line) for line in log.splitlines() if line.startswith("{") and done.inference_id in line]

    assert [one["message"] for one in lines(place.client.log())] == ["inference started", "inference ended"]
    assert [one["segment"] for one in lines(place.server.log())] == [0, 1, 2]
    assert {one["caller"] for one in lines(place.server.log())} == {"he-client"}


def test_the_logs_hold_no_rows_no_predictions_no_tokens_no_keys(place, model, rows, plain):
    client = place.he_client("bob")
    done = client.inference("MLP", rows, preset=PRESET)
    wrong = rows.copy()
    wrong[0, 0] = np.nan
    for bad in (wrong, rows.reshape(len(rows), -1)[:, :-1], rows[:, :1]):
        with pytest.raises(InputError):
            client.inference("MLP", bad, preset=PRESET)

    text = place.logs()
    values = [*rows.reshape(-1)[:2000], *done.outputs.reshape(-1), *plain.reshape(-1)]
    told = {shown for value in values for shown in (repr(float(value)), f"{value:.6g}", f"{value:.5f}")}
    told = {one for one in told if len(one.replace(".", "").strip("-0")) >= 6}  # the seconds of a log's times have five digits
    assert len(told) > 200 and len(text) > 5000
    assert not [one for one in told if one in text]
    secrets = [one.split("_", 2)[2] for one in [*place.server_tokens.values(), *place.client_tokens.values()]]
    assert not [one for one in [*secrets, "PRIVATE KEY", "secret_key"] if one in text]
    assert all(line.startswith(("{", "I", "E", "W")) for line in text.splitlines() if line)  # JSON, or gRPC's own of refused handshakes


def run(*arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HE_NN_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(processes.TOP / "backend"), str(processes.TOP)])
    command = [sys.executable, "-m", "he_backend.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def _certificate(context, address):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10) as raw, context.wrap_socket(raw, server_hostname=host) as connection:
        return connection.getpeercert(binary_form=True)


def _shake(context, address):
    """A TLS handshake, and the first word after it: in TLS 1.3 the server looks at the client's certificate when the client is done."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10) as raw, context.wrap_socket(raw, server_hostname=host) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        if not connection.recv(100):
            raise ConnectionError("closed")


def _get(http, path, credentials, token):
    request = urllib.request.Request(f"https://{http}{path}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20, context=credentials.context()) as answer:
        return answer.read().decode()
