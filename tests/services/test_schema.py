"""What schemathesis makes of the OpenAPI documents: right and wrong requests, no 5xx, no answer that the document lacks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from he_backend.api import HEServer
from tests import processes

# Not among the checks: that whatever the schema allows is accepted. Models, files and parameters must exist, which no schema can say.
OPTIONS = (
    *("--exclude-checks", "positive_data_acceptance", "--phases", "fuzzing"),  # by hand also coverage: minutes
    *("--request-timeout", "60", "--max-examples", "4", "--seed", "1", "--no-color"),
)


@pytest.mark.slow
def test_the_services_are_what_their_documents_say(tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install -r requirements/dev.txt")
    for name in ("server", "client", "cwd"):
        (tmp_path / name).mkdir()
    server = processes.server(tmp_path / "server")
    client = processes.client(tmp_path / "client", server.http)
    try:
        HEServer(server.http).load("MLP")
        running = [tried(service.http, tmp_path / "cwd") for service in (server, client)]
        results = [(one.communicate(timeout=500)[0], one.returncode) for one in running]
    finally:
        statuses, logs = [service.stop() for service in (client, server)], [client.log(), server.log()]

    for report, status in results:
        assert status == 0 and " passed" in report, report[-6000:]
    assert statuses == [0, 0] and logs == ["", ""]


def tried(http, folder):
    program = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
    command = [sys.executable, "-c", program, "run", f"http://{http}/openapi.json", *OPTIONS]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
