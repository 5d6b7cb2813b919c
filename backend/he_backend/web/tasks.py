"""Inferences at work: a bounded queue, progress and results in memory, and a record of each."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

import numpy as np

from he_backend.errors import Cancelled, EngineError, ParameterError
from he_backend.protocol.failures import failure_of
from he_backend.web import records
from he_backend.web.answers import QueueFull
from he_backend.web.ends import Ends
from he_backend.web.records import Record, Records

MOST_RESULT_BYTES = 256 << 20
_NOTE_S = 1.0  # between two notes of the progress in the database
_SHUTDOWN = "the service was shut down"


@dataclass(frozen=True)
class Outcome:
    """What an inference gives: predictions [rows, ...], its figures, and words about it."""

    outputs: np.ndarray = field(repr=False)
    seconds: float
    figures: Mapping[str, Any]
    log: str


class Running:
    """One inference at work: what it reports to, and how it hears that it shall stop."""

    def __init__(self, inference_id: str, note: Callable[[int, int], object] = lambda done, total: None) -> None:
        self.inference_id = inference_id
        self.done, self.total = 0, 0  # rounds, over all chunks of rows
        self.queued = True
        self.why = ""
        self._note, self._noted = note, 0.0
        self._stopped, self._closed = threading.Event(), False
        self._lock = threading.Lock()
        self._on_stop: Callable[[], object] | None = None

    def progress(self, done: int, total: int) -> None:
        """How far the work is, in rounds. Noted in the record from time to time; a database that fails now fails the end, not this."""
        self.done, self.total = done, total
        if time.monotonic() - self._noted > _NOTE_S:
            self._noted = time.monotonic()
            with contextlib.suppress(EngineError):
                self._note(done, total)

    def stopped(self) -> bool:
        """Whether it shall stop."""
        return self._stopped.is_set()

    def proceed(self) -> None:
        """Raises Cancelled when it shall stop."""
        if self.stopped():
            raise Cancelled(self.why)

    def on_stop(self, call: Callable[[], object]) -> None:
        """What to call once when it shall stop, such as closing a connection that work waits for."""
        self._on_stop = call
        if self.stopped():
            call()

    def stop(self, why: str) -> bool:
        """Tells the work to stop; False when it comes too late: how it ended is settled."""
        with self._lock:
            if self._closed:
                return False
            self.why = self.why or why
            self._stopped.set()
        if self._on_stop is not None:
            with contextlib.suppress(Exception):
                self._on_stop()
        return True

    def close(self) -> bool:
        """Takes no stop any more; whether one came in time."""
        with self._lock:
            self._closed = True
            return self._stopped.is_set()


class Tasks:
    """Runs `workers` pieces of work at a time while up to `waiting` more wait; beyond that QueueFull is raised.

    Predictions stay in this process's memory, the newest of them, up to MOST_RESULT_BYTES.
    """

    def __init__(self, kept: Records, workers: int, waiting: int) -> None:
        self._records, self._ends, self._most = kept, Ends(kept), workers + waiting
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="he-nn-task")
        self._running: dict[str, Running] = {}
        self._futures: dict[str, Future[Outcome]] = {}
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._pending = 0
        self._closed = False
        self._lock = threading.Lock()

    def run(self, work: Callable[[], Any]) -> Future[Any]:
        """Work without a record, in its turn."""

        def in_turn() -> Any:
            if self._closed:
                raise Cancelled(_SHUTDOWN)
            return work()

        self._enter()
        future = self._pool.submit(in_turn)
        future.add_done_callback(self._leave)
        return future

    def start(self, what: Mapping[str, Any], work: Callable[[Running], Outcome]) -> tuple[str, Future[Outcome]]:
        """(inference_id, its outcome); the future raises what the work raised, Cancelled when it was stopped."""
        self._enter()
        inference_id = str(uuid.uuid4())
        running = Running(inference_id, lambda done, total: self._records.progress(inference_id, done, total))
        try:
            self._records.start(inference_id, what)
        except BaseException:
            self._leave()
            raise
        with self._lock:
            self._running[inference_id] = running
            future = self._futures[inference_id] = self._pool.submit(self._work, running, work)
        future.add_done_callback(self._leave)
        return inference_id, future

    def stop(self, inference_id: str) -> Record:
        """Tells an inference to stop. Raises NotFoundError, or ParameterError when it has ended already."""
        record = self._record(inference_id)
        with self._lock:
            running = self._running.get(inference_id)
        if running is None or not self._stop(running, "stopped on request"):
            state = self._record(inference_id).state
            raise ParameterError(f"inference_id: {inference_id} has ended already" + ("" if state == records.STARTED else f" ({state})"))
        return record

    def get(self, inference_id: str) -> dict[str, Any]:
        """The record of one inference, with its outcome while that is in memory."""
        shown = self._shown(self._record(inference_id))
        with self._lock:
            outcome = self._outcomes.get(inference_id)
        return {**shown, "outcome": outcome}

    def list(self, most: int = records.MOST_LISTED, caller: str | None = None) -> list[dict[str, Any]]:
        """The records of the newest `most` inferences, newest first: all of them, or those of a caller."""
        self._ends.settle()
        return [self._shown(self._ends.shown(record)) for record in self._records.list(most, caller)]

    def figures(self) -> dict[str, int]:
        """How busy it is."""
        with self._lock:
            return {"pending": self._pending, "most_pending": self._most}

    def close(self) -> None:
        """Stops what runs, waits for it, and refuses more."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for one in running:
            self._stop(one, _SHUTDOWN)
        self._pool.shutdown(wait=True)
        self._ends.settle()
        self._records.close()

    def _record(self, inference_id: str) -> Record:
        self._ends.settle()
        return self._ends.shown(self._records.get(inference_id))

    def _stop(self, running: Running, why: str) -> bool:
        """What works is told; what still waits for its turn ends here. False when it has ended."""
        in_time = running.stop(why)
        with self._lock:
            future = self._futures.get(running.inference_id)
        if in_time and future is not None and future.cancel():
            running.close()
            self._end(running, Cancelled(why))
        return in_time

    def _work(self, running: Running, work: Callable[[Running], Outcome]) -> Outcome:
        running.queued = False
        result: Outcome | BaseException
        try:
            running.proceed()
            result = work(running)
        except BaseException as problem:  # noqa: BLE001 - raised below
            result = problem
        if running.close():  # who was told that it stops hears of no outcome
            result = Cancelled(f"inference {running.inference_id} was stopped: {running.why}")
        self._end(running, result)
        if isinstance(result, BaseException):
            raise result
        return result

    def _end(self, running: Running, result: Outcome | BaseException) -> None:
        end: tuple[str, Mapping[str, Any], str]
        if running.stopped():
            end = (records.FAILED if running.why == _SHUTDOWN else records.STOPPED, {}, running.why)
        elif isinstance(result, BaseException):
            failure = failure_of(result)
            end = (records.FAILED, {"error": failure.kind}, failure.message)
        else:
            running.done = running.total
            self._keep(running.inference_id, result)
            end = (records.FINISHED, result.figures, "")
        try:
            self._ends.add(running.inference_id, *end, (running.done, running.total))
        finally:
            with self._lock:
                self._running.pop(running.inference_id, None)
                self._futures.pop(running.inference_id, None)

    def _keep(self, inference_id: str, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes[inference_id] = outcome
            while len(self._outcomes) > 1 and sum(one.outputs.nbytes for one in self._outcomes.values()) > MOST_RESULT_BYTES:
                self._outcomes.popitem(last=False)

    def _shown(self, record: Record) -> dict[str, Any]:
        with self._lock:
            running = self._running.get(record.inference_id)
        done, total = (record.rounds_done, record.rounds) if running is None else (running.done, running.total)
        percent = 100.0 if record.state == records.FINISHED else 100.0 * done / total if total else 0.0
        queued = running is not None and running.queued
        return {**record.to_dict(), "progress": round(percent, 1), "rounds_done": done, "rounds": total, "queued": queued}

    def _enter(self) -> None:
        with self._lock:
            if self._closed or self._pending >= self._most:
                why = _SHUTDOWN if self._closed else f"the queue is full: {self._pending} are at work or wait, at most {self._most} may"
                raise QueueFull(f"{why}; ask again in a few seconds")
            self._pending += 1

    def _leave(self, _: object = None) -> None:
        with self._lock:
            self._pending -= 1
