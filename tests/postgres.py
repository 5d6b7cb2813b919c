"""A PostgreSQL cluster of the test's own: in a temporary folder, on a Unix socket only, gone at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

USER = "postgres"


class Cluster:
    """A running cluster; `create` makes an empty database and gives its URL."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self._names = (f"he_nn_{number}" for number in itertools.count())
        self._run("initdb", "-D", folder / "data", "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8", "--no-locale")
        self.start()

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "fast", "-w", "stop")

    def create(self) -> str:
        name = next(self._names)
        self._run("createdb", "-h", self.folder, "-U", USER, name)
        return f"postgresql://{USER}@/{name}?host={self.folder}"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["runuser", "-u", USER, "--", *command]
        # Not captured through a pipe: the server that pg_ctl starts would keep it open.
        with open(self.folder / "output", "w+", encoding="utf-8") as output:
            done = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=60)
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read()[-2000:]}"


@contextlib.contextmanager
def cluster():
    """A cluster; skips the test when PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'he-nn[postgresql]'")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(path) for path in [shutil.which("initdb")] if path]
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="he-nn-pg-"))
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            os.chown(folder, account.pw_uid, account.pw_gid)
        running = Cluster(folder, found[-1].resolve().parent)
        try:
            yield running
        finally:
            with contextlib.suppress(AssertionError):  # a test may have stopped it
                running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
