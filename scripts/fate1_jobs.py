"""`make test-fate1`: the examples on a real FATE 1.9 to 1.11, from installation to a deployment without a trace of it.

Installs with he_nn_setup.sh, (re)starts FATE Flow, submits every example with `flow job submit -c -d`, waits, and checks states, output
rows and metrics over FATE Flow's REST interface; then service mode, custom parameters, a refused parameter and a stopped job; then
uninstalls. Standard library only, so that any Python runs it. Without FATE_PROJECT_BASE it says so and ends well.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator

from fate_setup import deployment as deployments
from fate_setup import provider

TOP = Path(__file__).resolve().parents[1]
EXAMPLES = TOP / "dsl_examples"
GUEST, HOST = ("guest", 9999), ("host", 10000)
ROWS = 40
CUSTOM = {"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [40, 40]}
ENDED = ("success", "failed", "canceled", "timeout")


def main() -> int:
    """The exit status is 0 when every check held, or when there is no deployment."""
    base = os.environ.get("FATE_PROJECT_BASE", "")
    if not base:
        print("test-fate1 skipped: FATE_PROJECT_BASE names no FATE 1.9 to 1.11 (make test-fate1 FATE_PROJECT_BASE=/data/projects/fate)")
        return 0
    found = deployments.find(base=base)
    before = snapshot(found)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = surroundings(found, home)
        try:
            setup(found)
            setup(found, "--check")
            unit_tests(found, environment)
            with flow_server(found, environment) as address, services(home) as (server_url, client_url):
                Jobs(found, address, home, environment).run(server_url, client_url)
        finally:
            setup(found, "--uninstall")
    left = sorted(set(snapshot(found)) ^ set(before))
    check(not left, f"uninstalled without a trace (left or gone: {left[:5]})")
    print("test-fate1 passed")
    return 0


def check(holds: bool, what: str) -> None:
    """Prints a finding; a wrong one ends the run."""
    print(("ok      " if holds else "WRONG   ") + what, flush=True)
    if not holds:
        raise SystemExit(1)


def setup(found: Any, *options: str) -> None:
    """Runs he_nn_setup.sh."""
    command = ["bash", str(TOP / "he_nn_setup.sh"), "--base", str(found.base), "--python", str(found.python.path), *options]
    started = time.monotonic()
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        print(ran.stdout)
    check(ran.returncode == 0, f"he_nn_setup.sh {' '.join(options) or 'install'} ({time.monotonic() - started:.0f} s)")


def snapshot(found: Any) -> list[str]:
    """What the deployment consists of: packages with versions, and the files of federatedml and the examples."""
    packages = [f"{name}=={version}" for name, version in deployments.inspect(str(found.python.path)).packages.items()]
    folders = [found.federatedml, found.base / "examples", found.base / "he_nn_provider"]
    files = [str(path) for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return packages + files


def surroundings(found: Any, home: Path) -> dict[str, str]:
    """The environment of FATE Flow and its client, as bin/init_env.sh makes it."""
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
    }


def unit_tests(found: Any, environment: dict[str, str]) -> None:
    """Each *_test.py as `fate_test unittest federatedml` runs it; a broken import must print FAILED."""
    files = sorted((found.federatedml / "he_nn").rglob("*_test.py"))
    for path in files:
        ran = subprocess.run([found.python.path, str(path)], capture_output=True, text=True, env=environment)
        check(ran.stderr.rstrip().endswith("OK") and "FAILED" not in ran.stdout + ran.stderr, f"{path.name} runs alone and prints OK")
    broken = {**environment, "PYTHONPATH": str(TOP / "scripts")}
    ran = subprocess.run([found.python.path, str(files[-1])], capture_output=True, text=True, env=broken)
    check("FAILED" in ran.stdout + ran.stderr, f"{files[-1].name} prints FAILED where an import is broken")


@contextlib.contextmanager
def flow_server(found: Any, environment: dict[str, str]) -> Iterator[str]:
    """The address of a FATE Flow that knows the components. One that was running is restarted, and again at the end."""
    address = provider.address_of(found)
    service = found.base / "fateflow" / "bin" / "service.sh"
    host, port = address.split(":")
    running = listens(host, int(port))
    process = None
    if running:
        subprocess.run(["bash", str(service), "restart"], env=environment, stdout=subprocess.DEVNULL, check=True)
    else:
        script = next(Path(folder) / "fate_flow" / "fate_flow_server.py" for folder in environment["PYTHONPATH"].split(":")[::-1])
        log = open(Path(environment["HE_NN_HOME"]) / "fate_flow.log", "wb")  # noqa: SIM115 - the server's for as long as it runs
        process = subprocess.Popen(
            [str(found.python.path), str(script)], cwd=str(found.base), env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: listens(host, int(port)), 120, f"FATE Flow at {address}")
        yield address
    finally:
        if process is not None:
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


def listens(host: str, port: int) -> bool:
    """Whether someone takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def wait_for(true: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """What `true` gives once it is something."""
    end = time.monotonic() + timeout_s
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > end:
            check(False, f"{what} within {timeout_s:.0f} s")
        time.sleep(0.5)


class Jobs:
    """The jobs, one after another, and what must be true of each."""

    def __init__(self, found: Any, address: str, home: Path, environment: dict[str, str]) -> None:
        self.found, self.address, self.home, self.environment = found, address, home, environment

    def run(self, server_url: str, client_url: str) -> None:
        """Every example, then what the examples do not show."""
        host, port = self.address.split(":")
        self.flow("init", "--ip", host, "--port", port)
        self.prepare()
        self.job("he_nn_model_load")
        self.job("he_nn_model_eval")
        self.predicted(self.job("he_nn_model_inference"))
        whole = self.job("he_nn_all_in_one")
        self.predicted(whole)
        scores = self.metrics(whole, "evaluation_0")
        check("accuracy" in json.dumps(scores) or "auc" in json.dumps(scores), "FATE's Evaluation follows he-nn-inference")
        self.predicted(self.job("he_nn_model_inference", is_custom_enc_param=True))
        if server_url:
            self.job("he_nn_model_load", server_url=server_url)
            served = {"server_url": server_url, "client_url": client_url, "num_inference": 7}
            self.predicted(self.job("he_nn_model_client_inference", **served), rows=7)
            self.predicted(self.job("he_nn_model_client_inference", client=False, **served), rows=7)
        self.refused()
        self.stopped()

    def prepare(self) -> None:
        """The tables and files of the examples: digits with their labels, as a table and as an .npy file."""
        script = (
            "import sys, numpy as np\nfrom he_backend import zoo\n"
            "x, y = zoo.shipped('CNN', 'digits').load_test()\n"
            "np.save(sys.argv[1] + '/inference_data.npy', x)\n"
            f"x, y = x[:{ROWS}].reshape({ROWS}, -1), y[:{ROWS}]\n"
            "lines = [f'digit_{i:04d},{y[i]},' + ','.join(map(repr, map(float, x[i]))) for i in range(len(x))]\n"
            "head = 'id,y,' + ','.join(f'x{i}' for i in range(x.shape[1]))\n"
            "open(sys.argv[1] + '/digits.csv', 'w').write('\\n'.join([head, *lines]) + '\\n')\n"
        )
        subprocess.run([str(self.found.python.path), "-c", script, str(self.home)], env=self.environment, check=True)
        (self.home / "custom_enc_param.json").write_text(json.dumps(CUSTOM), encoding="utf-8")
        upload = {"file": str(self.home / "digits.csv"), "head": 1, "partition": 4, "table_name": "digits_test", "namespace": "experiment"}
        path = self.write("upload", upload)
        answer = self.flow("data", "upload", "-c", str(path), "--drop")
        wait_for(lambda: self.state(answer["data"]["job_id"], "local", 0) == "success", 120, "the upload")

    def job(self, name: str, **changes: Any) -> str:
        """The id of an example's job that ended in success."""
        conf = json.loads((EXAMPLES / f"{name}_conf.json").read_text(encoding="utf-8"))
        for component, values in conf["component_parameters"]["common"].items():
            if component.startswith("he_nn_"):
                values.update({key: value for key, value in changes.items() if key in values})
        path = self.write("conf", conf)
        started = time.monotonic()
        answer = self.flow("job", "submit", "-c", str(path), "-d", str(EXAMPLES / f"{name}_dsl.json"))
        check(answer.get("retcode") == 0, f"{name} is taken: {answer.get('retmsg')}")
        job_id = str(answer["jobId"] if "jobId" in answer else answer["data"]["job_id"])
        state = wait_for(lambda: (now := self.state(job_id, *GUEST)) in ENDED and now, 600, name)
        shown = " ".join(f"{key}={value}" for key, value in changes.items())
        if state != "success":
            print(self.failures(job_id))
        check(state == "success", f"{name} {shown} is a success in {time.monotonic() - started:.0f} s")
        for component in conf["component_parameters"]["common"]:
            if component.startswith("he_nn_"):
                figures = dict(self.metrics(job_id, component).get("he_nn", {}).get("summary", {}).get("data", []))
                check("model_name" in figures, f"{name}: {component} has its figures for FATE-Board: {', '.join(list(figures)[:4])}, ...")
        return job_id

    def predicted(self, job_id: str, rows: int = ROWS) -> None:
        """The guest's prediction table, its metrics, and that the host has none."""
        query = {"job_id": job_id, "component_name": "he_nn_inference_0"}
        answer = self.rest("tracking/component/output/data", {**query, "role": GUEST[0], "party_id": GUEST[1]})
        header, lines = answer["meta"]["header"][0], answer["data"][0]
        names = ["label", "predict_result", "predict_score", "predict_detail", "type"]
        check(header[-5:] == names and answer["meta"]["total"][0] == rows, f"{rows} rows with {', '.join(header)}")
        check([line[0] for line in lines] == sorted(line[0] for line in lines) or rows == ROWS, "the rows come in their order")
        host = self.rest("tracking/component/output/data", {**query, "role": HOST[0], "party_id": HOST[1]})
        check(not host.get("data"), "the host has no prediction")
        found = self.metrics(job_id, "he_nn_inference_0").get("he_nn", {})
        figures = dict(found["summary"]["data"])
        check(
            figures.get("accuracy", 1.0) > 0.9 and figures["rounds"] >= 1,
            f"accuracy {figures.get('accuracy', 'unknown')}, {figures['rounds']} rounds, {figures['seconds_total']} s",
        )
        if figures["is_encryption"]:
            check(found["progress_loss"]["data"][-1][1] == 100.0, "its progress is a curve that ends at 100")

    def refused(self) -> None:
        """A wrong parameter shows in the answer to the submission."""
        conf = json.loads((EXAMPLES / "he_nn_model_eval_conf.json").read_text(encoding="utf-8"))
        conf["component_parameters"]["common"]["he_nn_eval_0"]["batch_size"] = 513
        answer = self.flow("job", "submit", "-c", str(self.write("conf", conf)), "-d", str(EXAMPLES / "he_nn_model_eval_dsl.json"))
        check(answer["retcode"] != 0 and "batch_size: 513; allowed: 1 to 512" in json.dumps(answer), "a wrong parameter is refused by name")

    def stopped(self) -> None:
        """A job that is stopped leaves no process."""
        dsl = str(EXAMPLES / "he_nn_all_in_one_dsl.json")
        answer = self.flow("job", "submit", "-c", str(EXAMPLES / "he_nn_all_in_one_conf.json"), "-d", dsl)
        job_id = str(answer["jobId"] if "jobId" in answer else answer["data"]["job_id"])
        wait_for(lambda: processes_of(job_id), 120, "a task's process")
        self.flow("job", "stop", "-j", job_id)
        wait_for(lambda: not processes_of(job_id), 60, "no process of a stopped job")
        check(self.state(job_id, *GUEST) == "canceled", "a stopped job is canceled, and no process is left")

    def flow(self, *arguments: str) -> Any:
        """What the `flow` command answers."""
        ran = subprocess.run(["flow", *arguments], env=self.environment, capture_output=True, text=True)
        at = ran.stdout.find("{")
        if at < 0:
            print(ran.stdout, ran.stderr)
            check(False, f"flow {' '.join(arguments)} answers")
        return json.loads(ran.stdout[at:])

    def write(self, name: str, values: Any) -> Path:
        """A JSON file for the client."""
        path = self.home / f"{name}.json"
        path.write_text(json.dumps(values, indent=1), encoding="utf-8")
        return path

    def rest(self, endpoint: str, body: Any) -> Any:
        """FATE Flow's answer."""
        return provider.post(self.address, endpoint, body)

    def state(self, job_id: str, role: str, party_id: int) -> str:
        """A job's state."""
        found = self.rest("job/query", {"job_id": job_id, "role": role, "party_id": party_id}).get("data") or [{}]
        return str(found[0].get("f_status", ""))

    def failures(self, job_id: str) -> str:
        """What the job's tasks reported."""
        found = self.rest("job/task/query", {"job_id": job_id}).get("data") or []
        return "\n".join(f"{one['f_component_name']} {one['f_role']}: {one['f_status']}\n{one.get('f_error_report', '')}" for one in found)

    def metrics(self, job_id: str, component: str) -> Any:
        """namespace -> metric -> data of the guest's task."""
        query = {"job_id": job_id, "component_name": component, "role": GUEST[0], "party_id": GUEST[1]}
        return self.rest("tracking/component/metric/all", query).get("data") or {}


def processes_of(job_id: str) -> list[int]:
    """The processes whose command line names a job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = path.read_bytes()
            if job_id.encode() in text and b"task_executor" in text:
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
