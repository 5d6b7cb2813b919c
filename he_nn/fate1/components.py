"""The three components as FATE 1.x finds them: what `federatedml/components/he_nn.py` hands on.

FATE imports every file of its components folder just to list names, so nothing else is imported before a component is used.
"""

from __future__ import annotations

from typing import Any

from federatedml.components.components import ComponentMeta

he_nn_load_cpn_meta = ComponentMeta("HeNNLoad", "he-nn-load")
he_nn_eval_cpn_meta = ComponentMeta("HeNNEval", "he-nn-eval")
he_nn_inference_cpn_meta = ComponentMeta("HeNNInference", "he-nn-inference")


@he_nn_load_cpn_meta.bind_param
def he_nn_load_param() -> Any:
    """The parameter class of he-nn-load."""
    from he_nn.fate1.params import HeNNLoadParam

    return HeNNLoadParam


@he_nn_load_cpn_meta.bind_runner.on_guest
def he_nn_load_guest_runner() -> Any:
    """The data owner's half of he-nn-load."""
    from he_nn.fate1.guest import HeNNLoadGuest

    return HeNNLoadGuest


@he_nn_load_cpn_meta.bind_runner.on_host
def he_nn_load_host_runner() -> Any:
    """The model owner's half of he-nn-load."""
    from he_nn.fate1.host import HeNNLoadHost

    return HeNNLoadHost


@he_nn_eval_cpn_meta.bind_param
def he_nn_eval_param() -> Any:
    """The parameter class of he-nn-eval."""
    from he_nn.fate1.params import HeNNEvalParam

    return HeNNEvalParam


@he_nn_eval_cpn_meta.bind_runner.on_guest
def he_nn_eval_guest_runner() -> Any:
    """The data owner's half of he-nn-eval."""
    from he_nn.fate1.guest import HeNNEvalGuest

    return HeNNEvalGuest


@he_nn_eval_cpn_meta.bind_runner.on_host
def he_nn_eval_host_runner() -> Any:
    """The model owner's half of he-nn-eval."""
    from he_nn.fate1.host import HeNNEvalHost

    return HeNNEvalHost


@he_nn_inference_cpn_meta.bind_param
def he_nn_inference_param() -> Any:
    """The parameter class of he-nn-inference."""
    from he_nn.fate1.params import HeNNInferenceParam

    return HeNNInferenceParam


@he_nn_inference_cpn_meta.bind_runner.on_guest
def he_nn_inference_guest_runner() -> Any:
    """The data owner's half of he-nn-inference."""
    from he_nn.fate1.guest import HeNNInferenceGuest

    return HeNNInferenceGuest


@he_nn_inference_cpn_meta.bind_runner.on_host
def he_nn_inference_host_runner() -> Any:
    """The model owner's half of he-nn-inference."""
    from he_nn.fate1.host import HeNNInferenceHost

    return HeNNInferenceHost
