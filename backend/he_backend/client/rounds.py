"""The round loop: encrypt, send, decrypt, apply the next step, encrypt afresh. The secret keys never leave it.

Chunks of rows run in lanes, each with a key of its own: while the chunk of one lane is at the server, that of another is encrypted,
decrypted, or in a client step.
"""

from __future__ import annotations

import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable

import numpy as np

from he_backend.ckks import secret, serial
from he_backend.ckks.engines import Tensor, read_tensor
from he_backend.client.report import Report, Result, RoundReport
from he_backend.client.rows import CheckedRows
from he_backend.client.sizes import NOT_A_NUMBER, reached_bits, sized, squared_error
from he_backend.errors import Cancelled, InputError, ProtocolError
from he_backend.graph.steps import StepRunner
from he_backend.inference.packing import Packer
from he_backend.inference.plan import ClientPlan, RoundPlan
from he_backend.inference.schedule import Schedule
from he_backend.protocol.session import ClientSession, Incoming
from he_backend.protocol.transport import CountingLink, Link

_PARTS = ("encrypt", "server", "decrypt", "step", "wire")


@dataclass(frozen=True)
class Progress:
    """How far a running inference is: rounds that began before, as whole chunks of rows and rounds of one, from 0, and out of how many.

    With chunks side by side, these are not the numbers of a certain chunk and round.
    """

    chunk: int
    chunks: int
    round: int
    rounds: int


@dataclass(frozen=True)
class Task:
    """A model ready for inference at one server: its plan, agreed and probed."""

    session: ClientSession
    plan: ClientPlan
    steps: tuple[StepRunner, ...]
    packers: tuple[Packer, ...]  # of each round
    threads: int
    setup_seconds: float


