"""Run by test_two_sites in FATE's environment: an encrypted and then a plain inference between two sites, printed as lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from he_backend import zoo
from he_nn.fate2.crossing import inspect, row_needles
from he_nn.fate2.demo import GUEST, HOST, figures
from he_nn.fate2.two_sites import TwoSites

BOTH = [{"role": role, "party_id": [party]} for role, party in (GUEST, HOST)]
ROWS = 200


def job(path, encrypted, model_id="latest"):
    """Load and inference; the rows come from a file of the guest's."""
    common = {"model_type": "MLP", "server_url": ""}
    inference = {
        **common,
        "num_inference": ROWS,
        "file_inference": str(path),
        "is_encryption": encrypted,
        "encryption_parameters": "N12_L4",
    }
    tasks = {"inference": {"component_ref": "he-nn-inference", "parameters": {**inference, "model_id": model_id}, "parties": BOTH}}
    if encrypted:
        channel = {"producer_task": "load", "output_artifact_key": "output_model", "parties": BOTH}
        tasks["inference"]["inputs"] = {"model": {"input_model": {"task_output_artifact": channel}}}
        tasks["load"] = {"component_ref": "he-nn-load", "parameters": common, "parties": BOTH}
    conf = {"initiator_party_id": GUEST[1], "scheduler_party_id": GUEST[1]}
    return {"schema_version": "2.2.0", "kind": "fate", "dag": {"parties": BOTH, "stage": "default", "conf": conf, "tasks": tasks}}


def run(sites, check, dag, needles):
    started = time.monotonic()
    job_id = sites.guest.submit(dag)
    status = sites.guest.follow(job_id, lambda task: None)
    values = {"check": check, "status": status, "failures": sites.guest.failures(job_id), "seconds": time.monotonic() - started}
    if status == "success":
        values["rows"] = sites.guest.output_table(job_id, *GUEST, "inference")
        values["guest"] = figures(sites.guest, job_id, *GUEST, "inference")
        values["host"] = figures(sites.host, job_id, *HOST, "inference")
        crossed = inspect(sites.recordings(), needles)
        values["crossed"] = {**asdict(crossed), "random_share": crossed.random_share}
        values["model_was_seen"] = inspect(sites.recordings(), [values["guest"]["model_id"].encode()]).found
    print(json.dumps(values), flush=True)


def main():
    home = Path(sys.argv[1])
    x, _ = zoo.shipped("MLP").load_test()
    np.save(home / "rows.npy", x[:ROWS])
    needles = row_needles(x[:ROWS])
    with TwoSites(home) as sites:
        run(sites, "encrypted", job(home / "rows.npy", True), needles)
        run(sites, "plain", job(home / "rows.npy", False), needles)


if __name__ == "__main__":
    main()
