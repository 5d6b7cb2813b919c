"""A RabbitMQ broker on loopback with all its data under one folder, as a process of the user's own; nothing of the system's is touched."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from he_backend.errors import HeError

from .standalone import HOST, MARK, free_ports, stop_processes, tail

BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's; the one on the PATH insists on root or the user rabbitmq
PLUGINS = "[rabbitmq_management,rabbitmq_federation,rabbitmq_federation_management]."
MISSING = "RabbitMQ is not installed: `apt-get install rabbitmq-server` (as root; its service need not run), or run where it is"


def binary() -> Path | None:
    """RabbitMQ's server program, if there is one."""
    found = BINARY if BINARY.is_file() else Path(shutil.which("rabbitmq-server") or "")
    return found if found.is_file() else None


class Broker:
    """A running broker; leaving the `with` block ends it, and the port mapper that Erlang starts for it.

    `start` returns at once, `wait` when it answers, so that several can start side by side.
    """

    def __init__(self, home: Path, start_timeout_s: float = 90.0) -> None:
        self.home = home.resolve()
        self.user, self.password = "fate", secrets.token_hex(16)
        self.port, self.management_port, self._distribution_port, self._mapper_port = free_ports(4)
        self._start_timeout_s = start_timeout_s
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the broker. Raises HeError when RabbitMQ is not installed."""
        program = binary()
        if program is None:
            raise HeError(MISSING)
        stop_processes(self.home)  # left over by a run that was killed
        shutil.rmtree(self.home / "data", ignore_errors=True)
        self.home.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        with open(self.home / "server.log", "wb") as stream:
            self._server = subprocess.Popen(
                [str(program)],
                cwd=str(self.home),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Returns when the broker answers; raises HeError when it does not."""
        assert self._server is not None
        log = self.home / "server.log"
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise HeError(f"RabbitMQ ended as it started (status {self._server.returncode}); see {log}:\n{tail(log)}")
            if self._answers():
                return
            time.sleep(0.2)
        raise HeError(f"RabbitMQ did not answer within {self._start_timeout_s:.0f} s; see {log}:\n{tail(log)}")

    def stop(self) -> None:
        """Ends the broker and all that it started. Safe to call twice."""
        stop_processes(self.home, grace_s=8.0)
        if self._server is not None:
            self._server.wait(timeout=10)
            self._server = None

    def _answers(self) -> bool:
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(f"http://{HOST}:{self.management_port}/api/overview", headers={"Authorization": f"Basic {token}"})
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def _write_configuration(self) -> None:
        lines = [
            f"listeners.tcp.1 = {HOST}:{self.port}",
            f"management.tcp.ip = {HOST}",
            f"management.tcp.port = {self.management_port}",
            f"default_user = {self.user}",
            f"default_pass = {self.password}",
            "log.console = false",
            "log.file.level = warning",
        ]
        path = self.home / "rabbitmq.conf"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.home / "enabled_plugins").write_text(PLUGINS + "\n", encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        address = "{" + HOST.replace(".", ",") + "}"
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),  # of the cookie by which Erlang nodes know each other
            MARK: str(self.home),
            "RABBITMQ_NODENAME": f"he_nn_{os.getpid()}_{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": HOST,
            # One scheduler that does not spin: two brokers and two sites may share two cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 1:1 +sbwt none -kernel inet_dist_use_interface {address}",
        }
