"""The data owner's round loop: encrypt, send, decrypt, apply the next step, encrypt afresh. The secret key never leaves it."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from he_backend.access.credentials import Credentials
from he_backend.ckks import secret, serial
from he_backend.ckks.engines import (
    Tensor,
    answer_modulus,
    available,
    check_engine,
    default_engine,
    read_tensor,
    tensor_moduli,
    traits,
    usable_cores,
)
from he_backend.ckks.params import load_params
from he_backend.client.connect import open_link
from he_backend.client.report import Report, Result, RoundReport
from he_backend.client.rows import CheckedRows, check_rows, count_rows
from he_backend.errors import Cancelled, CapacityError, EngineError, InputError, ProtocolError
from he_backend.graph.steps import StepRunner
from he_backend.inference.packing import Packer, make_packer
from he_backend.inference.plan import DEFAULT_BITS, DEFAULT_MEMORY_BYTES, ClientPlan, RoundPlan, safe_scale
from he_backend.inference.probe import ANSWER_BITS, probe_error, probe_map, probe_scale, probe_values
from he_backend.inference.wire import plan_digest, plan_from_bytes
from he_backend.protocol import messages
from he_backend.protocol.session import ClientSession, Incoming, send
from he_backend.protocol.transport import CountingLink, Link, Retry
from he_backend.version import VERSION

_PARTS = ("encrypt", "server", "decrypt", "step", "wire")


@dataclass(frozen=True)
class Progress:
    """Where a running inference is: chunk of rows and round, both from 0, out of how many."""

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


class Client:
    """A data owner's connection to one server: a link, or HOST:PORT of its ciphertext channel with `credentials` (None: those of the
    environment, HE_NN_TOKEN and HE_NN_CA).

    `engine`: auto, native, seal (or clear where the server allows it). `preset`: a preset's name, a JSON file, or auto (the server
    picks the cheapest parameters that promise `bits`; they are checked here). `memory_bytes` bounds the ciphertexts held at a time.
    `progress` is called before each round; when `cancelled` returns True the inference stops with Cancelled.
    """

    def __init__(
        self,
        link: Link | str,
        *,
        engine: str = "auto",
        preset: str = "N13_L8",
        packing: str = "auto",
        bits: int = DEFAULT_BITS,
        threads: int = 0,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        allow_insecure: bool = False,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._link = CountingLink(open_link(link, credentials) if isinstance(link, str) else link)
        self._engine = default_engine() if engine == "auto" else check_engine(engine)
        self._allow_insecure = allow_insecure
        self._params = None if preset == "auto" else load_params(preset, allow_insecure)
        self._packing, self._bits, self._threads, self._retry = packing, bits, threads or usable_cores(), retry
        self._progress, self._cancelled, self._memory_bytes = progress, cancelled, memory_bytes

    def close(self) -> None:
        """Gives up the connection."""
        self._link.close()

    def prepare(self, model: str, rows: int = 1) -> Task:
        """Agrees with the server on version, engine, parameters and plan, and runs the environment test.

        Raises what the server refuses with, EngineError when it lacks the engine, ProtocolError when the test's answer is wrong.
        """
        started = time.perf_counter()
        session = ClientSession(self._link, policy=self._retry)
        reply = session.hello(_hello())
        if self._engine not in reply.engines:
            raise EngineError(f"the server offers engines {', '.join(reply.engines) or 'none'}, this side asked for {self._engine}")
        plan = self._agree(session, model, rows)
        self._probe(session, plan)
        runners = tuple(StepRunner(step, threads=self._threads) for step in plan.steps)
        packers = tuple(make_packer(this.layout, plan.params.ring_degree, this.scales) for this in plan.rounds)
        return Task(session, plan, runners, packers, self._threads, time.perf_counter() - started)

    def opening(self, model: str, rows: int = 1) -> list[list[bytes]]:
        """The frames of the first calls that `prepare` will make, for a link that carries them together with a call of its own."""
        return [list(send(_hello())), list(send(self._plan_request(model, rows)))]

    def infer(self, model: str | Task, rows: Any) -> Result:
        """Encrypted predictions for rows (an array [rows, ...] or arrays by input name) of a model, by name or as a prepared Task.

        Raises InputError for rows that do not fit, TransportError when the server is gone, Cancelled when told to stop.
        """
        task = self.prepare(model, count_rows(rows)) if isinstance(model, str) else model
        checked = rows if isinstance(rows, CheckedRows) else check_rows(rows, task.plan.inputs)
        chunk_rows = task.plan.chunk_rows(self._memory_bytes)
        return _Inference(task, self._link, self._progress, self._cancelled).run(checked, chunk_rows)

    def _agree(self, session: ClientSession, model: str, rows: int) -> ClientPlan:
        """The server's plan, checked, for the engine and the parameters asked for."""
        params = self._params
        reply, data = session.plan(self._plan_request(model, rows))
        if plan_digest(data) != reply.plan_digest:
            raise ProtocolError("the plan does not match its digest: it was damaged on the way")
        plan = plan_from_bytes(data, self._allow_insecure)
        if plan.engine != self._engine or params not in (None, plan.params):
            raise ProtocolError(f"the server planned for {plan.engine} and {plan.params.name}, which this side did not ask for")
        return plan

    def _plan_request(self, model: str, rows: int) -> messages.PlanRequest:
        params = self._params
        literal = json.dumps("auto" if params is None else params.literal(), sort_keys=True)
        options = {} if params is None else {"preset_name": params.name}
        return messages.PlanRequest(model, self._engine, literal, self._packing, self._bits, rows, options)

    def _probe(self, session: ClientSession, plan: ClientPlan) -> None:
        """The environment test: a known computation under this plan's engine and parameters."""
        params, kind = plan.params, traits(plan.engine, plan.params)
        key = secret.generate(plan.engine, params)
        values = probe_values()
        scale = probe_scale(params.moduli[0], kind)
        tensor = key.encrypt(values, scale, 1)
        request = messages.ProbeRequest(plan.engine, json.dumps(params.literal(), sort_keys=True), serial.header_of(tensor).to_bytes())

        def read(incoming: Incoming) -> float:
            sent = tensor_moduli(plan.engine, params.moduli[:1])
            moduli = (answer_modulus(params.ring_degree, ANSWER_BITS),) if kind.switches else sent
            answer = _read_tensor(incoming, plan.engine, params.ring_degree, moduli, probe_map().out_count, 1)
            return probe_error(key.decrypt(answer, scale * math.prod(moduli) / math.prod(sent), values.shape[1]))

        error = session.probe(request, lambda: serial.to_pieces(tensor), read)
        # Noise of 12 weights at this scale stays far below; a wrong key, modulus or byte order gives errors around modulus / scale.
        if not error < 1e-2:
            raise ProtocolError("the environment test gave a wrong answer: engine, preset or software of the two sides do not match")


