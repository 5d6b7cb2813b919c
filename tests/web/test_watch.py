"""Inferences are their caller's own, end in time, and leave others their turn."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future

import numpy as np
import pytest

from he_backend.access.callers import Caller
from he_backend.errors import Cancelled, NotFoundError
from he_backend.web.answers import QueueFull
from he_backend.web.callers import calling
from he_backend.web.metrics import Metrics
from he_backend.web.records import MOST_LISTED, Records
from he_backend.web.tasks import Outcome, Tasks
from he_backend.web.watch import TaskWatch, seen, stop_seen

WHAT = {"model_name": "1MLP", "inference_size": 2}
ALICE, BOB, ROOT = Caller("alice"), Caller("bob"), Caller("root", "admin")


@pytest.fixture
def tasks(tmp_path):
    made = Tasks(Records(f"sqlite:///{tmp_path}/tasks.sqlite", "test"), workers=2, waiting=8)
    yield made
    made.close()


@pytest.fixture
def metrics():
    return Metrics("test", lambda: {"pending": 0, "most_pending": 1})


def outcome(_=None):
    return Outcome(np.zeros((2, 3)), 0.1, {}, "")


def started(watch, tasks, caller, work=outcome):
    with calling(caller):
        return watch.start(tasks, WHAT, work)


def test_one_caller_cannot_take_every_turn(tasks, metrics):
    watch, go = TaskWatch(metrics, per_caller=2), threading.Event()

    def slow(running):
        go.wait(20)
        return outcome()

    mine = [started(watch, tasks, ALICE, slow), started(watch, tasks, ALICE, slow)]
    with pytest.raises(QueueFull, match="'alice' has 2 at work or waiting"):
        started(watch, tasks, ALICE)
    with calling(ALICE), pytest.raises(QueueFull):
        watch.run(tasks, dict)
    with calling(BOB):
        other = watch.run(tasks, dict)
    go.set()

    assert [one.result(20).seconds for _, one in mine] == [0.1, 0.1] and other.result(20) == {}
    assert started(watch, tasks, ALICE)[1].result(20)


def test_a_turn_that_the_queue_refused_is_given_back(metrics):
    class Full:
        def run(self, work):
            raise QueueFull("full")

        def start(self, what, work):
            raise QueueFull("full")

    class Free:
        def run(self, work):
            future = Future()
            future.set_result(work())
            return future

    watch = TaskWatch(metrics, per_caller=1)
    for _ in range(3):
        with pytest.raises(QueueFull, match="^full$"):
            started(watch, Full(), ALICE)
        with calling(ALICE), pytest.raises(QueueFull, match="^full$"):
            watch.run(Full(), dict)
    with calling(ALICE):
        assert watch.run(Free(), dict).result() == {}


def test_an_inference_ends_in_time(tasks, metrics):
    def endless(running):
        while not running.stopped():
            threading.Event().wait(0.01)
        raise Cancelled("stopped")

    inference_id, future = started(TaskWatch(metrics, task_seconds=0.2), tasks, ALICE, endless)

    with pytest.raises(Cancelled, match=r"longer than the 0.2 s that one may \(--task-seconds\)"):
        future.result(20)
    assert tasks.get(inference_id)["state"] == "stopped"


def test_inferences_are_their_callers_own(tasks, metrics):
    watch = TaskWatch(metrics)
    ids = {}
    for caller in (ALICE, BOB):
        ids[caller], future = started(watch, tasks, caller)
        future.result(20)

    for caller, other in ((ALICE, BOB), (BOB, ALICE)):
        with calling(caller):
            assert (
                [one["inference_id"] for one in seen(tasks, "")]
                == [one["inference_id"] for one in seen(tasks, ids[caller])]
                == [ids[caller]]
            )
            for call in (seen, stop_seen):
                with pytest.raises(NotFoundError, match="there is no inference"):
                    call(tasks, ids[other])
    with calling(ROOT):
        assert [one["inference_id"] for one in seen(tasks, "")] == [ids[BOB], ids[ALICE]]
        assert len(seen(tasks, "", 1)) == 1 and seen(tasks, ids[ALICE])[0]["caller"] == "alice"


def test_others_newer_inferences_hide_nobody_s_own(tasks, metrics, tmp_path):
    mine, future = started(TaskWatch(metrics), tasks, ALICE)
    future.result(20)
    with sqlite3.connect(tmp_path / "tasks.sqlite") as database:
        names = "inference_id, service, state, start_us, end_us, what, figures, message, caller"
        row = "'test', 'finished', ?, 1, '{\"caller\": \"bob\"}', '{}', '', 'bob'"
        newer = [(str(number), 1 << 53) for number in range(MOST_LISTED + 1)]
        database.executemany(f"INSERT INTO he_nn_inferences ({names}) VALUES (?, {row})", newer)
    database.close()

    with calling(ALICE):
        assert [one["inference_id"] for one in seen(tasks, "")] == [mine]
    with calling(ROOT):
        assert {one["caller"] for one in tasks.list(2)} == {"bob"}


def test_outside_of_a_request_nothing_is_seen(tasks):
    with pytest.raises(LookupError):
        seen(tasks, "")
