"""`he-nn train` as a command."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from he_backend.commands.train import train

pytest.importorskip("torch")


def test_result_on_standard_output_and_files(tmp_path):
    answer = CliRunner().invoke(train, ["MLP", "--data", "digits", "--epochs", "2", "--out", str(tmp_path)])

    assert answer.exit_code == 0
    assert "653 held-out rows" in answer.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlp-digits.json", "mlp-digits.onnx", "mlp-digits.png"]


def test_json_is_one_object(tmp_path):
    answer = CliRunner().invoke(train, ["CNN", "--data", "digits", "--epochs", "1", "--out", str(tmp_path), "--json"])

    report = json.loads(answer.stdout)
    assert report["type"] == "CNN" and report["epochs"] == 1 and 0 < report["test_acc"] <= 1
    assert report["model"] == str(tmp_path / "cnn-digits.onnx")


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["GPT"], 1, "MLP, CNN"),
        (["MLP", "--data", "cifar"], 1, "digits, mnist, cifar10"),
        (["MLP", "--epochs", "0"], 2, "epochs"),
        (["MLP", "--activation", "tanh"], 2, "square"),
        ([], 2, "TYPE"),
    ],
)
def test_wrong_usage(tmp_path, arguments, status, message):
    answer = CliRunner().invoke(train, [*arguments, "--out", str(tmp_path)])

    assert answer.exit_code == status
    assert message in answer.output
    assert not list(tmp_path.iterdir())