class Watch:
    """What all lanes of an inference look at before each round: whether to go on, and how far everything is."""

    def __init__(self, chunks: int, rounds: int, progress: Callable[[Progress], None] | None, cancelled: Callable[[], bool] | None) -> None:
        self._chunks, self._rounds, self._progress, self._cancelled = chunks, rounds, progress, cancelled
        # Work of this side takes all cores: lanes that did theirs at the same time would then wait for the server at the same time.
        self.turn = threading.Lock()
        self._lock = threading.Lock()
        self._next, self._begun, self._stopped = 0, 0, False

    def next_chunk(self) -> int | None:
        """The number of a chunk that no lane took yet, None after the last."""
        with self._lock:
            if self._next == self._chunks:
                return None
            self._next += 1
            return self._next - 1

    def begin(self, chunk: int, index: int) -> None:
        """Tells of the progress; raises Cancelled when the inference is to stop, or another lane failed."""
        with self._lock:
            if self._stopped or (self._cancelled is not None and self._cancelled()):
                self._stopped = True
                raise Cancelled(f"stopped before round {index} of chunk {chunk}")
            if self._progress is not None:
                self._progress(Progress(self._begun // self._rounds, self._chunks, self._begun % self._rounds, self._rounds))
            self._begun += 1

    def stop(self) -> None:
        """Lets no lane begin another round."""
        with self._lock:
            self._stopped = True


def run(
    task: Task,
    link: Link,
    rows: CheckedRows,
    schedule: Schedule,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """Predictions for all rows, and what they cost. Raises what the first lane that failed raised."""
    started = time.perf_counter()
    chunks = schedule.chunks(len(rows))
    watch = Watch(chunks, len(task.plan.rounds), progress, cancelled)
    parts: list[dict[str, np.ndarray]] = [{}] * chunks
    lanes = [_Lane(task, link, watch, rows, schedule.rows, parts) for _ in range(min(schedule.lanes, chunks))]
    if len(lanes) == 1:
        lanes[0].run()
    else:
        _run_all(lanes, watch)
    outputs = {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in task.plan.outputs}
    return Result(outputs, _report(task, lanes, len(rows), time.perf_counter() - started))


def _run_all(lanes: list[_Lane], watch: Watch) -> None:
    """Each lane in a thread; after an error no lane begins another round, and the first error is raised."""
    errors: list[BaseException] = []

    def work(lane: _Lane) -> None:
        try:
            lane.run()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)  # before the others hear of it: theirs come later
            watch.stop()

    with ThreadPoolExecutor(len(lanes), "lane") as pool:
        try:
            list(pool.map(work, lanes))
        except BaseException:  # the caller's thread was interrupted
            watch.stop()
            raise
    if errors:
        raise errors[0]


class _Lane:
    """Takes one chunk after another through all rounds, under a key of its own."""

    def __init__(self, task: Task, link: Link, watch: Watch, rows: CheckedRows, step: int, parts: list[dict[str, np.ndarray]]) -> None:
        self._task, self._plan, self._watch = task, task.plan, watch
        self._rows, self._step_rows, self._parts = rows, step, parts
        self._link = CountingLink(link)
        self._session = task.session.over(self._link)
        self._key = secret.generate(self._plan.engine, self._plan.params, task.threads)
        count = len(self._plan.rounds)
        self.seconds = [dict.fromkeys(_PARTS, 0.0) for _ in range(count + 1)]
        self.sent, self.received = [0] * count, [0] * count
        self.errors = [0.0] * count  # of each round, the largest of all chunks: squared, relative

    def run(self) -> None:
        """Chunks until none is left."""
        chunk = self._watch.next_chunk()
        while chunk is not None:  # one chunk's rows are gone before the next ones are read
            start = chunk * self._step_rows
            self._parts[chunk] = self._chunk(chunk, self._rows.slice(start, min(len(self._rows), start + self._step_rows)))
            chunk = self._watch.next_chunk()

    def _chunk(self, chunk: int, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of one chunk of rows."""
        rows = len(next(iter(values.values())))
        for this in self._plan.rounds:
            self._watch.begin(chunk, this.index)
            values.update(self._round(this, chunk, values, rows))
            self._forget(this.index, values)
        with self._watch.turn:
            self._step(len(self._plan.rounds), values, rows)
        outputs = {spec.name: np.asarray(values[spec.name], dtype=spec.dtype) for spec in self._plan.outputs}
        for name, output in outputs.items():
            if output.dtype.kind == "f" and np.isnan(output).any():
                raise InputError(f"output {name}: the last client step gave NaN for these rows; {NOT_A_NUMBER}")
        return outputs

    def _step(self, index: int, values: dict[str, np.ndarray], rows: int) -> None:
        started = time.perf_counter()
        values.update(self._task.steps[index].run(values, rows))
        self.seconds[index]["step"] += time.perf_counter() - started

    def _round(self, this: RoundPlan, chunk: int, values: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """A client step and the round after it: the values that come back, at real scale."""
        plan, seconds, packer = self._plan, self.seconds[this.index], self._task.packers[this.index]
        with self._watch.turn:
            self._step(this.index, values, rows)
            started = time.perf_counter()
            inputs = [values[name] for name in this.inputs]
            given = sized(this, plan, inputs)
            tensor = self._key.encrypt(packer.pack(given.inputs, given.constant), given.scale, this.level)
            seconds["encrypt"] += time.perf_counter() - started
        before, sent = self._link.traffic, time.perf_counter()

        def read(incoming: Incoming) -> tuple[float, Tensor]:
            moduli, count = plan.answer_moduli(this.index), plan.out_count(this.index)
            return incoming.head.seconds_server, read_answer(incoming, plan.engine, plan.params.ring_degree, moduli, count, tensor.columns)

        header = serial.header_of(tensor).to_bytes()
        server, answer = self._session.round(this.index, chunk, header, lambda: serial.to_pieces(tensor), read)
        received, after = time.perf_counter(), self._link.traffic
        seconds["server"] += server
        seconds["wire"] += max(0.0, received - sent - server)
        self.sent[this.index] += after.sent_bytes - before.sent_bytes
        self.received[this.index] += after.received_bytes - before.received_bytes
        with self._watch.turn:
            started = time.perf_counter()
            scales = given.scale * plan.answer_scale(this.index) * packer.scales
            packed = self._key.decrypt(answer, scales, packer.count(rows, answer.columns, answer.width), packer.by_rows, packer.index(rows))
            out = given.real(packer.unpack(packed, rows, [plan.shapes[name] for name in this.outputs]))
            self.errors[this.index] = max(self.errors[this.index], squared_error(this, given, out))
            seconds["decrypt"] += time.perf_counter() - started
        return dict(zip(this.outputs, out))

    def _forget(self, index: int, values: dict[str, np.ndarray]) -> None:
        """Drops values that nothing later reads."""
        needed = {spec.name for spec in self._plan.outputs}
        for later in self._plan.rounds[index + 1 :]:
            needed.update(later.inputs)
        for step in self._plan.steps[index + 1 :]:
            needed.update(step.inputs)
        for name in set(values) - needed:
            del values[name]


def read_answer(incoming: Incoming, engine: str, ring_degree: int, moduli: tuple[int, ...], count: int, columns: int) -> Tensor:
    """The ciphertexts of an answer, checked against what was asked for."""
    header = serial.read_header(incoming.head.header)
    serial.check_header(header, engine, ring_degree, moduli, count, columns)
    if header.columns != columns:
        raise ProtocolError(f"the answer has {header.columns} columns where {columns} were sent")
    return read_tensor(header, incoming.blocks)


def _report(task: Task, lanes: list[_Lane], rows: int, total: float) -> Report:
    """The figures of all lanes together."""
    plan = task.plan
    seconds = [{name: sum(lane.seconds[index][name] for lane in lanes) for name in _PARTS} for index in range(len(plan.rounds) + 1)]
    sent = [sum(counts) for counts in zip(*(lane.sent for lane in lanes))]
    received = [sum(counts) for counts in zip(*(lane.received for lane in lanes))]
    per_round = tuple(
        RoundReport(
            this.index,
            this.inputs,
            this.outputs,
            plan.in_elements(this.index),
            plan.out_elements(this.index),
            this.level,
            this.weight_bits,
            sent[this.index],
            received[this.index],
            {name: round(value, 6) for name, value in seconds[this.index].items()},
        )
        for this in plan.rounds
    )
    return Report(
        plan.model_name,
        plan.engine,
        plan.params.name,
        tuple(sorted({this.packing for this in plan.rounds})),
        rows,
        len(plan.rounds),
        sum(sent),
        sum(received),
        {"total": total, **{name: sum(part[name] for part in seconds) for name in _PARTS}, "setup": task.setup_seconds},
        reached_bits(plan, [max(lane.errors[this.index] for lane in lanes) for this in plan.rounds]),
        peak_memory_bytes(),
        per_round,
        lanes=len(lanes),
    )


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
