"""The fuzz run, short: every parser, a few thousand mutated inputs, and what it once found."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from he_backend.errors import HeError
from tests.fuzz import targets
from tests.fuzz.mutate import mutate

COUNT = 2000
DEEP = b"[" * 100_000
FOUND = [  # (parser, input that once ended in something else than a clear error)
    ("tensors", DEEP + b"\n"),
    ("tensors", b'{"a":' * 50_000 + b"\n"),
    ("plans", DEEP),
    ("answers", DEEP),
    ("answers", b'{"code": 1e999, "data": {}, "message": ""}'),
    ("answers", b'{"code": 200, "data": {"inference_result": "' + DEEP + b'"}, "message": ""}'),
    ("answers", b'{"code": 200, "data": {"inference_id": "a", "state": "b", "progress": "x"}, "message": ""}'),
    ("answers", b'{"code": 200, "data": {"model_id": 1, "model_name": 1, "model_type": 1, "test_acc": [1]}, "message": ""}'),
    ("presets", b"0" * 20_000),
    ("presets", DEEP),
    ("presets", b'{"coeff_modulus":' + b"[" * 15_000),
]


@pytest.fixture(autouse=True)
def silent(caplog):
    caplog.set_level("CRITICAL")


@pytest.mark.parametrize("make", targets.ALL, ids=lambda make: make.__name__)
def test_mutated_inputs_give_a_result_or_a_clear_error(make):
    target, dice, refused = make(), random.Random(f"{make.__name__} test"), 0
    count = max(10, round(COUNT * target.share))

    for _ in range(count):
        try:
            target.feed(mutate(dice.choice(target.seeds), target.seeds, dice))
        except HeError:
            refused += 1

    # Damage is noticed: but for those that answer errors themselves, and texts that may be anything.
    assert refused > count / 5 or make.__name__ in ("calls", "presets", "requests", "answers")


@pytest.mark.parametrize("name, data", FOUND, ids=[f"{name}-{position}" for position, (name, _) in enumerate(FOUND)])
def test_what_was_found_stays_mended(name, data):
    target = next(make for make in targets.ALL if make.__name__ == name)()

    try:
        target.feed(data)
    except HeError as refusal:
        assert str(refusal)


def test_a_finding_is_reported_with_its_input(tmp_path):
    program = (
        "import sys; from tests.fuzz import run, targets\n"
        "def feed(data):\n    if len(data) % 2: raise KeyError('x')\n"
        "def broken(): return targets.Target('broken', 1.0, [b'seed'], feed)\n"
        "targets.ALL = (broken,); sys.exit(run.main())"
    )
    options = ("--worker", "--target=broken", "--count=50", f"--findings={tmp_path}")

    done = subprocess.run([sys.executable, "-c", program, *options], cwd=targets.TOP, capture_output=True, text=True, timeout=120)

    result = json.loads(done.stdout)
    assert result["inputs"] == 50 and len(result["findings"]) == 1 and "KeyError" in result["findings"][0], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken-0-0"] and len((tmp_path / "broken-0-0").read_bytes()) % 2
