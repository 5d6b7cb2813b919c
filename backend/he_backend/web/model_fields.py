"""The fields of the API, the same at both services, and the words of its answers."""

from __future__ import annotations

import json
from typing import Any, Mapping

import numpy as np

from he_backend.ckks.params import PRESETS, Params, check_params, load_params
from he_backend.errors import InputError, ParameterError
from he_backend.web.fields import REQUIRED, Field
from he_backend.web.numbers import array_text
from he_backend.web.records import MOST_LISTED
from he_backend.web.tasks import Outcome

DEFAULT_PRESET = "N13_L8"
MOST_TEST_ROWS = 512
_PREFIX, _SUFFIX = "he_seal_ckks_config_", ".json"

TYPE = Field("model_type", str, REQUIRED, "MLP, CNN, … or any type that the server has")
NAME = Field("model_name", str, "latest", "a model's name or id, or latest")
_PRESETS = "N11_L1, N11_L1_small, N12_L4, N13_L8, or the text of a parameter file (JSON)"

LOAD = (
    TYPE,
    Field(
        "is_init", int, None, "1: register a new model of the type; 0: load a registered one. Without it: 0 if model_name is given", 0, 1
    ),
    Field("model_name", str, "", "a model's name or id, or latest; with is_init 0"),
)
GET_LIST = (Field("model_type", str, "", "all or empty: every type"),)
SHOW = (Field("model_type", str, "", "all or empty: any type"), NAME)
TEST = (
    TYPE,
    NAME,
    Field("is_encryption", bool, False, "encrypt the test rows, with a simulated client"),
    Field("enc_param", str, DEFAULT_PRESET, _PRESETS),
    Field("start_batch", int, 0, "first batch: rows from start_batch · batch_size on", 0),
    Field("batch_size", int, 1, "rows", 1, MOST_TEST_ROWS),
)
UPLOAD = (Field("file_name", str, "", "its name, ending in .npy; without it the name that the file came with"),)
INFERENCE = (
    TYPE,
    NAME,
    Field("inf_file_name", str, REQUIRED, "the name that /model/uploadfile answered with"),
    Field("is_encryption", bool, False, "yes or no"),
    Field("encryption_params", str, DEFAULT_PRESET, _PRESETS),
    Field("batch_size", int, None, "rows of the file, from the first; without it all", 1),
    Field("wait", bool, True, "false: answer at once with the inference_id, and let the inference run"),
)
GET_INFERENCE = (
    Field("inference_id", str, "", "one inference; without it all of them, newest first"),
    Field("limit", int, MOST_LISTED, "how many of them at most", 1, MOST_LISTED),
)
STOP = (Field("inference_id", str, REQUIRED, "the inference to stop"),)
DELETE_FILE = (Field("inf_file_name", str, REQUIRED, "the uploaded file to forget"),)


def parameters(text: str) -> Params:
    """The checked parameter set of a preset's name (also in its historical form) or of a parameter file's text.

    A path of a file on this machine is no name: raises ParameterError.
    """
    name = text.strip()
    if name.startswith("{"):
        try:
            literal = json.loads(name)
        except (ValueError, RecursionError):
            raise ParameterError("the encryption parameters look like a parameter file and are not JSON") from None
        return check_params(literal, "custom_enc_param")
    if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
        name = name[len(_PREFIX) : -len(_SUFFIX)]
    if name not in PRESETS:
        raise ParameterError(f"the encryption parameters are {text[:60]!r}; allowed: {_PRESETS}")
    return load_params(name)


def parameter_file(params: Params) -> str:
    """How records name a parameter set."""
    return f"{_PREFIX}{params.name}{_SUFFIX}"


def first_rows(array: np.ndarray, batch_size: int | None) -> np.ndarray:
    """The first batch_size rows; raises InputError when there are fewer."""
    if batch_size is not None and batch_size > len(array):
        raise InputError(f"batch_size: {batch_size}; the file has {len(array)} rows")
    return array[:batch_size]


def seconds_text(seconds: float) -> str:
    """Such as 0.114(s)."""
    return f"{seconds:.3f}(s)"


def inference_answer(inference_id: str, what: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The data that /model/inference answers with."""
    kept = ("inference_file", "inference_size", "is_encryption", "model_id", "model_name", "model_type", "encryption_parameter")
    return {
        "inference_id": inference_id,
        "loadModel": "success",
        **{name: what[name] for name in kept},
        "inference_result": array_text(outcome.outputs),
        "time_cost": seconds_text(outcome.seconds),
        "figures": dict(outcome.figures),
        "log": outcome.log,
        "state": "finished",
    }


def list_answer(name: str, values: Any) -> dict[str, Any]:
    """A list, with the state under both spellings that users have."""
    return {name: values, "query_state": "success", "quary_state": "success"}


def record_answer(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as /model/get_inference shows it: with the predictions while they are in memory."""
    shown = {name: value for name, value in record.items() if name != "outcome"}
    outcome = record.get("outcome")
    if outcome is not None:
        shown["inference_result"] = array_text(outcome.outputs)
        shown["time_cost"], shown["log"] = seconds_text(outcome.seconds), outcome.log
    return shown
