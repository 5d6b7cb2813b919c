"""Models come back as they were registered, names cannot point elsewhere, and nothing is half done."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from he_backend.errors import EngineError, InputError, ModelError, NotFoundError, ParameterError
from he_backend.server import model_files
from he_backend.server import registry as registry_module
from he_backend.server.registry import ModelRecord, Registry, canonical_type, default_root

BACKEND = Path(registry_module.__file__).parents[2]
X, Y = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0, 1, 2])


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models")


def files(registry: Registry) -> set[str]:
    return {path.name for path in registry.root.iterdir() if path.name != "registry.sqlite"}


def test_a_model_comes_back_as_it_was_registered(registry):
    meta = {"labels": ["a", "b"], "mean": 0.5}

    record = registry.add(b"onnx bytes", "MLP", test=(X, Y), test_acc=0.97, owner="party 10000", meta=meta)

    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", record.model_id)
    assert record.model_name == record.model_id[:6] + "MLP"
    assert (record.model_type, record.test_acc, record.owner, record.meta) == ("MLP", 0.97, "party 10000", meta)
    assert record.sha256 == hashlib.sha256(b"onnx bytes").hexdigest()
    assert timedelta(0) <= datetime.now(timezone.utc) - record.created < timedelta(minutes=1)
    assert record.path.read_bytes() == registry.model_bytes(record) == b"onnx bytes"
    x, y = registry.test_set(record)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    assert files(registry) == {f"{record.model_id}.onnx", f"{record.model_id}.npz"}
    assert Registry(registry.root).get(record.model_id) == record


def test_models_and_test_sets_come_from_paths_too(registry, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"from a file")
    np.savez(tmp_path / "rows.npz", x=X, y=Y)

    record = registry.add(str(tmp_path / "net.onnx"), "CNN", test=tmp_path / "rows.npz")

    assert registry.model_bytes(record) == b"from a file"
    assert registry.test_set(record)[0].shape == (3, 4)


@pytest.mark.parametrize(
    "written, stored",
    [
        ("mlp", "MLP"),
        ("CNN", "CNN"),
        ("Cryptonets", "CNN"),
        ("CRYPTONETS", "CNN"),
        ("alexnet", "AlexNet"),
        ("bert", "BERT"),
        ("rnn", "RNN"),
        ("my-Net_2", "my-Net_2"),
    ],
)
def test_types_in_any_spelling(registry, written, stored):
    record = registry.add(b"m", written)

    assert record.model_type == canonical_type(written) == stored
    assert registry.list(written.upper()) == [record]


@pytest.mark.parametrize("model_type", ["", "all", "ALL", "../MLP", "a/b", "a b", "-x", "_x", "x" * 33, "MLP\n", "é", None, 7])
def test_types_that_are_none(registry, model_type):
    with pytest.raises(ParameterError, match="model_type is .* allowed are MLP, CNN, AlexNet, RNN, BERT"):
        registry.add(b"m", model_type)
    assert files(registry) == set() and registry.list() == []


def three(registry: Registry) -> list[ModelRecord]:
    return [registry.add(b"1", "MLP"), registry.add(b"2", "CNN"), registry.add(b"3", "MLP")]


def test_list_by_type(registry):
    first, second, third = three(registry)

    assert registry.list() == registry.list("") == registry.list("all") == registry.list("All") == [first, second, third]
    assert registry.list("mlp") == [first, third]
    assert registry.list("cryptonets") == [second]
    assert registry.list("BERT") == []


def test_get_by_name_id_prefix_or_latest(registry):
    first, second, third = three(registry)

    for record in (first, second, third):
        assert registry.get(record.model_id) == record
        assert registry.get(record.model_id.upper()) == record
        assert registry.get(record.model_name) == record
        assert registry.get(record.model_name.lower(), record.model_type) == record
        assert registry.get(record.model_id[:13]) == record
    assert registry.get("latest") == registry.get() == registry.get("") == registry.get("latest", "all") == third
    assert registry.get("latest", "CNN") == registry.get("LATEST", "Cryptonets") == second


def test_get_what_is_not_there_names_what_is(registry):
    with pytest.raises(NotFoundError, match="no model yet; none is registered"):
        registry.get("latest")
    first, second, _ = three(registry)

    with pytest.raises(NotFoundError, match=f"no model 'zzz'; registered are {first.model_name}, {second.model_name}"):
        registry.get("zzz")
    with pytest.raises(NotFoundError, match=f"no model '{first.model_name.lower()}' of type CNN; registered are {first.model_name}"):
        registry.get(first.model_name, "CNN")
    with pytest.raises(NotFoundError, match="no model of type BERT yet"):
        registry.get("latest", "bert")
    with pytest.raises(NotFoundError, match="no model"):
        registry.get("../../etc/passwd")


def test_get_with_too_short_a_beginning_asks_for_more(registry, monkeypatch):
    ids = iter(["aaaaaa11-0000-4000-8000-000000000000", "aaaabb22-0000-4000-8000-000000000000"])
    monkeypatch.setattr(registry_module.uuid, "uuid4", lambda: next(ids))
    registry.add(b"1", "MLP")
    registry.add(b"2", "MLP")

    with pytest.raises(NotFoundError, match=r"several models start with 'aaaa'.*: aaaaaaMLP, aaaabbMLP"):
        registry.get("aaaa")
    assert registry.get("aaaab").model_name == "aaaabbMLP"


def test_names_that_collide_are_drawn_again(registry, monkeypatch):
    same, other = "aaaaaa11-0000-4000-8000-000000000000", "bbbbbb22-0000-4000-8000-000000000000"
    ids = iter([same, same.replace("11-", "33-"), other])
    monkeypatch.setattr(registry_module.uuid, "uuid4", lambda: next(ids))

    registry.add(b"1", "MLP")
    record = registry.add(b"2", "MLP")

    assert record.model_name == "bbbbbbMLP"
    assert files(registry) == {f"{same}.onnx", f"{other}.onnx"}


def test_nothing_is_left_when_names_run_out(registry, monkeypatch):
    monkeypatch.setattr(registry_module.uuid, "uuid4", lambda: "aaaaaa11-0000-4000-8000-000000000000")
    record = registry.add(b"1", "MLP")

    with pytest.raises(EngineError, match="no free name"):
        registry.add(b"2", "MLP")
    assert registry.list() == [record] and registry.model_bytes(record) == b"1"


def test_set_accuracy(registry):
    record = registry.add(b"1", "MLP", test_acc=0.5)

    changed = registry.set_accuracy(record.model_name, 0.75)

    assert changed.test_acc == 0.75 == registry.get(record.model_id).test_acc


def test_remove(registry):
    first, second, third = three(registry)

    assert registry.remove(first.model_id) == first
    assert registry.list() == [second, third] and not first.path.exists() and second.path.exists()
    with pytest.raises(NotFoundError):
        registry.remove(first.model_id)


@pytest.mark.parametrize("accuracy", [-0.1, 1.1, float("nan"), float("inf"), "high"])
def test_accuracies_that_are_none(registry, accuracy):
    record = registry.add(b"1", "MLP")

    with pytest.raises(ParameterError, match="allowed are 0 to 1"):
        registry.set_accuracy(record.model_id, accuracy)
    with pytest.raises(ParameterError, match="allowed are 0 to 1"):
        registry.add(b"1", "MLP", test_acc=accuracy)
    assert registry.list() == [record]


def npz(tmp_path, **arrays) -> bytes:
    np.savez(tmp_path / "t.npz", **arrays)
    return (tmp_path / "t.npz").read_bytes()


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp: b"",
        lambda tmp: b"not a zip",
        lambda tmp: b"PK\x03\x04 damaged",
        lambda tmp: npz(tmp, x=X),
        lambda tmp: npz(tmp, x=X, y=Y[:2]),
        lambda tmp: npz(tmp, x=X[:0], y=Y[:0]),
        lambda tmp: npz(tmp, x=np.float32(1), y=np.float32(1)),
        lambda tmp: npz(tmp, x=np.array([{}, {}, {}], dtype=object), y=Y),
        lambda tmp: npz(tmp, x=X, y=Y)[:-30],
        lambda tmp: (np.array([{}, {}, {}], dtype=object), Y),
        lambda tmp: tmp / "missing.npz",
    ],
)
def test_test_sets_that_are_none(registry, tmp_path, make):
    with pytest.raises(InputError, match="the test set"):
        registry.add(b"1", "MLP", test=make(tmp_path))
    assert files(registry) == set() and registry.list() == []


def test_models_that_cannot_be_read(registry, tmp_path):
    with pytest.raises(InputError, match="model file is empty"):
        registry.add(b"", "MLP")
    with pytest.raises(InputError, match=r"missing.onnx' cannot be read: No such file"):
        registry.add(tmp_path / "missing.onnx", "MLP")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        registry.add(tmp_path, "MLP")
    with pytest.raises(InputError, match="cannot be read: embedded null"):
        registry.add("a\0b", "MLP")


@pytest.mark.parametrize("values", [{"owner": "x" * 201}, {"owner": "a\nb"}, {"meta": {"a": object()}}, {"meta": {"a": "x" * 70_000}}])
def test_owner_and_meta_that_cannot_be_stored(registry, values):
    with pytest.raises(ParameterError, match=next(iter(values))):
        registry.add(b"1", "MLP", **values)
    assert files(registry) == set()


def test_a_changed_or_missing_file_is_noticed(registry):
    record = registry.add(b"1", "MLP")
    record.path.write_bytes(b"another")

    with pytest.raises(ModelError, match=f"model {record.model_name} has changed since it was registered"):
        registry.model_bytes(record)
    record.path.unlink()
    with pytest.raises(NotFoundError, match=r"\.onnx of model .* cannot be read"):
        registry.model_bytes(record)


def test_no_test_set(registry):
    record = registry.add(b"1", "MLP")

    assert record.test_path is None
    with pytest.raises(NotFoundError, match="without a test set"):
        registry.test_set(record)


def test_a_database_that_refuses_leaves_no_files(registry):
    with registry._engine.begin() as connection:
        connection.execute(sa.text("CREATE TRIGGER full BEFORE INSERT ON he_nn_models BEGIN SELECT RAISE(ROLLBACK, 'quota'); END"))

    with pytest.raises(EngineError):
        registry.add(b"1", "MLP", test=(X, Y))
    assert files(registry) == set()


def test_a_database_that_goes_away_is_a_clear_error(registry):
    record = registry.add(b"1", "MLP")
    with registry._engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE he_nn_models"))

    with pytest.raises(EngineError, match="database failed: no such table"):
        registry.get(record.model_id)
    with pytest.raises(EngineError, match="database failed"):
        registry.add(b"2", "MLP")
    assert files(registry) == {f"{record.model_id}.onnx"}


def test_a_file_that_cannot_be_put_in_place_leaves_no_record(registry, monkeypatch):
    blocked = "aaaaaa11-0000-4000-8000-000000000000"
    monkeypatch.setattr(registry_module.uuid, "uuid4", lambda: blocked)
    (registry.root / f"{blocked}.npz").mkdir()

    with pytest.raises(EngineError, match="cannot be written"):
        registry.add(b"1", "MLP", test=(X, Y))
    assert registry.list() == [] and files(registry) == {f"{blocked}.npz"}


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_disk_that_is_full_is_told_without_the_servers_path_which_the_log_has(registry, monkeypatch, caplog, fails):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_files.os, fails, full)

    with pytest.raises(EngineError, match="model folder cannot be written: No space left on device") as told:
        registry.add(b"1", "MLP", test=(X, Y))

    assert str(registry.root) not in str(told.value) and str(registry.root) in caplog.text


@pytest.mark.parametrize(
    "url, what",
    [
        ("nonsense", "write dialect://user:password@host/database"),
        ("nosuchdb://user:hunter2@host/db", "driver that is not installed"),
        ("sqlite:////nonexistent-folder/registry.sqlite", "cannot be opened"),
    ],
)
def test_databases_that_cannot_be_opened(tmp_path, url, what):
    with pytest.raises(ParameterError, match=what) as caught:
        Registry(tmp_path, url)
    assert "hunter2" not in str(caught.value)


def test_another_database_by_url(tmp_path):
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"

    record = Registry(tmp_path / "models", url).add(b"1", "MLP")

    assert Registry(tmp_path / "models", url).list() == [record]
    assert not (tmp_path / "models" / "registry.sqlite").exists()


def test_a_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(ParameterError, match="cannot be made"):
        Registry(tmp_path / "file" / "models")


def test_only_the_owner_can_read_models(registry):
    record = registry.add(b"1", "MLP")

    assert record.path.stat().st_mode & 0o077 == 0
    assert registry.root.stat().st_mode & 0o077 == 0


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("HE_NN_HOME", str(tmp_path / "h"))
    assert default_root() == tmp_path / "h" / "models"
    monkeypatch.delenv("HE_NN_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".he_nn" / "models"


def test_processes_share_a_registry(tmp_path):
    """Four processes make the same registry and fill it at the same time; none fails and nothing is lost."""
    program = (
        "import sys; from he_backend.server.registry import Registry\n"
        "registry = Registry(sys.argv[1])\n"
        "for k in range(8):\n"
        "    record = registry.add(f'{sys.argv[2]} {k}'.encode(), 'MLP')\n"
        "    registry.set_accuracy(record.model_id, k / 8)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(BACKEND)}
    root = tmp_path / "models"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(root), str(k)], env=environment, stderr=subprocess.PIPE) for k in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()

    registry = Registry(root)
    contents = {registry.model_bytes(record).decode(): record.test_acc for record in registry.list()}
    assert contents == {f"{who} {k}": k / 8 for who in range(4) for k in range(8)}
    assert len(files(registry)) == 32


def test_a_model_of_a_users_type_is_registered_again_with_its_test_set(registry):
    x, y = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    registry.add(b"older", "Fraud")
    first = registry.add(b"newer", "Fraud", test=(x, y), test_acc=0.5, owner="bank", meta={"rounds": 2})

    again = registry.add_again("fraud")

    assert (again.model_id != first.model_id, again.model_name) == (True, again.model_id[:6] + "Fraud")
    assert registry.model_bytes(again) == b"newer"
    assert np.array_equal(registry.test_set(again)[1], y)
    assert (again.test_acc, again.owner, again.meta) == (0.5, "bank", {"rounds": 2, "copy_of": first.model_id})
    assert registry.get("latest", "Fraud") == again


def test_a_type_that_is_not_registered_is_not_registered_again(registry):
    with pytest.raises(NotFoundError, match="no model of type Fraud is registered: he-nn model add FILE --type Fraud"):
        registry.add_again("Fraud")
    with pytest.raises(NotFoundError, match="not in the zoo; nor is one of that type registered"):
        registry.add_again("Fraud", "not in the zoo")


@pytest.mark.parametrize("model_type", ["all", "ALL", "", "a/b"])
def test_a_model_is_registered_again_by_its_type_alone(registry, model_type):
    registry.add(b"model", "Fraud")

    with pytest.raises(ParameterError, match="model_type is"):
        registry.add_again(model_type)
    assert len(registry.list()) == 1
