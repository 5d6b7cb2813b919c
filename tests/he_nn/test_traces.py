"""What an inference leaves behind: no file while keys are alive, and no key or row in what the parties were told."""

from __future__ import annotations

import os
import sys

import pytest

from he_backend.errors import CapacityError
from tests.he_nn.test_roles import Site, digits, inference

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
WATCH = {"on": False, "written": []}


def _hook(event, arguments):
    by_name = event == "open" and not isinstance(arguments[0], int)  # a number is a file that was opened by name before
    if WATCH["on"] and by_name and isinstance(arguments[2], int) and arguments[2] & WRITING:
        WATCH["written"].append(str(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def audit():
    sys.addaudithook(_hook)  # cannot be taken away again, hence the switch


@pytest.fixture
def written():
    """The files opened for writing while the test ran, by any thread."""
    WATCH.update(on=True, written=[])
    yield WATCH["written"]
    WATCH["on"] = False


def ours(paths, registry):
    """Without the host's registry (a database that every reader opens for writing) and what the system keeps."""
    return [path for path in paths if not path.startswith((str(registry.root), "/proc/", "/sys/", "/dev/")) and "__pycache__" not in path]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def test_an_encrypted_inference_writes_no_file(site, written):
    rows, plain = digits(8)
    bound = site.load()

    done, _ = site.run("infer", inference(), rows, bound)

    assert done.predictions.result == plain.argmax(axis=1).tolist()
    assert ours(written, site.registry) == []


def test_one_that_fails_in_the_middle_leaves_none_either(site, written, monkeypatch):
    rows, _ = digits(8)
    bound = site.load()

    def fail(*given):
        raise CapacityError("round 1: these rows are too large for the modulus")

    monkeypatch.setattr("he_backend.client.rounds.sized", fail)
    with pytest.raises(CapacityError):
        site.run("infer", inference(), rows, bound)

    assert isinstance(site.host_error, CapacityError)
    assert ours(written, site.registry) == []


def test_the_watch_sees_a_file(written, tmp_path):
    (tmp_path / "key").write_bytes(b"secret")

    assert str(tmp_path / "key") in written
