"""A FATE 1.x conf takes along what lies beside the dsl file."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from he_nn.cli import job
from he_nn.params import InferenceParams

CUSTOM = {"scheme_name": "HE_SEAL", "poly_modulus_degree": 4096, "security_level": 128, "coeff_modulus": [40, 40]}


def printed(folder, conf, dsl=None):
    (folder / "conf.json").write_text(json.dumps(conf))
    (folder / "dsl.json").write_text(json.dumps(dsl or {}))
    return CliRunner().invoke(job, ["conf", "-c", str(folder / "conf.json"), "-d", str(folder / "dsl.json")])


@pytest.mark.parametrize("place", ["common", "role"])
def test_the_files_beside_the_dsl_file_are_taken_along(tmp_path, place):
    (tmp_path / "custom_enc_param.json").write_text(json.dumps(CUSTOM))
    (tmp_path / "rows.npy").write_bytes(b"")
    own = {"infer_0": {"is_custom_enc_param": True, "file_inference": "rows.npy"}, "other_0": {"file_inference": "elsewhere.npy"}}
    conf = {"component_parameters": {"common": own} if place == "common" else {"role": {"guest": {"0": own}}}, "dsl_version": 2}

    result = json.loads(printed(tmp_path, conf).output)

    parts = result["component_parameters"]
    found = parts["common"] if place == "common" else parts["role"]["guest"]["0"]
    assert found["infer_0"]["file_inference"] == str(tmp_path / "rows.npy") and found["other_0"] == own["other_0"]
    assert json.loads(found["infer_0"]["encryption_parameters"]) == CUSTOM
    assert InferenceParams.of(found["infer_0"]).is_custom_enc_param and result["dsl_version"] == 2


def test_rows_under_their_default_name_are_taken_along(tmp_path):
    (tmp_path / "inference_data.npy").write_bytes(b"")
    table = {"input": {"data": {"data": ["reader_0.data"]}}}
    dsl = {
        "components": {
            "infer_0": {"module": "HeNNInference"},
            "infer_1": {"module": "HeNNInference", **table},
            "load_0": {"module": "HeNNLoad"},
        }
    }

    result = json.loads(printed(tmp_path, {"role": {"guest": [1]}}, dsl).output)

    assert result["component_parameters"] == {"common": {"infer_0": {"file_inference": str(tmp_path / "inference_data.npy")}}}


def test_a_missing_file_is_named(tmp_path):
    result = printed(tmp_path, {"component_parameters": {"common": {"infer_0": {"is_custom_enc_param": True}}}})

    assert result.exit_code == 1 and "there is no custom_enc_param.json beside the dsl file" in result.output
