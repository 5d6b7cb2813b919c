"""Run by test_fate_modes in FATE's environment: jobs in every mode on one server, each result printed as a line of JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import yaml

from he_nn.fate2.demo import GUEST, HOST
from he_nn.fate2.flow import FINISHED
from he_nn.fate2.standalone import Standalone
from he_nn.translate import Job, read_job, to_dag
from tests.he_nn.fate_checks import ended, example, say, workers

EXAMPLES = Path(__file__).resolve().parents[2] / "dsl_examples"
META = {"delimiter": ",", "dtype": "float32", "label_name": "y", "label_type": "int64", "match_id_name": "id"}
CUSTOM = {"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [40, 40]}


def result(check, flow, job_id, started, tables=(), summaries=(), evaluations=()):
    """Waits for a job and says what it came to."""
    status = flow.follow(job_id, lambda task: None)
    values = {"status": status, "failures": flow.failures(job_id), "seconds": time.monotonic() - started, "job_id": job_id}
    if status == "success":
        values["tables"] = {task: flow.output_table(job_id, *GUEST, task) for task in tables}
        values["metrics"] = {task: flow.metrics(job_id, *GUEST, task) for task in [*summaries, *evaluations]}
        values["host_metrics"] = {task: flow.metrics(job_id, *HOST, task) for task in summaries}
    say(check, **values)


def upload(flow, home, names):
    """FATE's tables; the jobs run side by side."""
    started = time.monotonic()
    jobs = [flow.upload(str(home / f"{name}.csv"), name, "experiment", META) for name in names]
    for job_id in jobs:
        assert flow.follow(job_id, lambda task: None) == "success", flow.failures(job_id)
    say("upload", seconds=time.monotonic() - started)


def credit(flow, home):
    """The conf and dsl of FATE 1.x, translated: load, eval, inference under custom_enc_param.json from beside the dsl file, Evaluation."""
    started = time.monotonic()
    files = [home / f"he_nn_credit_{part}.json" for part in ("conf", "dsl")]
    for path in files:
        path.write_text((EXAMPLES / path.name).read_text())
    (home / "custom_enc_param.json").write_text(json.dumps(CUSTOM))
    conf = json.loads(files[0].read_text())
    conf["component_parameters"]["common"]["he_nn_inference_0"]["is_custom_enc_param"] = True
    files[0].write_text(json.dumps(conf))
    job = read_job(*map(str, files))
    he_tasks = [f"he_nn_{name}_0" for name in ("load", "eval", "inference")]
    job_id = flow.submit(to_dag(job))
    result("credit", flow, job_id, started, ["he_nn_inference_0"], he_tasks, ["evaluation_0"])
    board(flow, job_id, "he_nn_inference_0")


def student(flow):
    """A regression network of the host's, by the conf and dsl of FATE 1.x."""
    started = time.monotonic()
    job_id = flow.submit(to_dag(read_job(*(str(EXAMPLES / f"he_nn_student_{part}.json") for part in ("conf", "dsl")))))
    result("student", flow, job_id, started, ["he_nn_inference_0"], ["he_nn_inference_0"], ["evaluation_0"])


def board(flow, job_id, task):
    """What FATE-Board asks FATE Flow about a task, besides the metrics themselves."""
    which = {"job_id": job_id, "role": GUEST[0], "party_id": GUEST[1], "task_name": task}
    say(
        "board",
        keys=flow._get("output/metric/key/query", **which)["data"],
        display=flow._get("output/data/display", **which)["output_data"],
        log=[line["content"] for line in flow._get("log/query", log_type="task_info", **which)["data"]],
    )


def vehicle(flow):
    """Load, inference and Evaluation by the pipeline API."""
    from fate_client.pipeline import FateFlowPipeline
    from fate_client.pipeline.components.fate import Evaluation
    from fate_client.pipeline.conf.env_config import FlowConfig
    from fate_client.pipeline.interface import DataWarehouseChannel

    from he_nn.fate2.pipeline import HeNNInference, HeNNLoad

    started = time.monotonic()
    FlowConfig.IP, FlowConfig.PORT = flow.address.split(":")[0], int(flow.address.split(":")[1])
    pipeline = FateFlowPipeline().set_parties(guest=GUEST[1], host=HOST[1])
    load = HeNNLoad("he_nn_load_0", model_type="Vehicle", server_url="", is_init=False)
    infer = HeNNInference(
        "he_nn_inference_0",
        model_type="Vehicle",
        server_url="",
        is_encryption=True,
        encryption_parameters="N12_L4",
        input_data=DataWarehouseChannel(name="vehicle_scale_homo_guest", namespace="experiment", parties={"guest": GUEST[1]}),
        input_model=load.outputs["output_model"],
    )
    evaluation = Evaluation(
        "evaluation_0", runtime_parties={"guest": GUEST[1]}, default_eval_setting="multi", input_datas=[infer.outputs["output_data"]]
    )
    pipeline.add_tasks([load, infer, evaluation])
    pipeline.compile()
    # fate_client prints its progress by terminal codes; standard output is for the results.
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        pipeline.fit()
    finally:
        sys.stdout = stdout
    job_id = pipeline.model_info.job_id
    result("vehicle", flow, job_id, started, ["he_nn_inference_0"], ["he_nn_inference_0"], ["evaluation_0"])


