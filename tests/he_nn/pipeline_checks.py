"""Run by test_pipeline in FATE's environment: what the pipeline API makes of the components, as JSON."""

from __future__ import annotations

import json

import yaml
from fate_client.pipeline import FateFlowPipeline
from fate_client.pipeline.components.fate import Evaluation
from fate_client.pipeline.interface import DataWarehouseChannel

from he_backend.errors import ParameterError
from he_nn.fate2.pipeline import HeNNEval, HeNNInference, HeNNLoad


def compiled():
    pipeline = FateFlowPipeline().set_parties(guest="9999", host="10000")
    load = HeNNLoad("he_nn_load_0", model_type="MLP", server_url="")
    evaluation = HeNNEval(
        "he_nn_eval_0", model_type="MLP", server_url="", batch_size=64, is_encryption=True, input_model=load.outputs["output_model"]
    )
    infer = HeNNInference(
        "he_nn_inference_0",
        model_type="MLP",
        server_url="",
        is_encryption=True,
        input_data=DataWarehouseChannel(name="digits_test", namespace="experiment", parties={"guest": "9999"}),
        input_model=evaluation.outputs["output_model"],
    )
    infer.hosts[0].task_parameters(encryption_parameters="N11_L1")
    last = Evaluation("evaluation_0", runtime_parties={"guest": "9999"}, input_datas=[infer.outputs["output_data"]])
    pipeline.add_tasks([load, evaluation, infer, last])
    pipeline.compile()
    return yaml.safe_load(pipeline.get_dag())["dag"]


def refused(make):
    try:
        make()
    except ParameterError as error:
        return str(error)
    return ""


def main():
    load = HeNNLoad("load", model_type="MLP", server_url="")
    print(
        json.dumps(
            {
                "dag": compiled(),
                "unknown": refused(lambda: HeNNLoad("a", colour=1)),
                "wrong": refused(lambda: HeNNEval("b", batch_size=513)),
                "party": refused(lambda: load.hosts[0].task_parameters(is_init="yes")),
            }
        )
    )


if __name__ == "__main__":
    main()
