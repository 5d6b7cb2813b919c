"""A task's log while the other party is silent."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from he_nn.waiting import Watched
from tests.he_nn.test_roles import Pipe, Recorder, Site, digits, inference


class Slow:
    """A channel whose objects take their time."""

    def __init__(self, seconds, error=None):
        self.seconds, self.error = seconds, error

    def send(self, data):
        raise AssertionError("nothing is sent")

    def receive(self):
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return b"object"


class SilentUntil:
    """A channel whose object comes when enough was said about its being late."""

    def __init__(self, lines, enough):
        self.lines, self.enough = lines, enough

    def receive(self):
        end = time.monotonic() + 60.0
        while len(self.lines) < self.enough and time.monotonic() < end:
            time.sleep(0.005)
        return b"object"


def waits():
    return [thread for thread in threading.enumerate() if thread.name == "he_nn-waiting"]


def test_a_silent_peer_is_named_again_and_again_each_time_after_twice_as_long():
    tracker = Recorder()

    assert Watched(SilentUntil(tracker.lines, 4), tracker, "host", first_s=0.05).receive() == b"object"

    said = [line.split(" s: ")[0] for line in tracker.lines[:4]]
    assert said == [f"nothing came from the host for {seconds}" for seconds in ("0.05", "0.1", "0.2", "0.4")]
    assert "its task has ended" in tracker.lines[0] and not waits()


def test_after_long_silence_the_channel_itself_is_suspected(monkeypatch):
    monkeypatch.setattr("he_nn.waiting.LONG_S", 0.2)
    tracker = Recorder()

    Watched(SilentUntil(tracker.lines, 4), tracker, "host", first_s=0.05).receive()

    assert ["nothing crosses between the two" in line for line in tracker.lines[:4]] == [False, False, True, True]


def test_one_that_answers_in_time_is_not_mentioned():
    tracker = Recorder()
    channel = Watched(Slow(0.0), tracker, "host", first_s=5.0)
    started = time.monotonic()

    assert [channel.receive() for _ in range(50)] == [b"object"] * 50

    assert tracker.lines == [] and not waits() and time.monotonic() - started < 5.0


def test_an_error_of_the_platform_ends_the_watch():
    with pytest.raises(OSError, match="broken"):
        Watched(Slow(0.0, OSError("broken")), Recorder(), "guest").receive()
    assert not waits()


def test_objects_go_through_as_they_are():
    up, down = queue.Queue(), queue.Queue()
    pipe = Pipe(up, down)

    Watched(pipe, Recorder(), "host").send(b"up")
    down.put(b"down")

    assert up.get(timeout=1) == b"up" and Watched(pipe, Recorder(), "host").receive() == b"down"


def test_both_sides_of_an_inference_watch_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("he_nn.waiting.Watched.__init__.__defaults__", (0.0005,))
    site = Site(tmp_path)
    site.load()

    site.run("infer", inference(), digits(64)[0])

    assert any(line.startswith("nothing came from the host") for line in site.guest.lines)
    assert any(line.startswith("nothing came from the guest") for line in site.host.lines)