def services(flow, home, server, client):
    """A task for each way to use the two services, all in one job; they need no host."""
    started = time.monotonic()
    table = {"data_warehouse": {"name": "vehicle_scale_homo_guest", "namespace": "experiment", "parties": [_party(GUEST)]}}
    common = {"model_type": "Vehicle", "server_url": server, "encryption_parameters": "N12_L4"}
    file = {"file_inference": str(home / "vehicle.npy"), "num_inference": 50}
    custom = {"encryption_parameters": json.dumps(CUSTOM), "is_custom_enc_param": True}
    ways = {
        "server_encrypted_table": ({**common, "is_encryption": True}, table),
        "server_plain_file": ({**common, **file}, None),
        "client_encrypted_file": ({**common, **file, **custom, "is_encryption": True, "client": True, "client_url": client}, None),
    }
    load = {"component_ref": "he-nn-load", "parameters": {"model_type": "Vehicle", "server_url": server, "is_init": False}}
    tasks = {"load": load}
    for name, (parameters, data) in ways.items():
        tasks[name] = {"component_ref": "he-nn-inference", "parameters": parameters}
        if data is not None:
            model = {"task_output_artifact": _model("load")}
            tasks[name]["inputs"] = {"data": {"input_data": data}, "model": {"input_model": model}}
    for task in tasks.values():
        task["parties"] = [_party(GUEST)]
    conf = {"initiator_party_id": GUEST[1], "scheduler_party_id": GUEST[1]}
    dag = {"parties": [_party(GUEST)], "stage": "default", "conf": conf, "tasks": tasks}
    job_id = flow.submit(yaml.safe_load(yaml.safe_dump({"schema_version": "2.2.0", "kind": "fate", "dag": dag})))
    status = flow.follow(job_id, lambda task: None)
    values = {"status": status, "failures": flow.failures(job_id), "seconds": time.monotonic() - started}
    if status == "success":
        values["tables"] = {name: flow.output_table(job_id, *GUEST, name) for name in ways}
        values["metrics"] = {name: flow.metrics(job_id, *GUEST, name) for name in tasks}
    say("services", **values)


def examples(flow, home, server, client):
    """The examples as they stand that no other check submits, but for the services' addresses and their network."""
    served = {"model_type": "Vehicle", "server_url": server, "client_url": client, "file_inference": str(home / "vehicle.npy")}
    ways = {"model_client_inference": served, "model_service_inference": served}
    for name in ("model_load", "model_eval", "model_inference", "vehicle", *ways):
        started = time.monotonic()
        job = read_job(*(str(EXAMPLES / f"he_nn_{name}_{part}.json") for part in ("conf", "dsl")))
        conf = json.loads(json.dumps(job.conf))
        tasks = {task: values for task, values in conf["component_parameters"]["common"].items() if task.startswith("he_nn_")}
        for values in tasks.values():
            values.update({key: value for key, value in ways.get(name, {}).items() if key in values})
        job_id = flow.submit(to_dag(Job(conf, job.dsl, job.folder)))
        result(f"example {name}", flow, job_id, started, [task for task in tasks if "inference" in task], tasks)


def killed(flow, home, party):
    """A party's process of an evaluation is killed: the job ends, tells so, and leaves nothing running."""
    job, _ = example("model_eval", model_type="MLP", batch_size=512)
    job_id = flow.submit(to_dag(Job(job.conf, job.dsl, job.folder)))
    while len(workers_of(home, party)) < 1:
        assert flow.job_status(job_id) not in FINISHED
        time.sleep(0.1)
    started = time.monotonic()
    for pid in workers_of(home, party):
        os.kill(pid, signal.SIGKILL)
    status = flow.follow(job_id, lambda task: None, timeout_s=90)
    seconds = ended(home, started)
    states = {task["role"]: task["status"] for task in flow.tasks(job_id)}
    say(f"killed {party[0]}", status=status, states=states, failures=flow.failures(job_id), workers=workers(home), seconds=seconds)


def workers_of(home, party):
    """Processes that run a component for a party: those whose command names the configuration of one of its tasks."""
    from he_nn.fate2.standalone import processes_of

    found = []
    for process in processes_of(home):
        try:
            command = process.cmdline()
        except Exception:  # noqa: BLE001 - it has ended
            continue
        if "component" in command and "execute" in command and any(f"/{party[0]}/{party[1]}/" in part for part in command):
            found.append(process.pid)
    return found


def _party(party):
    return {"role": party[0], "party_id": [party[1]]}


def _model(task):
    return {"producer_task": task, "output_artifact_key": "output_model", "parties": [_party(GUEST)]}


def main():
    home, server, client = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    np.save(home / "vehicle.npy", np.loadtxt(home / "vehicle_scale_homo_guest.csv", delimiter=",", skiprows=1)[:60, 2:].astype(np.float32))
    with Standalone(home, {"HE_NN_HOME": str(home)}) as flow:
        upload(flow, home, ["default_credit_homo_guest", "vehicle_scale_homo_guest", "student_homo_guest", "digits_test"])
        credit(flow, home)
        student(flow)
        vehicle(flow)
        services(flow, home, server, client)
        if sys.argv[4:] == ["examples"]:
            examples(flow, home, server, client)
        for party in (HOST, GUEST):
            killed(flow, home, party)


if __name__ == "__main__":
    main()
