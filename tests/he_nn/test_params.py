"""Parameters of the three components: the specified defaults, and a refusal for each field that names it."""

from __future__ import annotations

import dataclasses

import pytest

from he_backend.errors import ParameterError
from he_nn.params import EvalParams, InferenceParams, LoadParams

DEFAULTS = {
    LoadParams: {"model_type": "CNN", "server_url": "127.0.0.1:12993", "is_init": True, "model_id": ""},
    EvalParams: {
        "model_id": "latest",
        "model_type": "CNN",
        "server_url": "127.0.0.1:12993",
        "start_batch": 0,
        "batch_size": 1,
        "is_encryption": False,
        "encryption_parameters": "N13_L8",
        "is_custom_enc_param": False,
    },
    InferenceParams: {
        "model_id": "latest",
        "model_type": "CNN",
        "server_url": "127.0.0.1:12993",
        "num_inference": 1,
        "file_inference": "./inference_data.npy",
        "is_encryption": False,
        "encryption_parameters": "N13_L8",
        "is_custom_enc_param": False,
        "client": False,
        "client_url": "127.0.0.1:12995",
    },
}
CUSTOM = '{"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [40, 40]}'
CASES = [(cls, name) for cls, values in DEFAULTS.items() for name in values]
WRONG = {
    "model_type": ["", "a b", "all", "x" * 33, "../etc"],
    "server_url": ["127.0.0.1", "host:99999", "ftp://host:1", "host:port", "a b:80"],
    "client_url": ["", "127.0.0.1", "host:0"],
    "model_id": ["a b", "x" * 65, "../etc"],
    "start_batch": [-1],
    "batch_size": [0, 513, -5],
    "num_inference": [0, -1],
    "file_inference": ["", "rows.csv", "rows.npy.gz"],
    "encryption_parameters": ["N13_L9", "", "n13_l8", "{}"],
}
WRONG_CASES = [(cls, name, value) for cls, name in CASES for value in WRONG.get(name, []) if not (cls is LoadParams and name == "model_id")]


@pytest.mark.parametrize("cls", DEFAULTS)
def test_names_and_defaults_are_those_specified(cls):
    assert dataclasses.asdict(cls.of({})) == DEFAULTS[cls]


@pytest.mark.parametrize(("cls", "name"), CASES)
@pytest.mark.parametrize("value", [None, 1.5, [], {}, b"x", float("nan")], ids=repr)
def test_another_type_is_refused_by_name(cls, name, value):
    with pytest.raises(ParameterError, match=rf"{cls.component}.*\n.*\b{name}: .*allowed: ") as refusal:
        cls.of({name: value})
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize(("cls", "name"), [case for case in CASES if isinstance(DEFAULTS[case[0]][case[1]], int)])
def test_truth_and_numbers_do_not_stand_for_each_other(cls, name):
    other = 1 if isinstance(DEFAULTS[cls][name], bool) else True

    with pytest.raises(ParameterError, match=name):
        cls.of({name: other})


@pytest.mark.parametrize(("cls", "name", "value"), WRONG_CASES)
def test_a_value_outside_what_is_allowed_is_refused_by_name(cls, name, value):
    with pytest.raises(ParameterError, match=rf"\n  {name}: .*allowed: ") as refusal:
        cls.of({name: value})
    assert str(value)[:50] in str(refusal.value)


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (LoadParams, {"server_url": ""}),
        (LoadParams, {"is_init": False, "model_id": "320cecMLP"}),
        (LoadParams, {"is_init": False, "model_id": ""}),
        (LoadParams, {"model_type": "my-own_1", "server_url": "http://he.example.org:80/"}),
        (EvalParams, {"server_url": "[::1]:12993", "batch_size": 512, "start_batch": 3}),
        (EvalParams, {"encryption_parameters": CUSTOM, "is_custom_enc_param": True}),
        (InferenceParams, {"file_inference": "/data/rows.npy", "num_inference": 100_000}),
        (InferenceParams, {"client": True, "client_url": "client.example.org:12995"}),
    ],
)
def test_what_is_allowed_passes(cls, values):
    params = cls.of(values)

    assert {name: getattr(params, name) for name in values} == values


def test_a_new_model_cannot_have_an_id():
    with pytest.raises(ParameterError, match=r"model_id: 'latest' with is_init true"):
        LoadParams.of({"is_init": True, "model_id": "latest"})


def test_the_client_needs_a_server():
    with pytest.raises(ParameterError, match="server_url"):
        InferenceParams.of({"client": True, "server_url": ""})


def test_custom_parameters_as_text_must_be_json():
    with pytest.raises(ParameterError, match="encryption_parameters: .* not JSON"):
        EvalParams.of({"encryption_parameters": "{no", "is_custom_enc_param": True})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "poly_modulus_degree must be an integer"),
        (CUSTOM.replace("4096", "100"), "poly_modulus_degree is 100; allowed: "),
        (CUSTOM.replace("4096", "2048"), "at poly_modulus_degree 2048 at most 54 bits are 128-bit secure"),
        (CUSTOM.replace("scheme_name", "scheme"), "unknown field scheme; allowed: "),
    ],
)
def test_custom_parameters_as_text_are_checked_like_the_file(text, problem):
    with pytest.raises(ParameterError) as refusal:
        InferenceParams.of({"encryption_parameters": text, "is_custom_enc_param": True})

    assert "\n  encryption_parameters: preset custom_enc_param.json: " in str(refusal.value) and problem in str(refusal.value)


def test_everything_wrong_is_told_at_once():
    with pytest.raises(ParameterError) as refusal:
        InferenceParams.of({"batch_size": 4, "num_inference": 0, "client": "yes", "encryption_parameters": "N1"})

    for name in ("batch_size: no such parameter", "num_inference", "client", "encryption_parameters"):
        assert f"\n  {name}" in str(refusal.value)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ParameterError) as refusal:
        EvalParams.of({"model_id": "x" * 10_000})
    assert len(str(refusal.value)) < 300
