"""What he_nn_setup.sh leaves when it breaks off while it places files, and what it does with files that the user has edited."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.he_nn.fate_setup_project import TOP, files_of, installed, outside_of_fate, project

EXAMPLE = "examples/dsl/v2/he_nn/he_nn_credit_conf.json"
SHIM = "fate/python/federatedml/components/he_nn.py"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    outside_of_fate(monkeypatch)


@pytest.fixture
def base(tmp_path):
    return project(tmp_path / "fate")


def record_of(base):
    return base / "venv" / f"{base.name}.json"


class Breaking:
    """copyfile that writes half of the file with the given number, then raises."""

    def __init__(self, number, problem):
        self.left, self.problem, self.copyfile = number, problem, shutil.copyfile

    def __call__(self, source, path):
        self.left -= 1
        if self.left < 0:
            path.write_bytes(source.read_bytes()[:20])
            raise self.problem
        return self.copyfile(source, path)


@pytest.fixture(params=[KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["Ctrl-C", "a full disk"])
def problem(request):
    return request.param


def broken_off(base, monkeypatch, number, problem, *options):
    from fate_setup import placing

    with monkeypatch.context() as patch:
        patch.setattr(placing.shutil, "copyfile", Breaking(number, problem))
        assert installed(base, patch, *options) == (130 if isinstance(problem, KeyboardInterrupt) else 1)


@pytest.mark.parametrize("options", [(), ("--provider",)], ids=["default", "provider"])
@pytest.mark.parametrize("number", [0, 3, 10])
def test_an_installation_that_broke_off_is_taken_out(base, monkeypatch, number, problem, options):
    before = {*base.rglob("*")}

    broken_off(base, monkeypatch, number, problem, *options)
    assert not (base / SHIM).exists()
    assert installed(base, monkeypatch, "--uninstall") == 0

    assert {*base.rglob("*")} == before


@pytest.mark.parametrize("number", [0, 3, 10])
def test_an_installation_that_broke_off_is_repeated(base, monkeypatch, capsys, number, problem):
    before = {*base.rglob("*")}
    broken_off(base, monkeypatch, number, problem)
    said = capsys.readouterr().err
    assert "run it again to finish" in said if isinstance(problem, KeyboardInterrupt) else "(No space left on device)" in said
    assert "--uninstall" in said

    assert installed(base, monkeypatch) == 0

    other = project(base.parent / "other")
    assert installed(other, monkeypatch) == 0
    assert files_of(other).keys() == files_of(base).keys() and (base / EXAMPLE).read_bytes() == (other / EXAMPLE).read_bytes()
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    assert installed(base, monkeypatch, "--uninstall") == 0 and {*base.rglob("*")} == before


def test_an_upgrade_that_broke_off_leaves_whole_files_that_count_as_unedited(base, monkeypatch, problem):
    assert installed(base, monkeypatch) == 0
    older(base, EXAMPLE)

    for number in range(len(files_of(base))):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copyfile", Breaking(number, problem))
            if installed(base, patch) == 0:
                break
        assert (base / EXAMPLE).read_bytes() in (b"{}", (TOP / "dsl_examples" / "he_nn_credit_conf.json").read_bytes())
    else:
        raise AssertionError("it never came to its end")

    assert number > 20 and (base / EXAMPLE).read_bytes() == (TOP / "dsl_examples" / "he_nn_credit_conf.json").read_bytes()


def older(base, name):
    """Makes the deployment one of an earlier he-nn, whose example was another."""
    from fate_setup import placing

    (base / name).write_text("{}")
    record = json.loads(record_of(base).read_text())
    record["hashes"][str((base / name).resolve())] = [placing.digest(base / name)]
    record_of(base).write_text(json.dumps(record))


def test_the_board_of_a_fate_2_is_cleared_after_an_installation_that_broke_off(tmp_path, monkeypatch, problem):
    from fate_setup import __main__ as command
    from fate_setup import deployment, packages, placing

    python = deployment.Python(tmp_path / "python", (3, 11, 7), tmp_path, {"fate-flow": "2.2.0"})
    monkeypatch.setattr(command, "find", lambda *given: deployment.Deployment("2.2.0", python))
    monkeypatch.setattr(packages, "install", lambda *given: None)
    monkeypatch.setattr(packages, "added", lambda *given: [])
    monkeypatch.setattr(packages, "remove", lambda deployment, names: names)
    (tmp_path / "board" / "dag").mkdir(parents=True)

    with monkeypatch.context() as patch:
        patch.setattr(placing.shutil, "copyfile", Breaking(1, problem))
        assert command.main(["--board", str(tmp_path / "board")]) != 0
    assert len(files_of(tmp_path / "board")) == 1

    assert command.main(["--uninstall"]) == 0 and files_of(tmp_path / "board") == {}


DAMAGED = ["", '{"packages": ["he-nn"', "[]", '{"packages": "he-nn", "files": {}}', '{"packages": [], "files": []}', "\xff"]


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("options", [(), ("--uninstall",)])
def test_a_damaged_record_is_told_and_left(base, monkeypatch, capsys, text, options):
    record_of(base).write_text(text, encoding="latin-1")
    before = files_of(base)

    assert installed(base, monkeypatch, *options) == 1

    said = capsys.readouterr().err
    assert f"{record_of(base)}, where this script notes" in said and "move it away and install again" in said
    assert files_of(base) == before and record_of(base).read_text(encoding="latin-1") == text


def test_without_its_record_an_installation_is_found_again(base, monkeypatch):
    before = files_of(base)
    assert installed(base, monkeypatch) == 0
    record_of(base).unlink()

    assert installed(base, monkeypatch) == 0

    assert installed(base, monkeypatch, "--uninstall") == 0 and files_of(base) == before


def test_an_edited_example_is_kept_by_an_upgrade_and_by_uninstallation(base, monkeypatch, capsys):
    assert installed(base, monkeypatch) == 0
    kept, other = base / EXAMPLE, base / EXAMPLE.replace("credit", "student")
    kept.write_text('{"mine": 1}')
    older(base, EXAMPLE.replace("credit", "student"))

    assert installed(base, monkeypatch) == 0
    assert f"{kept}: it was edited" in capsys.readouterr().out and kept.read_text() == '{"mine": 1}'
    assert other.read_bytes() == (TOP / "dsl_examples" / other.name).read_bytes()

    assert installed(base, monkeypatch, "--uninstall") == 0
    assert f"{kept}: it was edited" in capsys.readouterr().out and kept.read_text() == '{"mine": 1}'
    assert [path.name for path in kept.parent.iterdir()] == [kept.name] and not record_of(base).exists()


def test_a_dry_run_says_what_would_be_kept(base, monkeypatch, capsys):
    from fate_setup import packages

    monkeypatch.setattr(packages, "plan", lambda *given: {})
    assert installed(base, monkeypatch) == 0
    (base / EXAMPLE).write_text('{"mine": 1}')

    assert installed(base, monkeypatch, "--dry-run") == 0

    said = capsys.readouterr().out
    assert f"would keep     {base / EXAMPLE}" in said and f"would replace  {base / SHIM}" in said


def test_an_edited_example_that_is_put_right_is_replaced_again(base, monkeypatch, capsys):
    assert installed(base, monkeypatch) == 0
    example = base / EXAMPLE
    placed = example.read_bytes()
    example.write_text('{"mine": 1}')
    assert installed(base, monkeypatch) == 0 and "it was edited" in capsys.readouterr().out

    example.write_bytes(placed)
    assert installed(base, monkeypatch) == 0 and "it was edited" not in capsys.readouterr().out
    assert installed(base, monkeypatch, "--uninstall") == 0 and not example.parent.exists()


def test_a_record_without_hashes_counts_every_file_as_it_was_placed(base, monkeypatch, capsys):
    before = files_of(base)
    assert installed(base, monkeypatch) == 0
    record = json.loads(record_of(base).read_text())
    record_of(base).write_text(json.dumps({"packages": record["packages"], "files": record["files"]}))
    (base / EXAMPLE).write_text('{"mine": 1}')

    assert installed(base, monkeypatch) == 0
    assert (base / EXAMPLE).read_bytes() == (TOP / "dsl_examples" / "he_nn_credit_conf.json").read_bytes()
    (base / EXAMPLE).write_text('{"mine": 1}')
    assert installed(base, monkeypatch) == 0 and (base / EXAMPLE).read_text() == '{"mine": 1}'

    (base / EXAMPLE).unlink()
    assert installed(base, monkeypatch, "--uninstall") == 0 and files_of(base) == before


def test_what_fate_imports_is_of_one_version_or_gone(base, monkeypatch):
    assert installed(base, monkeypatch) == 0
    placed = (base / SHIM).read_bytes()
    (base / SHIM).write_bytes(b"import he_nn  # he_nn_setup.sh\n")

    assert installed(base, monkeypatch) == 0 and (base / SHIM).read_bytes() == placed
    (base / SHIM).write_bytes(b"import he_nn  # he_nn_setup.sh\n")
    assert installed(base, monkeypatch, "--uninstall") == 0 and not (base / SHIM).exists()
