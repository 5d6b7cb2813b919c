"""Run by test_fate_job in FATE's environment, on the home that the demo left: jobs on one server, each printed as a line of JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from he_backend import zoo
from he_nn.fate2.demo import EXAMPLE, GUEST, HOST
from he_nn.fate2.flow import FINISHED
from he_nn.fate2.standalone import Standalone, processes_of
from he_nn.translate import Job, read_job, to_dag


def example(name, **parameters):
    """An example's job with other parameters for its only he-nn component."""
    job = read_job(*(f"{EXAMPLE.parent}/he_nn_{name}_{part}.json" for part in ("conf", "dsl")))
    conf = json.loads(json.dumps(job.conf))
    component = next(task for task in conf["component_parameters"]["common"] if task.startswith("he_nn_"))
    conf["component_parameters"]["common"][component].update(parameters)
    return Job(conf, job.dsl, job.folder), component


def say(check, **values):
    print(json.dumps({"check": check, **values}), flush=True)


def rows_from_a_file(flow, home):
    x, _ = zoo.shipped("MLP").load_test()
    np.save(home / "rows.npy", x[:30])
    job, task = example(
        "model_client_inference", model_type="MLP", client=False, server_url="", num_inference=20, file_inference=str(home / "rows.npy"),
        encryption_parameters="N12_L4",
    )  # fmt: skip
    job_id = flow.submit(to_dag(job))
    status = flow.follow(job_id, lambda task: None)
    rows = flow.output_table(job_id, *GUEST, task) if status == "success" else []
    say("file", status=status, failures=flow.failures(job_id), rows=rows)


def failure(flow):
    job, _ = example("model_load", is_init=False, model_id="not-there")
    started = time.monotonic()
    job_id = flow.submit(to_dag(job))
    status = flow.follow(job_id, lambda task: None)
    states = {role: task["status"] for task in flow.tasks(job_id) for role in [task["role"]]}
    say("failure", status=status, states=states, failures=flow.failures(job_id), seconds=time.monotonic() - started)


def apart(flow):
    """The host goes by a service, the guest waits for it; such a job is refused in translation, not in a DAG of one's own."""
    job, task = example("model_load", server_url="")
    dag = to_dag(job)
    own = {"parties": [{"role": HOST[0], "party_id": [HOST[1]]}], "tasks": {task: {"parameters": {"server_url": "127.0.0.1:9"}}}}
    dag["dag"]["party_tasks"] = {"_".join(HOST): own}
    job_id = flow.submit(dag)
    status = flow.follow(job_id, lambda task: None)
    say("apart", status=status, failures=flow.failures(job_id))


def cancel(flow, home):
    job, _ = example("model_eval", model_type="MLP", batch_size=512)
    job_id = flow.submit(to_dag(job))
    while not any(task["status"] == "running" for task in flow.tasks(job_id)):
        assert flow.job_status(job_id) not in FINISHED
        time.sleep(0.2)
    while len(workers(home)) < 2:
        time.sleep(0.1)
    started = time.monotonic()
    flow.stop(job_id)
    status = flow.follow(job_id, lambda task: None)
    seconds = ended(home, started)
    say("cancel", status=status, workers=workers(home), seconds=seconds)


def ended(home, started, limit_s=120):
    """Seconds until no process computes for either side; returns when FATE's own cleaning up has ended too, or after the limit."""
    seconds = None
    while time.monotonic() < started + limit_s:  # FATE says so before its processes have ended
        left = workers(home)
        if seconds is None and not [command for command in left if "cleanup" not in command]:
            seconds = time.monotonic() - started
        if not left:
            break
        time.sleep(0.2)
    return limit_s if seconds is None else seconds


def workers(home):
    """Processes that run a task for either side."""
    found = []
    for process in processes_of(home):
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if "component" in command and process.status() != psutil.STATUS_ZOMBIE:
                found.append(command)
    return found


def metrics(flow, job_id):
    found = {}
    for role, party in (GUEST, HOST):
        found[role] = sorted({metric["name"] for metric in flow.metrics(job_id, role, party, "he_nn_inference_0")})
    say("metrics", **found)


def main():
    home, job_id = Path(sys.argv[1]), sys.argv[2]
    with Standalone(home, {"HE_NN_HOME": str(home)}) as flow:
        metrics(flow, job_id)
        rows_from_a_file(flow, home)
        failure(flow)
        apart(flow)
        cancel(flow, home)


if __name__ == "__main__":
    main()
