"""What a command writes is tried before its work, and told by the option that names it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from he_backend import zoo
from he_backend.cli import main
from he_backend.commands import targets
from he_backend.errors import InputError

MODEL = str(zoo.shipped("MLP", "digits").onnx_path)


def run(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def rows(tmp_path):
    np.save(tmp_path / "rows.npy", zoo.shipped("MLP", "digits").load_test()[0][:4])
    return tmp_path / "rows.npy"


COMMANDS = {
    "infer": (["infer", "no.onnx", "no.npy", "--out"], "o.npy"),
    "plan": (["plan", "no.onnx", "--png"], "x.png"),
    "eval": (["eval", "no.onnx", "--plain", "--png"], "e.png"),
    "convert": (["convert", "no.onnx", "--out"], "c.onnx"),
    "train": (["train", "MLP", "--data", "no", "--out"], "models"),
    "bench": (["bench", "--quick", "primitives", "--out"], "bench"),
    "calibrate": (["calibrate", "--out"], "costs.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_target_that_cannot_be_written_is_told_before_anything_else(command, tmp_path):
    (tmp_path / "file").write_text("")
    arguments, name = COMMANDS[command]

    done = run(*arguments, tmp_path / "file" / name)

    # The model, rows or data that come after do not exist either.
    assert done.exit_code == 1 and done.output.startswith(f"Error: {arguments[-1]}: ") and "cannot be written" in done.output


def test_a_table_is_not_trained_for_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("not a table")

    assert "--out: " in run("train-table", tmp_path / "t.csv", "--out", tmp_path / "t.csv" / "models").output


@pytest.mark.parametrize(
    "arguments",
    [["infer", "no.onnx", "no.npy", "--out", "nowhere/o.npy"], ["plan", "no.onnx", "--png", "nowhere/x.png"]],
)
def test_a_folder_that_is_missing_is_told(arguments):
    done = run(*arguments)

    assert done.exit_code == 1 and f"{arguments[-1]} cannot be written: No such file or directory" in done.output


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["infer", "no.onnx", "no.npy", "--out", "o.txt"], "--out: o.txt; allowed: a name that ends in .npy or .npz"),
        (["plan", "no.onnx", "--png", "x.abc"], "--png: x.abc; allowed: a name that ends in .png"),
        (["eval", "no.onnx", "--png", "x"], "--png: x; allowed: a name that ends in .png"),
    ],
)
def test_a_name_with_another_ending_is_refused(arguments, says):
    done = run(*arguments)

    assert done.exit_code == 1 and says in done.output


def test_predictions_are_where_it_says(tmp_path, rows):
    for name in ("o.npy", "o.npz"):
        done = run("infer", MODEL, rows, "--engine", "clear", "--out", tmp_path / name, "--json")
        assert done.exit_code == 0 and json.loads(done.stdout)["output"] == str(tmp_path / name), done.output
    assert np.array_equal(np.load(tmp_path / "o.npy"), next(iter(np.load(tmp_path / "o.npz").values())))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.npy", "o.npz", "rows.npy"]


def test_a_disk_that_is_full_at_the_end_is_told(tmp_path, rows, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)

    done = run("infer", MODEL, rows, "--engine", "clear", "--out", tmp_path / "o.npy")

    assert done.exit_code == 1 and done.output == f"Error: --out: {tmp_path / 'o.npy'} cannot be written: No space left on device\n"


def test_trying_leaves_nothing_and_changes_nothing(tmp_path):
    (tmp_path / "there").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")

    for name in ("there", "link", "nowhere", "new"):
        targets.check_file("--out", str(tmp_path / name))
    targets.check_folder("--out", str(tmp_path / "a" / "b"))
    targets.check_file("--out", "/dev/null")
    targets.check_file("--out", None)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "nowhere", "there"] and (tmp_path / "there").read_text() == "kept"


@pytest.mark.parametrize("name", ["a" * 300, "zero\0byte"])
def test_names_that_no_file_can_have(name, tmp_path):
    with pytest.raises(InputError, match="--out: .* cannot be written"):
        targets.check_file("--out", str(tmp_path / name))


def test_planning_for_very_many_rows_takes_no_longer_and_running_them_is_refused():
    done = run("plan", MODEL, "--rows", 10**12, "--json")
    refused = run("plan", MODEL, "--rows", 10**12, "--run")

    assert done.exit_code == 0 and json.loads(done.stdout)["rows"] == 10**12
    assert refused.exit_code == 1 and f"--run: {10**12} rows are {64 * 10**12} values; allowed: " in refused.output


def test_a_precision_out_of_range_is_told_at_the_door(rows):
    for bits in (-3, 60):
        assert run("infer", MODEL, rows, "--bits", bits).output == f"Error: bits: {bits}; allowed: 4 to 24 bits of precision\n"
