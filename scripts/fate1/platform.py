"""The deployment while he-nn is in it: installation, FATE Flow, and the two services beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

from fate_setup import deployment as deployments
from fate_setup import packages, provider, record

from .checks import TOP, check, listens, wait_for


def setup(found: Any, *options: str) -> None:
    """Runs he_nn_setup.sh."""
    command = ["bash", str(TOP / "he_nn_setup.sh"), "--base", str(found.base), "--python", str(found.python.path), *options]
    started = time.monotonic()
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        print(ran.stdout)
    check(ran.returncode == 0, f"he_nn_setup.sh {' '.join(options) or 'install'} ({time.monotonic() - started:.0f} s)")


def is_installed(found: Any) -> bool:
    """Whether he_nn_setup.sh installed he-nn in this deployment, so that it stays after the check.

    Raises SetupError where it is there in another way: the check would leave it otherwise than it was.
    """
    known = record.read(found)
    if found.key in known.files:
        return True
    if not known.files and packages.NAME not in found.python.packages:
        return False
    if not known.files:
        out = f"{found.python.path} -m pip uninstall {packages.NAME}"
    else:
        out = f"with --uninstall, for {', '.join(known.files)}"
    raise deployments.SetupError(
        f"he-nn is in {found.python.prefix} already, not as he_nn_setup.sh installs it here, and this check installs it and takes it out. "
        f"Take it out first ({out}), and install it again afterwards"
    )


def snapshot(found: Any) -> list[str]:
    """What the deployment consists of: packages with versions, and the files of federatedml and the examples."""
    packages = [f"{name}=={version}" for name, version in deployments.inspect(str(found.python.path)).packages.items()]
    folders = [found.federatedml, found.base / "examples", found.base / "he_nn_provider"]
    files = [str(path) for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return packages + files


def surroundings(found: Any, home: Path) -> dict[str, str]:
    """The environment of FATE Flow and its client, as bin/init_env.sh makes it. Temporary files go to `home` too, to be looked at."""
    flow = next(path for path in (found.base / "fateflow" / "python", found.base / "python") if (path / "fate_flow").is_dir())
    binaries = found.python.path.parent
    return {
        **os.environ,
        "FATE_PROJECT_BASE": str(found.base),
        "FATE_DEPLOY_BASE": str(found.base),
        "PYTHONPATH": os.pathsep.join([str(found.federatedml.parent), str(flow)]),
        "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
        "VIRTUAL_ENV": str(binaries.parent),
        "HE_NN_HOME": str(home),
        "HOME": str(home),  # the client keeps its settings there
        "TMPDIR": str(home),
    }


@contextlib.contextmanager
def flow_server(found: Any, environment: dict[str, str]) -> Iterator[str]:
    """The address of a FATE Flow that knows the components. One that was running is restarted, and again at the end."""
    address = provider.address_of(found)
    service = found.base / "fateflow" / "bin" / "service.sh"
    host, port = address.split(":")
    running = listens(host, int(port))
    process, path = None, Path(environment["HE_NN_HOME"]) / "fate_flow.log"
    if running:
        subprocess.run(["bash", str(service), "restart"], env=environment, stdout=subprocess.DEVNULL, check=True)
    else:
        script = next(Path(folder) / "fate_flow" / "fate_flow_server.py" for folder in environment["PYTHONPATH"].split(":")[::-1])
        log = open(path, "wb")  # noqa: SIM115 - the server's for as long as it runs
        process = subprocess.Popen(
            [str(found.python.path), str(script)], cwd=str(found.base), env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: listens(host, int(port)) or (process and process.poll() is not None), 120, f"FATE Flow at {address}")
        if process is not None and process.poll() is not None:
            print(path.read_text(encoding="utf-8", errors="replace")[-3000:])
            check(False, f"FATE Flow at {address} starts (its own words stand above)")
        yield address
    finally:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):  # it did not start
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
        else:
            subprocess.run(["bash", str(service), "restart"], stdout=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def services(home: Path) -> Iterator[tuple[str, str]]:
    """The HTTP addresses of an HE-server and an HE-client of the project's own environment; ('', '') where there is none."""
    python = TOP / ".venv" / "bin" / "python"
    if not python.exists():
        yield "", ""
        return
    processes = []

    def start(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": f"{TOP / 'backend'}:{TOP}", "HE_NN_HOME": str(home / arguments[0])}
        command = [str(python), "-m", "he_backend.cli", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        processes.append(process)
        assert process.stdout is not None
        return next(line.split()[1] for line in process.stdout if line.startswith("http"))

    try:
        server = start("serve", "--port", "0", "--http-port", "0")
        yield server, start("client-serve", "--http-port", "0", "--server-url", server)
    finally:
        for process in processes:
            process.terminate()
            process.wait(60)
