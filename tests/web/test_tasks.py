"""Inferences at work: their turn, progress that survives the process, stopping, and what records say at the end."""

from __future__ import annotations

import sqlite3
import threading
import time

import numpy as np
import pytest

from he_backend.errors import Cancelled, EngineError, InputError, NotFoundError, ParameterError
from he_backend.web.answers import QueueFull
from he_backend.web.records import INTERRUPTED, Records
from he_backend.web.tasks import Outcome, Running, Tasks

WHAT = {"model_name": "0a1b2cMLP", "inference_size": 2}
OUTCOME = Outcome(np.array([[0.25, 0.75]]), 0.5, {"rows": 2, "per_round": [{"index": 0, "bytes_up": 7}]}, "done")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'tasks.sqlite'}"


@pytest.fixture
def tasks(url):
    tasks = Tasks(Records(url, "client"), workers=1, waiting=2)
    yield tasks
    tasks.close()


class Held:
    """Work that goes on until it is let go, and reports that it is two rounds into six."""

    def __init__(self):
        self.entered, self.free = threading.Event(), threading.Event()

    def __call__(self, running):
        running.on_stop(self.free.set)
        running.progress(2, 6)
        self.entered.set()
        self.free.wait(20)
        if running.stopped():
            raise Cancelled("stopped")
        return OUTCOME


def test_an_inference_is_shown_while_it_waits_runs_and_has_ended(tasks):
    first, second = Held(), Held()
    running, future = tasks.start(WHAT, first)
    waiting, later = tasks.start(WHAT, second)
    first.entered.wait(20)

    during = {one["inference_id"]: one for one in tasks.list()}
    first.free.set()
    second.free.set()
    future.result(20), later.result(20)
    after = tasks.get(running)

    assert (during[running]["rounds_done"], during[running]["rounds"], during[running]["progress"]) == (2, 6, 33.3)
    assert during[waiting]["queued"] and not during[running]["queued"]
    assert (after["state"], after["progress"], after["rounds_done"], after["rounds"]) == ("finished", 100.0, 6, 6)
    assert after["figures"] == OUTCOME.figures and after["outcome"] is OUTCOME


def test_one_that_waits_for_its_turn_is_stopped_at_once(tasks):
    first = Held()
    tasks.start(WHAT, first)
    waiting, future = tasks.start(WHAT, Held())
    first.entered.wait(20)

    tasks.stop(waiting)

    record = tasks.get(waiting)
    assert future.cancelled() and record["state"] == "stopped" and record["stop_time"] and not record["queued"]
    with pytest.raises(ParameterError, match=r"ended already \(stopped\)"):
        tasks.stop(waiting)
    assert tasks.figures()["pending"] == 1
    first.free.set()


def test_one_that_fails_keeps_the_reason_and_how_far_it_came(tasks):
    def fails(running):
        running.progress(1, 3)
        raise InputError("the rows do not fit")

    inference_id, future = tasks.start(WHAT, fails)
    with pytest.raises(InputError):
        future.result(20)

    record = tasks.get(inference_id)
    assert (record["state"], record["message"], record["figures"]) == ("failed", "the rows do not fit", {"error": "input"})
    assert (record["rounds_done"], record["rounds"], record["progress"]) == (1, 3, 33.3)


def test_a_stop_wins_over_what_the_work_still_gives(tasks):
    entered, free = threading.Event(), threading.Event()

    def deaf(running):
        entered.set()
        free.wait(20)
        return OUTCOME

    inference_id, future = tasks.start(WHAT, deaf)
    entered.wait(20)
    tasks.stop(inference_id)
    free.set()

    with pytest.raises(Cancelled, match="was stopped: stopped on request"):
        future.result(20)
    record = tasks.get(inference_id)
    assert record["state"] == "stopped" and record["outcome"] is None
    with pytest.raises(ParameterError, match=r"ended already \(stopped\)"):
        tasks.stop(inference_id)


def test_a_stop_after_the_end_changes_nothing():
    running = Running("a")

    assert running.close() is False and running.stop("too late") is False and not running.stopped()


class Failing(Records):
    """Records whose database does not take the ends of inferences while it `fails`."""

    fails = True

    def end(self, *end):
        if self.fails:
            raise EngineError("the task database failed: disk full")
        super().end(*end)


