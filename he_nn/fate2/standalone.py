"""A FATE 2.2 server on loopback, with all its data under one folder, for the demos and for tests: alone, or as one of several sites.

`fate_flow init` writes the home's paths into the installed package, so one copy could serve one home only. Here a `sitecustomize` module in
the home sets the same values in each process that the server starts, and the installed package stays as it was.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import psutil

from he_backend.errors import HeError

from .flow import Flow

HOST = "127.0.0.1"
MARK = "HE_NN_FATE_HOME"  # set in the server's environment, hence in that of every process it starts

SITE = """\
# Points FATE Flow at this folder (see he_nn/fate2/standalone.py).
import fate_flow.settings as settings

home = {home!r}
settings.DATA_DIR = home + "/data"
settings.MODEL_DIR = home + "/model"
settings.JOB_DIR = home + "/jobs"
settings.LOG_DIR = home + "/logs"
settings.UPLOAD_DATA_HOME = home + "/upload"
settings.SQLITE_FILE_DIR = home
settings.DEFAULT_SERVER_CONF_PATH = home + "/conf"
"""


@dataclass(frozen=True)
class Federation:
    """How a site reaches the others: its own message broker, the brokers of all parties, and the router of FATE Flow's own requests."""

    broker_port: int
    management_port: int
    user: str
    password: str = field(repr=False)
    router_port: int
    routes: Mapping[str, int]  # party id -> port of its broker, as seen from here
    message_bytes: int = 64 << 20


class Standalone:
    """A running FATE 2.2 server; leaving the `with` block ends it and everything that it started.

    `environment` adds to the little that the server's processes see of ours (FATE's scheduler log prints its whole environment). Without a
    `federation` all parties of a job are on this server.
    """

    def __init__(
        self,
        home: Path,
        environment: dict[str, str] | None = None,
        start_timeout_s: float = 90.0,
        party_id: str = "9999",
        federation: Federation | None = None,
        ports: tuple[int, int] | None = None,
    ) -> None:
        self.home = home.resolve()
        self._environment = dict(environment or {})
        self._party_id, self._federation, self._ports = party_id, federation, ports
        self._start_timeout_s = start_timeout_s
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Flow:
        stop_processes(self.home)  # left over by a run that was killed
        http_port, grpc_port = self._ports or free_ports(2)
        self._write_configuration(http_port, grpc_port)
        log = self.home / "server.log"
        with open(log, "wb") as stream:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "fate_flow.fate_flow_server"],
                cwd=str(self.home),
                env=self._server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the server in order
            )
        try:
            self._wait(http_port, log)
        except BaseException:
            self.stop()
            raise
        return Flow(f"{HOST}:{http_port}")

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server and every process that it started. Safe to call twice."""
        stop_processes(self.home)
        if self._server is not None:
            self._server.wait(timeout=10)
            self._server = None

    def _server_environment(self) -> dict[str, str]:
        binaries = str(Path(sys.executable).parent)
        return {
            "PATH": os.pathsep.join([binaries, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONUTF8": "1",
            "PYTHONPATH": str(self.home / "site"),
            MARK: str(self.home),
            **self._environment,
        }

    def _write_configuration(self, http_port: int, grpc_port: int) -> None:
        import fate_flow
        import yaml

        packaged = Path(fate_flow.__file__).parent / "conf"
        for folder in ("conf", "site", "upload"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        for path in packaged.iterdir():
            shutil.copy(path, self.home / "conf" / path.name)
        configuration: dict[str, Any] = yaml.safe_load((packaged / "service_conf.yaml").read_text(encoding="utf-8"))
        configuration["party_id"] = self._party_id
        configuration["fateflow"].update(host=HOST, http_port=http_port, grpc_port=grpc_port)
        if self._federation is not None:
            self._federate(configuration, self._federation)
        (self.home / "conf" / "service_conf.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        (self.home / "site" / "sitecustomize.py").write_text(SITE.format(home=str(self.home)), encoding="utf-8")

    def _federate(self, configuration: dict[str, Any], federation: Federation) -> None:
        import yaml

        configuration["default_engines"]["federation"] = "rabbitmq"
        configuration["fateflow"]["proxy_name"] = "nginx"
        configuration["federation"] = {
            "rabbitmq": {
                "host": HOST,
                "port": federation.broker_port,
                "mng_port": federation.management_port,
                "user": federation.user,
                "password": federation.password,
                "mode": "replication",
                "max_message_size": federation.message_bytes,
            },
            "nginx": {"host": HOST, "protocol": "http", "http_port": federation.router_port},
        }
        routes = {party: {"host": HOST, "port": port} for party, port in federation.routes.items()}
        (self.home / "conf" / "rabbitmq_route_table.yaml").write_text(yaml.safe_dump(routes), encoding="utf-8")

    def _wait(self, port: int, log: Path) -> None:
        assert self._server is not None
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise HeError(f"FATE Flow ended as it started (status {self._server.returncode}); see {log}:\n{tail(log)}")
            try:
                socket.create_connection((HOST, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise HeError(f"FATE Flow did not open its port within {self._start_timeout_s:.0f} s; see {log}:\n{tail(log)}")


def free_ports(count: int) -> list[int]:
    """`count` different ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log file."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def processes_of(home: Path) -> list[psutil.Process]:
    """The processes that belong to a home: those whose environment says so."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(home):
                found.append(process)
        except psutil.Error:  # not ours to look at, or gone
            continue
    return found


def stop_processes(home: Path, grace_s: float = 3.0) -> None:
    """Ends all processes of a home: a polite signal first, then the one that cannot be ignored."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        found = processes_of(home.resolve())
        for process in found:
            try:
                process.send_signal(sign)
            except psutil.Error:
                continue
        _, alive = psutil.wait_procs(found, timeout=grace_s)
        if not alive and not processes_of(home.resolve()):
            return
