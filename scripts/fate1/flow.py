"""FATE Flow 1.x as a user has it: the `flow` command, its REST interface, and a job's folders and processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

from fate_setup import provider
from fate_setup.deployment import SetupError

from .checks import EXAMPLES, check, wait_for

GUEST, HOST = ("guest", 9999), ("host", 10000)
NAMESPACE = "he_nn_check"  # of the check's own: the tables of `experiment` are FATE's examples, and the users'
ENDED = ("success", "failed", "canceled", "timeout")


class Flow:
    """A running FATE Flow of the deployment `found`. `home` takes the files that are submitted."""

    def __init__(self, found: Any, address: str, home: Path, environment: dict[str, str]) -> None:
        self.found, self.address, self.home, self.environment = found, address, home, environment
        self.uploaded: list[str] = []
        host, port = address.split(":")
        self.command("init", "--ip", host, "--port", port)

    def command(self, *arguments: str) -> Any:
        """What the `flow` command answers."""
        ran = subprocess.run(["flow", *arguments], env=self.environment, capture_output=True, text=True)
        at = ran.stdout.find("{")
        if at < 0:
            print(ran.stdout, ran.stderr)
            check(False, f"flow {' '.join(arguments)} answers")
        return json.loads(ran.stdout[at:])

    def rest(self, endpoint: str, body: Any) -> Any:
        """FATE Flow's answer."""
        return provider.post(self.address, endpoint, body)

    def python(self, *arguments: str) -> str:
        """What FATE's own Python prints; ends the run when it fails."""
        ran = subprocess.run([str(self.found.python.path), *arguments], env=self.environment, capture_output=True, text=True)
        if ran.returncode != 0:
            print(ran.stdout, ran.stderr)
            check(False, f"python {' '.join(arguments)[:80]} in FATE's environment")
        return ran.stdout

    def upload(self, path: Path, name: str) -> None:
        """A CSV file as a table of the check's own namespace, in place of one that an earlier run left there."""
        self.uploaded.append(name)
        upload = {"file": str(path), "head": 1, "partition": 4, "table_name": name, "namespace": NAMESPACE}
        answer = self.command("data", "upload", "-c", str(self.write("upload", upload)), "--drop")
        job_id = answer["data"]["job_id"] if "data" in answer else answer["jobId"]
        state = wait_for(lambda: (now := self.state(job_id, "local", 0)) in ENDED and now, 120, f"the upload of {name}")
        check(state == "success", f"table {NAMESPACE}.{name} is there")

    def remove_tables(self) -> list[str]:
        """Removes what was uploaded; gives the names of tables that are still there."""
        return [name for name in self.uploaded if not self._removed(name)]

    def _removed(self, name: str) -> bool:
        table = {"table_name": name, "namespace": NAMESPACE}
        try:
            self.rest("table/delete", table)
            return not self.rest("table/table_info", table)["data"]["exist"]
        except (SetupError, LookupError, TypeError):  # it no longer answers, or with a refusal
            return False

    def example(self, name: str, **changes: Any) -> tuple[Path, Path]:
        """The conf and dsl of an example, on the check's own tables, parameters of its he-nn components changed where they have them."""
        conf = json.loads((EXAMPLES / f"{name}_conf.json").read_text(encoding="utf-8"))
        _read_own_tables(conf)
        for component, values in conf["component_parameters"]["common"].items():
            if component.startswith("he_nn_"):
                values.update({key: value for key, value in changes.items() if key in values})
        return self.write("conf", conf), EXAMPLES / f"{name}_dsl.json"

    def submit(self, conf: Path, dsl: Path) -> Any:
        """FATE Flow's answer to a submission."""
        return self.command("job", "submit", "-c", str(conf), "-d", str(dsl))

    def start(self, name: str, **changes: Any) -> str:
        """The id of an example's job, which has been taken."""
        return self.take(*self.example(name, **changes), name)

    def take(self, conf: Path, dsl: Path, name: str) -> str:
        """The id of a job, which has been taken."""
        answer = self.submit(conf, dsl)
        check(answer.get("retcode") == 0, f"{name} is taken: {answer.get('retmsg')}")
        return str(answer["jobId"] if "jobId" in answer else answer["data"]["job_id"])

    def end(self, job_id: str, timeout_s: float = 600) -> str:
        """The state that a job ends in."""
        state: str = wait_for(lambda: (now := self.state(job_id, *GUEST)) in ENDED and now, timeout_s, f"the end of job {job_id}")
        return state

    def state(self, job_id: str, role: str, party_id: int) -> str:
        """A job's state."""
        found = self.rest("job/query", {"job_id": job_id, "role": role, "party_id": party_id}).get("data") or [{}]
        return str(found[0].get("f_status", ""))

    def tasks(self, job_id: str) -> list[dict[str, Any]]:
        """The job's tasks at both parties."""
        return list(self.rest("job/task/query", {"job_id": job_id}).get("data") or [])

    def failures(self, job_id: str) -> str:
        """What the job's tasks reported."""
        shown = ((one["f_component_name"], one["f_role"], one["f_status"], one.get("f_error_report", "")) for one in self.tasks(job_id))
        return "\n".join(f"{component} {role}: {status}\n{report}" for component, role, status, report in shown)

    def metrics(self, job_id: str, component: str) -> Any:
        """namespace -> metric -> data of the guest's task."""
        query = {"job_id": job_id, "component_name": component, "role": GUEST[0], "party_id": GUEST[1]}
        return self.rest("tracking/component/metric/all", query).get("data") or {}

    def figures(self, job_id: str, component: str) -> dict[str, Any]:
        """The row of figures of one of the guest's tasks."""
        return dict(self.metrics(job_id, component).get("he_nn", {}).get("summary", {}).get("data", []))

    def write(self, name: str, values: Any) -> Path:
        """A JSON file for the client."""
        path = self.home / f"{name}.json"
        path.write_text(json.dumps(values, indent=1), encoding="utf-8")
        return path

    def folders(self, job_id: str) -> list[Path]:
        """Where FATE Flow keeps what belongs to a job: its configuration and its logs."""
        places = (self.found.base / "fateflow", self.found.base)
        return [place / kind / job_id for place in places for kind in ("jobs", "logs") if (place / kind / job_id).is_dir()]


def _read_own_tables(conf: Any) -> None:
    parameters = conf["component_parameters"]
    parties = [components for by_number in parameters.get("role", {}).values() for components in by_number.values()]
    for components in [parameters.get("common", {}), *parties]:
        for values in components.values():
            if "table" in values:
                values["table"]["namespace"] = NAMESPACE


def processes_of(job_id: str, role: str = "") -> list[int]:
    """The processes that run a task of a job, of one role or of both."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            ours = any(job_id.encode() in word for word in words) and any(b"task_executor" in word for word in words)
            if ours and (not role or role.encode() in words):
                found.append(int(path.parent.name))
    return found
