"""Tokens: hashed at rest, refused in every wrong form, in force from the next call on; and the gate that asks for them."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from he_backend.access import tokens as module
from he_backend.access.callers import ADMIN, LOCAL, MONITOR, Caller
from he_backend.access.gate import TokenGate
from he_backend.access.tokens import TokenFile
from he_backend.errors import EngineError, NotFoundError, NotPermitted, ParameterError, Unauthenticated

_ADD = """
import sys
from he_backend.access.tokens import TokenFile
from he_backend.errors import ParameterError
try:
    TokenFile(sys.argv[1]).add("alice")
except ParameterError:
    sys.exit(3)
"""


@pytest.fixture
def file(tmp_path):
    return TokenFile(tmp_path / "home" / "tokens.json")


def test_a_token_stands_for_its_name_role_and_models(file):
    token = file.add("alice", models=["MLP", "320cecCNN"])

    assert file.check(token) == Caller("alice", "user", ("MLP", "320cecCNN"))


def test_nothing_of_a_token_but_its_id_is_kept_and_the_file_is_the_owners_alone(file):
    token = file.add("alice")
    secret = token.split("_", 2)[2]

    assert len(secret) == 43 and secret not in file.path.read_text() and secret not in repr(file.list())
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    assert {path.name for path in file.path.parent.iterdir()} == {"tokens.json", ".tokens.json.lock"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in file.path.parent.iterdir())


def test_tokens_differ(file):
    assert len({file.add(f"name{n}") for n in range(5)}) == 5


def test_changes_at_the_same_time_are_all_kept(file, monkeypatch):
    kept, removed = [f"kept{n}" for n in range(4)], [f"removed{n}" for n in range(4)]
    tokens = {name: file.add(name) for name in removed}
    write = TokenFile._write

    def slow(self, tokens):
        time.sleep(0.02)
        write(self, tokens)

    monkeypatch.setattr(TokenFile, "_write", slow)
    with ThreadPoolExecutor(8) as pool:
        # A TokenFile each, as every command has.
        added = [pool.submit(TokenFile(file.path).add, name) for name in kept]
        gone = [pool.submit(TokenFile(file.path).remove, name) for name in removed]
        tokens.update({name: done.result() for name, done in zip(kept, added)})
        assert [done.result().name for done in gone] == removed

    assert sorted(one.name for one in file.list()) == kept
    assert [file.check(tokens[name]).name for name in kept] == kept
    for name in removed:
        with pytest.raises(Unauthenticated):
            file.check(tokens[name])


def test_a_name_is_given_once_when_two_ask_for_it(file):
    processes = [
        subprocess.Popen([sys.executable, "-c", _ADD, str(file.path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        for _ in range(4)
    ]

    assert sorted(process.wait(60) for process in processes) == [0, 3, 3, 3]
    assert [one.name for one in file.list()] == ["alice"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(EngineError, match="cannot be written"):
        TokenFile(tmp_path / "file" / "tokens.json").add("alice")


@pytest.mark.parametrize("wrong", ["", "x", "hnn__", "hnn_000000000000_" + "a" * 43, "é" * 50, "hnn_" + "a" * 5000])
def test_wrong_tokens_are_refused_without_a_word_of_them(file, wrong):
    file.add("alice")

    with pytest.raises(Unauthenticated, match="not one of this service's") as refused:
        file.check(wrong)
    assert not wrong or wrong not in str(refused.value).replace("a token", "")[:40]


def test_a_known_id_with_another_secret_is_refused_and_only_the_log_names_it(file, caplog):
    token = file.add("alice")
    other = token[:-1] + ("A" if token[-1] != "A" else "B")

    with caplog.at_level(logging.WARNING), pytest.raises(Unauthenticated) as refused:
        file.check(other)

    assert "alice" not in str(refused.value)
    assert "'alice'" in caplog.text and token.split("_", 2)[2][:20] not in caplog.text


def test_a_token_ends_on_its_day(file, monkeypatch):
    token = file.add("alice", days=2)
    assert file.check(token).name == "alice"

    later = time.time() + 2 * 86_400 + 1
    monkeypatch.setattr(module.time, "time", lambda: later)

    with pytest.raises(Unauthenticated, match="'alice' has expired"):
        file.check(token)


def test_a_removed_token_is_refused_by_who_has_the_file_open_already(file):
    running, token = TokenFile(file.path), file.add("alice")
    assert running.check(token).name == "alice"

    file.remove("alice")

    with pytest.raises(Unauthenticated):
        running.check(token)


def test_what_is_not_a_token_is_refused_when_it_is_made(file):
    file.add("alice")
    for arguments, says in (
        (("alice",), "is taken"),
        (("../x",), "name: '../x'; allowed"),
        (("bob", "king"), "role: 'king'; allowed: user, admin, monitor"),
        (("bob", "user", ["a b"]), "model: 'a b'"),
        (("bob", "user", (), -1), "days: -1; allowed"),
    ):
        with pytest.raises(ParameterError, match=says):
            file.add(*arguments)
    with pytest.raises(NotFoundError, match="it has alice"):
        file.remove("bob")
    assert [one.name for one in file.list()] == ["alice"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tokens": 5}', '{"tokens": [{}]}', '{"tokens": [{"token_id": "x"}]}', "\x00"])
def test_a_damaged_file_is_told_without_its_content(file, text):
    file.add("alice")
    file.path.write_text(text + " secret-of-another-file")

    with pytest.raises(ParameterError, match="is damaged") as told:
        file.list()
    assert "secret-of" not in str(told.value)


def test_a_file_that_others_can_read_is_refused(file):
    file.add("alice")
    os.chmod(file.path, 0o644)

    with pytest.raises(ParameterError, match="chmod 600"):
        file.list()


# the gate


def test_without_tokens_everybody_is_the_local_caller(file):
    assert TokenGate(file).admit("") == TokenGate(None).admit("Bearer x") == LOCAL


def test_with_the_first_token_the_gate_closes_and_stays_closed(file):
    gate = TokenGate(file)
    assert gate.admit("") == LOCAL

    token = file.add("alice")

    assert gate.admit(f"Bearer {token}").name == gate.admit(f"bearer  {token} ").name == "alice"
    for wrong in ("", token, f"Basic {token}", "Bearer ", "Bearer x"):
        with pytest.raises(Unauthenticated):
            gate.admit(wrong)
    file.remove("alice")
    with pytest.raises(Unauthenticated):
        gate.admit("")
    file.path.unlink()
    with pytest.raises(Unauthenticated):
        gate.admit("")


def test_a_file_that_cannot_be_read_lets_nobody_in(file, caplog):
    token = file.add("alice")
    gate = TokenGate(file)
    file.path.write_text("damaged")

    for given in ("", f"Bearer {token}"):
        with pytest.raises(EngineError, match="its log says why") as told:
            gate.admit(given)
        assert str(file.path) not in str(told.value)
    assert "is damaged" in caplog.text


def test_the_inner_token_is_another_in_each_process_and_needs_no_file(file):
    file.add("alice")
    gate = TokenGate(file)

    assert gate.admit(f"Bearer {gate.inner_token}").is_admin
    with pytest.raises(Unauthenticated):
        TokenGate(file).admit(f"Bearer {gate.inner_token}")


# permissions


def test_what_callers_may_do():
    every, some, watcher = Caller("a"), Caller("b", models=("mlp", "320cecCNN")), Caller("c", MONITOR)

    assert every.may_use("CNN", "x", "y") and not every.is_restricted
    assert some.may_use("MLP", "1MLP", "id") and some.may_use("CNN", "320cecCNN", "id") and not some.may_use("CNN", "111111CNN", "id")
    assert not some.may_use("") and not watcher.may_use("MLP")
    assert Caller("root", ADMIN).sees("a") and every.sees("a") and not every.sees("b")
    with pytest.raises(NotPermitted, match="'b' may not use this model"):
        some.need_use("CNN")
    with pytest.raises(NotPermitted, match="role admin; token 'a' has role user"):
        every.need_admin("registering")


def test_the_file_is_plain_json_with_hashes(file):
    file.add("alice", days=1)

    (one,) = json.loads(file.path.read_text())["tokens"]
    assert set(one) == {"token_id", "name", "role", "models", "created", "expires", "sha256"} and len(one["sha256"]) == 64
