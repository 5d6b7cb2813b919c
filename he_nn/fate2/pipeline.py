"""he-nn-load, he-nn-eval and he-nn-inference for FATE 2.2's pipeline API. Needs `fate_client` alone: no FATE where a job is submitted from.

    pipeline = FateFlowPipeline().set_parties(guest="9999", host="10000")
    load = HeNNLoad("he_nn_load_0", model_type="MLP", server_url="")
    infer = HeNNInference("he_nn_inference_0", model_type="MLP", server_url="", is_encryption=True,
                          input_data=DataWarehouseChannel("digits_test", "experiment", parties={"guest": "9999"}),
                          input_model=load.outputs["output_model"])
    pipeline.add_tasks([load, infer]).compile().fit()

Parameters and defaults are those of he_nn.params; wrong ones are refused here, before a job is submitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from fate_client.pipeline.components.component_base import Component
from fate_client.pipeline.conf.types import PlaceHolder

from he_nn.params import EvalParams, InferenceParams, LoadParams, Params

DESCRIPTIONS = Path(__file__).resolve().parent / "component_define"


class _HeNN(Component):
    """A component whose parameters are checked where it is made, and whose inputs are those given."""

    params: type[Params] = Params
    inputs: tuple[str, ...] = ()

    def __init__(self, _name: str, runtime_parties: Any = None, **values: Any) -> None:
        given = {name: values.pop(name, PlaceHolder()) for name in self.inputs}
        self.params.of(values)
        self._process_init_inputs({**given, **values})
        super().__init__()
        self._name = _name
        self.runtime_parties = runtime_parties
        for name, value in {**given, **values}.items():
            setattr(self, name, value)

    def task_parameters(self, **values: Any) -> None:
        """Other parameters, for one party where it is called as `component.hosts[0].task_parameters(...)`; checked as well."""
        self.params.of({**self.get_task_parameters(), **values})
        super().task_parameters(**values)


class HeNNLoad(_HeNN):
    """he-nn-load; output: output_model."""

    yaml_define_path = str(DESCRIPTIONS / "he-nn-load.yaml")
    params = LoadParams


class HeNNEval(_HeNN):
    """he-nn-eval; input: input_model; output: output_model."""

    yaml_define_path = str(DESCRIPTIONS / "he-nn-eval.yaml")
    params = EvalParams
    inputs = ("input_model",)


class HeNNInference(_HeNN):
    """he-nn-inference; inputs: input_data (a DataWarehouseChannel, or another component's output), input_model; outputs: output_data
    (predictions, the guest's alone), output_model."""

    yaml_define_path = str(DESCRIPTIONS / "he-nn-inference.yaml")
    params = InferenceParams
    inputs = ("input_data", "input_model")


COMPONENTS: Mapping[str, type[_HeNN]] = {cls.params.component: cls for cls in (HeNNLoad, HeNNEval, HeNNInference)}