class _Inference:
    """One inference: chunks of rows, each through all rounds."""

    def __init__(
        self,
        task: Task,
        link: CountingLink,
        progress: Callable[[Progress], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._task, self._plan, self._link = task, task.plan, link
        self._progress, self._cancelled = progress, cancelled
        self._key = secret.generate(self._plan.engine, self._plan.params, task.threads)
        self._seconds = [dict.fromkeys(_PARTS, 0.0) for _ in range(len(self._plan.rounds) + 1)]
        self._sent, self._received = [0] * len(self._plan.rounds), [0] * len(self._plan.rounds)

    def run(self, rows: CheckedRows, step: int) -> Result:
        started = time.perf_counter()
        chunks = -(-len(rows) // step)
        parts = []
        for chunk in range(chunks):  # one chunk's rows are gone before the next ones are read
            parts.append(self._chunk(chunk, chunks, rows.slice(chunk * step, min(len(rows), (chunk + 1) * step))))
        outputs = {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self._plan.outputs}
        return Result(outputs, self._report(len(rows), time.perf_counter() - started))

    def _chunk(self, chunk: int, chunks: int, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of one chunk of rows."""
        rows = len(next(iter(inputs.values())))
        values = inputs
        for this in self._plan.rounds:
            if self._cancelled is not None and self._cancelled():
                raise Cancelled(f"stopped before round {this.index} of chunk {chunk}")
            if self._progress is not None:
                self._progress(Progress(chunk, chunks, this.index, len(self._plan.rounds)))
            self._step(this.index, values, rows)
            values.update(self._round(this, chunk, values))
            self._forget(this.index, values)
        self._step(len(self._plan.rounds), values, rows)
        return {spec.name: np.asarray(values[spec.name], dtype=spec.dtype) for spec in self._plan.outputs}

    def _step(self, index: int, values: dict[str, np.ndarray], rows: int) -> None:
        started = time.perf_counter()
        values.update(self._task.steps[index].run(values, rows))
        self._seconds[index]["step"] += time.perf_counter() - started

    def _round(self, this: RoundPlan, chunk: int, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One round: the values that come back, at real scale."""
        plan, seconds = self._plan, self._seconds[this.index]
        started = time.perf_counter()
        inputs = [values[name] for name in this.inputs]
        rows = len(inputs[0])
        scale = self._scale(this, inputs)
        packer = self._task.packers[this.index]
        tensor = self._key.encrypt(packer.pack(inputs, this.constant), scale, this.level)
        seconds["encrypt"] += time.perf_counter() - started
        before, sent = self._link.traffic, time.perf_counter()

        def read(incoming: Incoming) -> tuple[float, Tensor]:
            moduli, count = plan.answer_moduli(this.index), plan.out_count(this.index)
            return incoming.head.seconds_server, _read_tensor(incoming, plan.engine, plan.params.ring_degree, moduli, count, tensor.columns)

        header = serial.header_of(tensor).to_bytes()
        server, answer = self._task.session.round(this.index, chunk, header, lambda: serial.to_pieces(tensor), read)
        received, after = time.perf_counter(), self._link.traffic
        scales = scale * plan.answer_scale(this.index) * packer.scales
        packed = self._key.decrypt(answer, scales, packer.count(rows, answer.columns, answer.width), packer.by_rows)
        out = packer.unpack(packed, rows, [plan.shapes[name] for name in this.outputs])
        seconds["server"] += server
        seconds["wire"] += max(0.0, received - sent - server)
        seconds["decrypt"] += time.perf_counter() - received
        self._sent[this.index] += after.sent_bytes - before.sent_bytes
        self._received[this.index] += after.received_bytes - before.received_bytes
        return dict(zip(this.outputs, out))

    def _scale(self, this: RoundPlan, inputs: list[np.ndarray]) -> float:
        largest = tuple(float(np.abs(value).max(initial=0.0)) for value in inputs)
        if not np.isfinite(largest).all():
            raise InputError(f"round {this.index}: a client step gave NaN or infinity for these rows; the model cannot take them")
        scale = safe_scale(this, self._plan.modulus(this.index), self._plan.traits, self._plan.params.ring_degree, largest)
        if scale <= 0.0:
            raise CapacityError(f"round {this.index}: these rows are too large for the modulus; scale them down or take a larger preset")
        return scale

    def _forget(self, index: int, values: dict[str, np.ndarray]) -> None:
        """Drops values that nothing later reads."""
        needed = {spec.name for spec in self._plan.outputs}
        for later in self._plan.rounds[index + 1 :]:
            needed.update(later.inputs)
        for step in self._plan.steps[index + 1 :]:
            needed.update(step.inputs)
        for name in set(values) - needed:
            del values[name]

    def _report(self, rows: int, total: float) -> Report:
        plan = self._plan
        per_round = tuple(
            RoundReport(
                this.index,
                this.inputs,
                this.outputs,
                plan.in_elements(this.index),
                plan.out_elements(this.index),
                this.level,
                this.weight_bits,
                self._sent[this.index],
                self._received[this.index],
                {name: round(value, 6) for name, value in self._seconds[this.index].items()},
            )
            for this in plan.rounds
        )
        seconds = {name: sum(part[name] for part in self._seconds) for name in _PARTS}
        return Report(
            plan.model_name,
            plan.engine,
            plan.params.name,
            tuple(sorted({this.packing for this in plan.rounds})),
            rows,
            len(plan.rounds),
            sum(self._sent),
            sum(self._received),
            {"total": total, **seconds, "setup": self._task.setup_seconds},
            plan.expected_bits,
            peak_memory_bytes(),
            per_round,
        )


def _hello() -> messages.Hello:
    return messages.Hello(f"he-nn {VERSION}", tuple(available()))


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _read_tensor(incoming: Incoming, engine: str, ring_degree: int, moduli: tuple[int, ...], count: int, columns: int) -> Tensor:
    """The ciphertexts of an answer, checked against what was asked for."""
    header = serial.read_header(incoming.head.header)
    serial.check_header(header, engine, ring_degree, moduli, count, columns)
    if header.columns != columns:
        raise ProtocolError(f"the answer has {header.columns} columns where {columns} were sent")
    return read_tensor(header, incoming.blocks)
