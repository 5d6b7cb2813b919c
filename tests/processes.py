"""The two services as real processes on free ports, and requests to them as curl makes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service:
    """One process of `he-nn COMMAND`; `http` is HOST:PORT of its API."""

    def __init__(self, command, home, *options):
        # Temporary files go to its home too, so that a test which looks for what is left on disk sees them.
        own = {"PYTHONPATH": os.pathsep.join([str(TOP / "backend"), str(TOP)]), "HE_NN_HOME": str(home), "TMPDIR": str(home)}
        environment = {**os.environ, **own}
        self.errors = open(home / f"{command}.log", "a+")  # noqa: SIM115 - closed when the process has ended
        arguments = [sys.executable, "-m", "he_backend.cli", command, *map(str, options)]
        self.process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.channel = ""
        for line in self.process.stdout:
            word, address = line.split()
            if word == "http":
                self.http = address
                break
            self.channel = address
        else:
            raise AssertionError(f"{command} did not start: {self.log()}")
        wait_until(self._answers)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait(30)
        self._close()

    def stop(self):
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._close()
        return status

    def log(self):
        if self.errors.closed:
            return ""
        self.errors.flush()
        return Path(self.errors.name).read_text()

    def _close(self):
        self.process.stdout.close()
        self.errors.close()

    def _answers(self):
        try:
            return get(self.http, "/healthz")[0] == 200
        except OSError:
            assert self.process.poll() is None, self.log()
            return False


def server(home, *options):
    free = () if "--http-port" in options else ("--port", 0, "--http-port", 0)
    return Service("serve", home, *free, *options)


def client(home, server_url, *options):
    return Service("client-serve", home, "--http-port", 0, "--server-url", server_url, *options)


def get(http, path):
    return _ask(urllib.request.Request(f"http://{http}{path}"))


def post(http, path, body=None, form=None, kind="application/json"):
    """(status, envelope) of a JSON body (bytes as they are) or a form."""
    if form is not None:
        data, kind = urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded"
    else:
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    return _ask(urllib.request.Request(f"http://{http}{path}", data, {"Content-Type": kind}))


def multipart(http, path, fields=(), files=()):
    """(status, envelope) of what curl -F sends."""
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in dict(fields).items()
    ]
    for name, data in files:
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        parts.append(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n")
    body = b"".join([*parts, f"--{mark}--\r\n".encode()])
    return _ask(urllib.request.Request(f"http://{http}{path}", body, {"Content-Type": f"multipart/form-data; boundary={mark}"}))


def wait_until(true, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def _ask(request):
    try:
        with _OPENER.open(request, timeout=120) as answer:
            status, text, headers = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as refused:
        with refused:
            status, text, headers = refused.code, refused.read(), refused.headers
    if "json" not in headers.get("Content-Type", ""):
        return status, text.decode()
    envelope = json.loads(text)
    envelope["headers"] = dict(headers)
    return status, envelope
