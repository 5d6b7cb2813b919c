"""FATE 1.x jobs as FATE 2.2 DAGs: the shipped examples, each rule, and everything unsupported at once."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from he_backend.errors import InputError, ParameterError
from he_nn.cli import job as job_command
from he_nn.translate import Job, read_job, to_dag

EXAMPLES = Path(__file__).resolve().parents[2] / "dsl_examples"
GUEST = [{"role": "guest", "party_id": ["9999"]}]
BOTH = [*GUEST, {"role": "host", "party_id": ["10000"]}]

CONF = {
    "dsl_version": 2,
    "initiator": {"role": "guest", "party_id": 9999},
    "role": {"guest": [9999], "host": [10000]},
    "job_parameters": {"common": {"job_type": "train", "task_cores": 2}},
    "component_parameters": {
        "common": {
            "load": {"model_type": "MLP", "server_url": ""},
            "infer": {"model_type": "MLP", "server_url": "", "is_encryption": True},
        },
        "role": {"guest": {"0": {"reader": {"table": {"name": "digits", "namespace": "experiment"}}}}},
    },
}
DSL = {
    "components": {
        "reader": {"module": "Reader", "output": {"data": ["data"]}},
        "load": {"module": "HeNNLoad", "output": {"model": ["model"]}},
        "infer": {
            "module": "HeNNInference",
            "input": {"data": {"data": ["reader.data"]}, "model": ["load.model"]},
            "output": {"data": ["data"], "model": ["model"]},
        },
    }
}
GOLDEN = {
    "schema_version": "2.2.0",
    "kind": "fate",
    "dag": {
        "parties": BOTH,
        "stage": "default",
        "conf": {"initiator_party_id": "9999", "scheduler_party_id": "9999", "cores": 2},
        "tasks": {
            "load": {"component_ref": "he-nn-load", "parameters": {"model_type": "MLP", "server_url": ""}, "parties": BOTH},
            "infer": {
                "component_ref": "he-nn-inference",
                "parameters": {"model_type": "MLP", "server_url": "", "is_encryption": True},
                "inputs": {
                    "data": {"input_data": {"data_warehouse": {"name": "digits", "namespace": "experiment", "parties": GUEST}}},
                    "model": {
                        "input_model": {
                            "task_output_artifact": {"producer_task": "load", "output_artifact_key": "output_model", "parties": BOTH}
                        }
                    },
                },
                "parties": BOTH,
            },
        },
    },
}


@pytest.fixture
def job(tmp_path):
    return Job(copy.deepcopy(CONF), copy.deepcopy(DSL), tmp_path)


def common(job):
    return job.conf["component_parameters"]["common"]


def special(job):
    return job.conf["component_parameters"]["role"]


def components(job):
    return job.dsl["components"]


def refusal(job):
    with pytest.raises(ParameterError, match="this job does not run on FATE 2.2") as error:
        to_dag(job)
    return str(error.value)


def test_a_job_becomes_this_dag(job):
    assert to_dag(job) == GOLDEN


def test_the_table_that_fate_1_wants_of_a_host_is_nobodys(job):
    special(job)["host"] = {"0": {"reader": {"table": {"name": "anything", "namespace": "experiment"}}}}

    assert to_dag(job) == GOLDEN


def test_rows_under_their_default_name_are_found_beside_the_dsl_file(job):
    (job.folder / "inference_data.npy").write_bytes(b"")
    del components(job)["infer"]["input"]["data"]

    found = to_dag(job)["dag"]["tasks"]["infer"]["parameters"]

    assert found["file_inference"] == str(job.folder / "inference_data.npy")


def test_translating_leaves_the_job_as_it_was(job):
    to_dag(job)
    to_dag(job)

    assert (job.conf, job.dsl) == (CONF, DSL)


@pytest.mark.parametrize("name", sorted(path.name[: -len("_conf.json")] for path in EXAMPLES.glob("*_conf.json")))
def test_every_shipped_example_translates(name):
    dag = to_dag(read_job(str(EXAMPLES / f"{name}_conf.json"), str(EXAMPLES / f"{name}_dsl.json")))["dag"]

    assert dag["parties"] == BOTH
    assert {task["component_ref"] for task in dag["tasks"].values()} <= {"he-nn-load", "he-nn-eval", "he-nn-inference", "evaluation"}


def test_the_all_in_one_example_chains_its_components():
    tasks = to_dag(read_job(str(EXAMPLES / "he_nn_all_in_one_conf.json"), str(EXAMPLES / "he_nn_all_in_one_dsl.json")))["dag"]["tasks"]

    def producer(task, kind, key):
        return tasks[task]["inputs"][kind][key]["task_output_artifact"]["producer_task"]

    assert list(tasks) == ["he_nn_load_0", "he_nn_eval_0", "he_nn_inference_0", "evaluation_0"]
    assert producer("he_nn_eval_0", "model", "input_model") == "he_nn_load_0"
    assert producer("he_nn_inference_0", "model", "input_model") == "he_nn_eval_0"
    assert producer("evaluation_0", "data", "input_datas") == "he_nn_inference_0"
    assert tasks["evaluation_0"]["parties"] == GUEST and tasks["evaluation_0"]["parameters"] == {"default_eval_setting": "multi"}


def test_data_transform_passes_its_input_on(job):
    components(job)["transform"] = {"module": "DataTransform", "input": {"data": {"data": ["reader.data"]}}, "output": {"data": ["data"]}}
    components(job)["infer"]["input"]["data"]["data"] = ["transform.data"]
    common(job)["transform"] = {"with_label": True, "output_format": "dense", "missing_fill": False}

    assert to_dag(job) == GOLDEN


def test_what_data_transform_would_change_is_refused(job):
    components(job)["transform"] = {"module": "DataIO", "input": {"data": {"data": ["reader.data"]}}}
    components(job)["infer"]["input"]["data"]["data"] = ["transform.data"]
    common(job)["transform"] = {"missing_fill": True, "missing_impute": [""]}

    text = refusal(job)

    assert "transform.missing_fill: FATE 2.x has no such step" in text and "transform.missing_impute" in text


@pytest.mark.parametrize(("key", "parties"), [("0", ["9999"]), ("1", ["9998"]), ("0|1", ["9999", "9998"]), ("all", ["9999", "9998"])])
def test_a_partys_own_parameters_go_to_that_party(job, key, parties):
    job.conf["role"]["guest"] = [9999, 9998]
    special(job)["guest"].setdefault(key, {}).update({"infer": {"num_inference": 3, "file_inference": "/rows.npy"}})

    party_tasks = to_dag(job)["dag"]["party_tasks"]

    own = {"infer": {"parameters": {"num_inference": 3, "file_inference": "/rows.npy"}}}
    assert party_tasks == {f"guest_{party}": {"parties": [{"role": "guest", "party_id": [party]}], "tasks": own} for party in parties}


def test_a_party_that_is_not_there_cannot_have_parameters(job):
    special(job)["host"] = {"3": {"infer": {"is_encryption": True}}}

    assert "component_parameters.role.host.3: there are 1 parties" in refusal(job)


def test_job_parameters_that_have_a_counterpart_are_kept(job):
    job.conf["job_parameters"]["common"].update(computing_partitions=4, auto_retries=1, timeout=60, backend=0, work_mode=0)

    conf = to_dag(job)["dag"]["conf"]

    assert (conf["computing_partitions"], conf["auto_retries"], conf["task"]) == (4, 1, {"timeout": 60})


def test_custom_parameters_beside_the_dsl_travel_with_the_job(job, tmp_path):
    text = json.dumps({"poly_modulus_degree": 4096, "coeff_modulus": [40, 40], "security_level": 128})
    common(job)["infer"]["is_custom_enc_param"] = True
    assert "there is no custom_enc_param.json beside the dsl file" in refusal(job)

    (tmp_path / "custom_enc_param.json").write_text(text)

    assert to_dag(job)["dag"]["tasks"]["infer"]["parameters"]["encryption_parameters"] == text


def test_a_rows_file_beside_the_dsl_is_found_from_anywhere(job, tmp_path):
    del components(job)["infer"]["input"]["data"]
    common(job)["infer"]["file_inference"] = "./rows.npy"
    assert to_dag(job)["dag"]["tasks"]["infer"]["parameters"]["file_inference"] == "./rows.npy"

    (tmp_path / "rows.npy").write_bytes(b"")

    assert to_dag(job)["dag"]["tasks"]["infer"]["parameters"]["file_inference"] == str(tmp_path / "rows.npy")


def test_embedded_mode_needs_a_host(job):
    del job.conf["role"]["host"]

    assert "server_url is '' (embedded mode), which needs a host party" in refusal(job)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda job: components(job).update(lr={"module": "HeteroLR"}), "lr: module 'HeteroLR' is not translated"),
        (lambda job: common(job)["infer"].update(encryption_parameters="N9"), "infer.encryption_parameters: 'N9'; allowed"),
        (lambda job: common(job)["infer"].update(colour=1), "infer.colour: no such parameter"),
        (lambda job: special(job)["guest"]["0"].update(infer={"num_inference": 0}), "infer.num_inference: 0; allowed"),
        (lambda job: common(job).update(ghost={}), "parameters for ghost, which is not among the dsl's components"),
        (lambda job: components(job)["infer"]["input"]["data"].update(data=["ghost.data"]), "its data comes from 'ghost.data'"),
        (lambda job: components(job)["infer"]["input"].update(model=["reader.model"]), "its model comes from 'reader.model'"),
        (lambda job: components(job)["infer"]["input"].update(model=["load.model", "load.model"]), "input.model takes a list of one"),
        (lambda job: components(job)["infer"]["input"].update(cache=["x"]), "input.cache has no counterpart"),
        (lambda job: components(job)["infer"]["input"]["data"].update(eval_data=["reader.data"]), "input.data.eval_data"),
        (lambda job: components(job)["load"].update(input={"data": {"data": ["reader.data"]}}), "he-nn-load takes no data input"),
        (lambda job: special(job)["guest"]["0"].pop("reader"), "reader: a table with name and namespace is missing"),
        (lambda job: special(job)["guest"]["0"].update(reader="rows"), "parameters of reader: a JSON object is expected, str came"),
        (lambda job: special(job).update(host={"0": {"infer": {"server_url": "a:1"}}}), "infer: one party goes by a service"),
        (lambda job: job.conf.update(dsl_version=1), "dsl_version is 1"),
        (lambda job: job.conf["job_parameters"]["common"].update(job_type="predict"), "job_type 'predict'"),
        (lambda job: job.conf["job_parameters"]["common"].update(magic=1), "job_parameters.common.magic"),
        (lambda job: job.conf["job_parameters"].update(role={"guest": {}}), "job_parameters.role has no counterpart"),
        (lambda job: job.conf["role"].pop("guest"), "role.guest is missing"),
        (lambda job: job.conf["role"].update(guest=[]), "role.guest: allowed are"),
        (lambda job: job.conf.update(role=[1]), "conf: role: a JSON object is expected, list came"),
        (lambda job: job.dsl.update(components=None), "dsl: components: a JSON object is expected"),
        (lambda job: job.dsl.update(components={}), "parameters for load"),
        (lambda job: components(job).update(evaluation={"module": "Evaluation"}), "Evaluation needs the data output"),
    ],
)
def test_what_cannot_be_translated_is_told(job, change, told):
    change(job)

    assert told in refusal(job)


def test_everything_is_told_at_once(job):
    components(job)["lr"] = {"module": "HeteroLR"}
    common(job)["infer"]["num_inference"] = "three"
    job.conf["job_parameters"]["common"]["magic"] = 1

    text = refusal(job)

    assert all(part in text for part in ("HeteroLR", "infer.num_inference: 'three'", "magic"))


def test_a_circle_of_transforms_ends(job):
    components(job)["one"] = {"module": "DataTransform", "input": {"data": {"data": ["two.data"]}}}
    components(job)["two"] = {"module": "DataTransform", "input": {"data": {"data": ["one.data"]}}}
    components(job)["infer"]["input"]["data"]["data"] = ["one.data"]

    assert "is not there (or is itself)" in refusal(job)


@pytest.mark.parametrize(("content", "reason"), [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "holds list")])
def test_files_that_are_no_job_are_refused(tmp_path, content, reason):
    path = tmp_path / "conf.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(InputError, match=reason):
        read_job(str(path), str(EXAMPLES / "he_nn_model_load_dsl.json"))


# the command


def files(tmp_path, conf):
    (tmp_path / "conf.json").write_text(json.dumps(conf))
    (tmp_path / "dsl.json").write_text(json.dumps(DSL))
    return ["-c", str(tmp_path / "conf.json"), "-d", str(tmp_path / "dsl.json")]


def test_the_command_prints_the_dag(tmp_path):
    result = CliRunner().invoke(job_command, ["dag", *files(tmp_path, CONF)])

    assert result.exit_code == 0 and json.loads(result.output) == GOLDEN


def test_the_command_fails_with_everything_that_is_wrong(tmp_path):
    result = CliRunner().invoke(job_command, ["dag", *files(tmp_path, {**CONF, "dsl_version": 1, "role": {"host": [1]}})])

    assert result.exit_code == 1 and "dsl_version is 1" in result.output and "role.guest is missing" in result.output


def test_submitting_to_nobody_says_who_was_asked(tmp_path):
    result = CliRunner().invoke(job_command, ["submit", *files(tmp_path, CONF), "--address", "127.0.0.1:1"])

    assert result.exit_code == 1 and "FATE Flow at 127.0.0.1:1 cannot be reached" in result.output


def test_wrong_usage_has_its_own_status():
    assert CliRunner().invoke(job_command, ["dag"]).exit_code == 2
