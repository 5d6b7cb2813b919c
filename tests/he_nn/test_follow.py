"""Following a FATE 2.2 job: for as long as it takes, and through a FATE Flow that is away for a while."""

from __future__ import annotations

import math

import pytest

from he_backend.errors import TransportError
from he_nn.fate2.flow import Flow, JobFailed


class Scripted(Flow):
    """Answers with the states of a list, one for each poll; None is a FATE Flow that cannot be reached."""

    def __init__(self, *states):
        super().__init__("127.0.0.1:1")
        self.states, self.stopped = list(states), []

    def job_status(self, job_id):
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state is None:
            raise TransportError("FATE Flow cannot be reached")
        return state

    def tasks(self, job_id):
        return [{"task_name": "infer", "role": "guest", "party_id": "9999", "status": self.states[0] or "running"}]

    def stop(self, job_id):
        self.stopped.append(job_id)


def test_a_job_is_followed_for_as_long_as_it_takes():
    flow, seen = Scripted("waiting", "running", None, None, "running", "success"), []

    assert flow.follow("J1", seen.append, poll_s=0, timeout_s=math.inf) == "success"
    assert not flow.stopped and [task["status"] for task in seen] == ["running", "success"]


def test_a_flow_that_stays_away_ends_the_following_and_not_the_job():
    flow = Scripted(None)

    with pytest.raises(TransportError, match="job J1 goes on"):
        flow.follow("J1", print, poll_s=0.01, patience_s=0.05)
    assert not flow.stopped


def test_a_job_with_a_limit_is_stopped():
    flow = Scripted("running")

    with pytest.raises(JobFailed, match="still running"):
        flow.follow("J1", lambda task: None, poll_s=0.01, timeout_s=0.05)
    assert flow.stopped == ["J1"]
