"""Watches over inferences: whose they are, how long they may take, and what is logged and counted of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import Future
from typing import Any, Callable, Mapping

from he_backend.access.callers import Caller
from he_backend.errors import Cancelled, NotFoundError
from he_backend.web.answers import QueueFull
from he_backend.web.callers import current_caller
from he_backend.web.metrics import Metrics
from he_backend.web.records import CALLER, MOST_LISTED, STOPPED
from he_backend.web.tasks import Outcome, Running, Tasks

_log = logging.getLogger(__name__)
Work = Callable[[Running], Outcome]


class TaskWatch:
    """An inference may work for `task_seconds` (None: without end), and one caller may have `per_caller` of them, waiting ones and
    evaluations included, at a time (None: as many as the queue takes). `metrics` count the ends.
    """

    def __init__(self, metrics: Metrics, task_seconds: float | None = None, per_caller: int | None = None) -> None:
        self.metrics, self._task_seconds, self._per_caller = metrics, task_seconds, per_caller
        self._callers: Counter[str] = Counter()
        self._lock = threading.Lock()

    def start(self, tasks: Tasks, what: Mapping[str, Any], work: Work) -> tuple[str, Future[Outcome]]:
        """Starts an inference of the current caller; its id and its outcome. After its time it is stopped as on request."""
        caller, started = current_caller(), time.perf_counter()
        self._enter(caller)
        try:
            inference_id, future = tasks.start({**what, CALLER: caller.name}, self._limited(work))
        except BaseException:
            self._leave(caller)
            raise
        future.add_done_callback(lambda _: self._leave(caller))
        about = {"task_id": inference_id, "caller": caller.name, "model": what["model_name"]}
        _log.info("inference started", extra={**about, "rows": what["inference_size"]})

        def ended(done: Future[Outcome]) -> None:
            state, seconds = _state(done), round(time.perf_counter() - started, 4)
            self.metrics.task(str(what["model_name"]), state, seconds)
            _log.info("inference ended", extra={**about, "state": state, "seconds": seconds})

        future.add_done_callback(ended)
        return inference_id, future

    def run(self, tasks: Tasks, work: Callable[[], Any]) -> Future[Any]:
        """Work of the current caller without a record, in its turn."""
        caller = current_caller()
        self._enter(caller)
        try:
            future = tasks.run(work)
        except BaseException:
            self._leave(caller)
            raise
        future.add_done_callback(lambda _: self._leave(caller))
        return future

    def _enter(self, caller: Caller) -> None:
        with self._lock:
            if self._per_caller is not None and self._callers[caller.name] >= self._per_caller:
                raise QueueFull(f"token {caller.name!r} has {self._per_caller} at work or waiting already; ask again when one has ended")
            self._callers[caller.name] += 1

    def _leave(self, caller: Caller) -> None:
        with self._lock:
            self._callers[caller.name] -= 1
            self._callers += Counter()  # forgets those that have none

    def _limited(self, work: Work) -> Work:
        limit = self._task_seconds
        if limit is None:
            return work

        def limited(running: Running) -> Outcome:
            timer = threading.Timer(limit, running.stop, (f"it took longer than the {limit:g} s that one may (--task-seconds)",))
            timer.daemon = True
            timer.start()
            try:
                return work(running)
            finally:
                timer.cancel()

        return limited


def seen(tasks: Tasks, inference_id: str, limit: int = MOST_LISTED) -> list[dict[str, Any]]:
    """The record of one inference, or (inference_id '') of the newest `limit`, as far as the current caller sees them.

    Raises NotFoundError, with the same words for what is not there and for what is another caller's.
    """
    caller = current_caller()
    if inference_id:
        return [_own(tasks, inference_id, caller)]
    records = tasks.list(limit, None if caller.is_admin else caller.name)
    return [record for record in records if _sees(caller, record)]


def stop_seen(tasks: Tasks, inference_id: str) -> None:
    """Stops an inference that the current caller sees. Raises NotFoundError, or ParameterError when it has ended."""
    _own(tasks, inference_id, current_caller())
    tasks.stop(inference_id)


def _own(tasks: Tasks, inference_id: str, caller: Caller) -> dict[str, Any]:
    record = tasks.get(inference_id)
    if not _sees(caller, record):
        raise NotFoundError(f"inference_id: there is no inference {inference_id[:80]!r}; leave it out to list them all")
    return record


def _sees(caller: Caller, record: Mapping[str, Any]) -> bool:
    return caller.sees(str(record.get(CALLER, "")))


def _state(done: Future[Outcome]) -> str:
    if done.cancelled():
        return STOPPED
    problem = done.exception()
    return "finished" if problem is None else STOPPED if isinstance(problem, Cancelled) else "failed"
