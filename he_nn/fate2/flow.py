"""A client of FATE Flow 2.2's HTTP API: submit, follow, stop, and read what a job left. Standard library only.

It runs wherever the user is, so that `he-nn job submit` needs no FATE beside it.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable

from he_backend.errors import HeError, TransportError

FINISHED = ("success", "failed", "canceled", "timeout", "pass")


class JobFailed(HeError):
    """A FATE job did not end in success; the message names the tasks and shows what each reported."""


class Flow:
    """FATE Flow at `address` (host:port)."""

    def __init__(self, address: str, timeout_s: float = 30.0) -> None:
        self.address = address
        self._timeout_s = timeout_s

    def submit(self, dag_schema: dict[str, Any]) -> str:
        """The id of the job that FATE Flow made of a DAG."""
        return str(self._post("job/submit", {"dag_schema": dag_schema})["job_id"])

    def stop(self, job_id: str) -> None:
        """Cancels a job on all its parties."""
        self._post("job/stop", {"job_id": job_id})

    def job_status(self, job_id: str) -> str:
        """The job's state as its own site sees it: waiting, running, success, failed, canceled."""
        jobs = self._get("job/query", job_id=job_id)["data"]
        states = [str(job["status"]) for job in jobs]
        unfinished = [state for state in states if state not in FINISHED]
        bad = [state for state in states if state != "success"]
        return (unfinished or bad or states)[0]

    def tasks(self, job_id: str) -> list[dict[str, Any]]:
        """The job's tasks, one entry for each task and party: task_name, role, party_id, status, error_report, ..."""
        answer = self._call("GET", "job/task/query", {"job_id": job_id}, None)
        return list(answer.get("data") or [])

    def follow(
        self,
        job_id: str,
        on_change: Callable[[dict[str, Any]], None],
        poll_s: float = 0.5,
        timeout_s: float = 3600.0,
        patience_s: float = 60.0,
    ) -> str:
        """The job's final state; `on_change` hears of each task that changed its state meanwhile.

        A job that takes longer than `timeout_s` is stopped, which raises JobFailed. When FATE Flow does not answer for `patience_s`,
        TransportError is raised and the job goes on.
        """
        seen: dict[tuple[str, str, str], str] = {}
        answered = time.monotonic()
        deadline = answered + timeout_s
        status = "submitted"
        while True:
            try:
                status, tasks = self.job_status(job_id), self.tasks(job_id)
            except TransportError as problem:
                if time.monotonic() - answered > patience_s:
                    raise TransportError(f"{problem}; job {job_id} goes on, this was only following it") from None
            else:
                answered = time.monotonic()
                for task in tasks:
                    key = (str(task["task_name"]), str(task["role"]), str(task["party_id"]))
                    if seen.get(key) != task["status"]:
                        seen[key] = str(task["status"])
                        on_change(task)
                if status in FINISHED:
                    return status
            if time.monotonic() > deadline:
                self.stop(job_id)
                raise JobFailed(f"job {job_id} was still {status} after {timeout_s:.0f} s and was stopped")
            time.sleep(poll_s)

    def failures(self, job_id: str) -> str:
        """What the job's failed tasks reported, for a person to read."""
        lines = []
        for task in self.tasks(job_id):
            if task["status"] in ("failed", "timeout"):
                report = str(task.get("error_report") or "no report").strip()
                lines.append(f"{task['task_name']} on {task['role']} {task['party_id']} {task['status']}:\n{report}")
        return "\n".join(lines) or "no task reported an error"

    def upload(self, path: str, name: str, namespace: str, meta: dict[str, Any], partitions: int = 4) -> str:
        """The id of the job that turns a CSV file on the server's machine into a data frame `namespace`.`name`."""
        body = {
            "file": path, "head": True, "partitions": partitions, "meta": meta, "extend_sid": True,
            "name": name, "namespace": namespace,
        }  # fmt: skip
        return str(self._post("data/component/upload", body)["job_id"])

    def has_table(self, name: str, namespace: str) -> bool:
        """Whether the server knows a table of that name."""
        return self._call("GET", "table/query", {"name": name, "namespace": namespace}, None)["code"] == 0

    def metrics(self, job_id: str, role: str, party_id: str, task_name: str) -> list[dict[str, Any]]:
        """The metrics that one party's task left."""
        answer = self._get("output/metric/query", job_id=job_id, role=role, party_id=party_id, task_name=task_name)
        return list(answer["data"] or [])

    def output_table(self, job_id: str, role: str, party_id: str, task_name: str) -> list[dict[str, str]]:
        """The rows of a task's output table, in its order."""
        query = {"job_id": job_id, "role": role, "party_id": party_id, "task_name": task_name}
        return self._download("output/data/download", query)

    def table(self, name: str, namespace: str) -> list[dict[str, str]]:
        """The rows of an uploaded table, in its order."""
        return self._download("data/download", {"name": name, "namespace": namespace, "header": "1"})

    def _download(self, path: str, query: dict[str, str]) -> list[dict[str, str]]:
        with self._open("GET", f"{path}?{urllib.parse.urlencode(query)}", None) as response:
            content = response.read()
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.name.endswith(".csv") else None
                    if stream is not None:
                        return list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8")))
        except tarfile.TarError:
            raise HeError(f"FATE Flow at {self.address} gave no table for {path}: {content[:300].decode(errors='replace')}") from None
        raise HeError(f"FATE Flow at {self.address} gave an archive without a table for {path}")

    def output_address(self, job_id: str, role: str, party_id: str, task_name: str) -> dict[str, Any]:
        """Where the platform keeps a task's output tables: for each output key its name and namespace."""
        return self._get("output/data/table", job_id=job_id, role=role, party_id=party_id, task_name=task_name)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._checked(path, self._call("POST", path, {}, body))

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        return self._checked(path, self._call("GET", path, query, None))

    def _checked(self, path: str, answer: dict[str, Any]) -> dict[str, Any]:
        if "code" in answer and answer["code"] != 0:
            raise HeError(f"FATE Flow at {self.address} refused {path}: {answer.get('message')} (code {answer['code']})")
        return answer

    def _call(self, method: str, path: str, query: dict[str, str], body: dict[str, Any] | None) -> dict[str, Any]:
        tail = "?" + urllib.parse.urlencode(query) if query else ""
        with self._open(method, path + tail, body) as response:
            content = response.read()
        try:
            return dict(json.loads(content))
        except ValueError as failure:
            raise TransportError(f"{self.address} answered {path} with something that is not FATE Flow's JSON") from failure

    def _open(self, method: str, tail: str, body: dict[str, Any] | None) -> Any:
        request = urllib.request.Request(
            f"http://{self.address}/v2/{tail}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        # A proxy set for the outside world must not see, or lose, calls to one's own FATE Flow.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as refusal:
            return refusal  # FATE Flow explains in the body of the answer
        except OSError as failure:
            raise TransportError(f"FATE Flow at {self.address} cannot be reached ({failure}); is it running?") from failure