def test_an_end_that_the_database_does_not_take_is_shown_and_written_later(url):
    kept = Failing(url, "client")
    tasks = Tasks(kept, workers=1, waiting=2)

    def fails(running):
        running.progress(1, 3)
        raise InputError("the rows do not fit")

    done, future = tasks.start(WHAT, lambda running: OUTCOME)
    failed, other = tasks.start(WHAT, fails)
    assert future.result(20) is OUTCOME
    with pytest.raises(InputError):
        other.result(20)

    shown = {one["inference_id"]: one for one in tasks.list()}
    assert (shown[done]["state"], shown[done]["figures"], bool(shown[done]["finish_time"])) == ("finished", OUTCOME.figures, True)
    assert (shown[failed]["state"], shown[failed]["message"], shown[failed]["rounds_done"]) == ("failed", "the rows do not fit", 1)
    assert tasks.get(done)["outcome"] is OUTCOME and kept.get(done).state == kept.get(failed).state == "started"
    with pytest.raises(ParameterError, match=r"ended already \(finished\)"):
        tasks.stop(done)

    kept.fails = False
    again = {one["inference_id"]: one for one in tasks.list()}
    assert again == shown and (kept.get(done).state, kept.get(failed).state) == ("finished", "failed")
    tasks.close()


def test_ends_are_written_when_the_service_ends_too(url):
    kept = Failing(url, "client")
    tasks = Tasks(kept, workers=1, waiting=2)
    inference_id, future = tasks.start(WHAT, lambda running: OUTCOME)
    future.result(20)

    kept.fails = False
    tasks.close()

    assert Records(url, "client").get(inference_id).state == "finished"


def test_work_that_waits_for_its_turn_is_not_begun_when_the_service_ends(url):
    tasks, held, begun = Tasks(Records(url, "client"), workers=1, waiting=2), Held(), []
    tasks.start(WHAT, held)
    held.entered.wait(20)
    waiting = tasks.run(lambda: begun.append(1))

    tasks.close()

    with pytest.raises(Cancelled, match="shut down"):
        waiting.result(20)
    assert begun == []


def test_a_full_queue_takes_no_more_and_has_room_again_later(tasks):
    held = [Held() for _ in range(3)]
    futures = [tasks.start(WHAT, one)[1] for one in held]

    with pytest.raises(QueueFull):
        tasks.start(WHAT, Held())
    for one in held:
        one.free.set()
    for future in futures:
        future.result(20)

    assert len(tasks.list()) == 3
    tasks.run(lambda: 1).result(20)


def test_what_was_left_unfinished_is_failed_at_the_next_start_with_its_progress(url):
    records = Records(url, "client")
    other = Records(url, "server")
    records.start("a", WHAT)
    records.progress("a", 4, 9)
    other.start("b", WHAT)
    records.close()

    again = Records(url, "client")

    record = again.get("a")
    assert (record.state, record.message, record.rounds_done, record.rounds) == ("failed", INTERRUPTED, 4, 9)
    assert other.get("b").state == "started"
    with pytest.raises(NotFoundError):
        again.get("b")
    again.progress("a", 5, 9)
    again.end("a", "finished", {})
    assert again.get("a") == record


def test_a_database_of_an_earlier_version_goes_on_working(url):
    records = Records(url, "client")
    for number, caller in enumerate(("alice", "bob", None)):
        records.start(str(number), {**WHAT, **({"caller": caller} if caller else {})})
        records.end(str(number), "finished", {})
    records.close()
    with sqlite3.connect(url[len("sqlite:///") :]) as database:
        database.execute("DROP INDEX he_nn_inferences_of_caller")
        database.execute("ALTER TABLE he_nn_inferences DROP COLUMN caller")
    database.close()

    again, other = Records(url, "client"), Records(url, "server")
    again.start("3", {**WHAT, "caller": "alice"})

    assert {one.inference_id for one in again.list(caller="alice")} == {"0", "3"}
    assert [one.inference_id for one in again.list(caller="bob")] == ["1"] and len(again.list()) == 4
    assert other.list() == []


def test_progress_is_written_now_and_then_only(url):
    class Counting(Records):
        notes = 0

        def progress(self, inference_id, done, total):
            self.notes += 1
            super().progress(inference_id, done, total)

    records = Counting(url, "client")
    tasks = Tasks(records, workers=1, waiting=0)

    def work(running):
        for done in range(500):
            running.progress(done, 500)
            time.sleep(0.0001)
        return OUTCOME

    tasks.start(WHAT, work)[1].result(20)
    tasks.close()

    assert 1 <= records.notes <= 5


def test_the_newest_come_first_and_no_more_than_asked_for(url):
    records = Records(url, "client")
    for number in range(5):
        records.start(str(number), WHAT)
        time.sleep(0.001)

    assert [one.inference_id for one in records.list(2)] == ["4", "3"]
