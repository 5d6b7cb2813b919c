"""Jobs that do not end well: stopped by the user, failed at one party, and a party's process killed. None leaves a process or a key."""

from __future__ import annotations

import json
import os
import re
import signal
import time

from .checks import check, wait_for
from .flow import GUEST, HOST, Flow, processes_of
from .tables import MANY
from .traces import files, no_key

LONG = "he_nn_model_service_inference"  # one component and rows of a file; with server_url '' the host party takes the server's place
TASK = "he_nn_inference_0"
MOST_SECONDS = 120
NO_MODEL = "there is no model 'not-there'"
UNUSABLE = "the guest's rows cannot be used; the guest's own log says why"
NO_SERVICE = "127.0.0.1:9"
FAILURES = (  # what is wrong, and what the guest and the host read
    ({"model_id": "not-there"}, NO_MODEL, NO_MODEL),
    ({"file_inference": "gone.npy"}, "file_inference: there is no file gone.npy", UNUSABLE),
)


def stopped(flow: Flow) -> None:
    """`flow job stop` while ciphertexts are under way."""
    known = files(flow.home)
    job_id = _running(flow)
    started = time.monotonic()
    flow.command("job", "stop", "-j", job_id)
    _gone(job_id, "stopped")
    check(flow.state(job_id, *GUEST) == "canceled", f"a stopped job is canceled in {time.monotonic() - started:.0f} s")
    no_key(flow, job_id, known)


def failed(flow: Flow, changes: dict[str, object], guest_says: str, host_says: str) -> None:
    """A job that one party ends, for a reason that each reads in its own log; the host's log has none of the guest's file names."""
    known = files(flow.home)
    started = time.monotonic()
    job_id = flow.start(LONG, server_url="", num_inference=7, **changes)
    state = flow.end(job_id, MOST_SECONDS)
    check(state == "failed", f"a job fails in {time.monotonic() - started:.0f} s with {changes}")
    _gone(job_id, "failed")
    check(guest_says in told(flow, job_id), f"the guest's log says: {guest_says}")
    theirs = _errors(told(flow, job_id, HOST[0]))
    check(host_says in theirs, f"the host's log says: {host_says}")
    check(str(flow.home) not in theirs, "the host hears of no path at the guest's")
    no_key(flow, job_id, known)


def apart(flow: Flow, by_service: str) -> None:
    """One party goes by a service and the other waits for it, which would last until FATE's own limit of days."""
    known = files(flow.home)
    path, dsl = flow.example(LONG, server_url="", num_inference=7)
    conf = json.loads(path.read_text(encoding="utf-8"))
    party = conf["component_parameters"].setdefault("role", {}).setdefault(by_service, {}).setdefault("0", {})
    party.setdefault(TASK, {})["server_url"] = NO_SERVICE
    started = time.monotonic()
    job_id = flow.take(flow.write("apart", conf), dsl, f"a job with server_url for the {by_service} alone")
    state = flow.end(job_id, MOST_SECONDS)
    check(state == "failed", f"it fails in {time.monotonic() - started:.0f} s")
    _gone(job_id, "failed")
    waiting = HOST[0] if by_service == GUEST[0] else GUEST[0]
    says = f"server_url: '{NO_SERVICE}' at the {by_service}, and server_url: '' (embedded mode) at the {waiting}"
    check(says in told(flow, job_id, waiting), f"the {waiting}'s log says what differs")
    no_key(flow, job_id, known)


def killed(flow: Flow, role: str) -> None:
    """kill -9 of one party's task while ciphertexts are under way."""
    known = files(flow.home)
    job_id = _running(flow)
    victims = processes_of(job_id, role)
    check(bool(victims), f"the {role}'s task runs")
    started = time.monotonic()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    state = flow.end(job_id, MOST_SECONDS)
    seconds = time.monotonic() - started
    check(state == "failed", f"the job fails {seconds:.0f} s after kill -9 of the {role}'s task")
    _gone(job_id, "failed")
    other = HOST[0] if role == GUEST[0] else GUEST[0]
    check(f"nothing came from the {role} for" in told(flow, job_id, other), f"the {other}'s log says that the {role} is silent")
    text = "\n".join(path.read_text(encoding="utf-8") for folder in flow.folders(job_id) for path in folder.glob("fate_flow_detect.log"))
    said = re.search(rf"on {role} \d+ with running process \d+ does not exist", text)
    check(said is not None, f"and FATE Flow's log of the job why: {said.group() if said else ''}")
    no_key(flow, job_id, known)


def _errors(log: str) -> str:
    """The lines of a task's log from its first error on, without the parameters that FATE Flow lists in it."""
    at = log.find("[ERROR]")
    return "" if at < 0 else log[at:].split("start destroy sessions")[0]


def told(flow: Flow, job_id: str, role: str = GUEST[0]) -> str:
    """The log of one party's task."""
    party = dict((GUEST, HOST))[role]
    folders = [folder / role / str(party) / TASK for folder in flow.folders(job_id) if folder.parent.name == "logs"]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for folder in folders for path in sorted(folder.rglob("INFO.log")))


def _running(flow: Flow) -> str:
    """The id of a job whose inference has come some way."""
    job_id = flow.start(LONG, server_url="", num_inference=MANY, file_inference="many.npy")
    wait_for(lambda: flow.metrics(job_id, TASK).get("he_nn", {}).get("progress_loss", {}).get("data"), 120, "progress of an inference")
    check(all(processes_of(job_id, role) for role in (GUEST[0], HOST[0])), "an inference of both parties is under way")
    return job_id


def _gone(job_id: str, how: str) -> None:
    started = time.monotonic()
    wait_for(lambda: not processes_of(job_id), MOST_SECONDS, f"no process of a {how} job")
    check(True, f"no process of the {how} job is left after {time.monotonic() - started:.0f} s more")
