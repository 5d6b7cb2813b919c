"""The data owner's side: agrees with a server on a plan, tests that both understand each other, and infers."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Callable

from he_backend.access.credentials import Credentials
from he_backend.ckks.engines import available, check_engine, default_engine, usable_cores
from he_backend.ckks.params import load_params
from he_backend.client.connect import open_link
from he_backend.client.environment import EnvironmentTest
from he_backend.client.report import Result
from he_backend.client.rounds import Progress, Task, run
from he_backend.client.rows import CheckedRows, check_rows, count_rows
from he_backend.errors import EngineError, ProtocolError
from he_backend.graph.steps import StepRunner
from he_backend.inference.packing import make_packer
from he_backend.inference.plan import DEFAULT_BITS, ClientPlan, check_bits
from he_backend.inference.schedule import DEFAULT_LANES, DEFAULT_MEMORY_BYTES, make_schedule
from he_backend.inference.wire import plan_digest, plan_from_bytes
from he_backend.protocol import messages
from he_backend.protocol.session import ClientSession, send
from he_backend.protocol.transport import Link, Retry
from he_backend.version import VERSION


@dataclass(frozen=True)
class Opening:
    """The frames of a task's first calls: greeting, plan and, where the parameters are known before the plan, the environment test."""

    calls: tuple[tuple[bytes, ...], ...] = field(repr=False)
    test: EnvironmentTest | None


class Client:
    """A data owner's connection to one server: a link, or HOST:PORT of its ciphertext channel with `credentials` (None: those of the
    environment, HE_NN_TOKEN and HE_NN_CA).

    `engine`: auto, native, seal (or clear where the server allows it). `preset`: a preset's name, a JSON file, or auto (the server
    picks the cheapest parameters that promise `bits`; they are checked here). `minimise`: latency or bytes, by which the server
    chooses where there is a choice. `memory_bytes` bounds the ciphertexts held at a time.
    `lanes`: chunks of rows under way at a time, so that encrypting, sending, computing and decrypting overlap; None: 2 over gRPC, 1 over
    a link of another kind, which need not carry calls at the same time.
    `progress` is called before each round; when `cancelled` returns True the inference stops with Cancelled.
    """

    def __init__(
        self,
        link: Link | str,
        *,
        engine: str = "auto",
        preset: str = "N13_L8",
        packing: str = "auto",
        minimise: str = "latency",
        bits: int = DEFAULT_BITS,
        threads: int = 0,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        allow_insecure: bool = False,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        lanes: int | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._link = open_link(link, credentials) if isinstance(link, str) else link
        self._lanes = lanes or (DEFAULT_LANES if isinstance(link, str) else 1)
        self._engine = default_engine() if engine == "auto" else check_engine(engine)
        self._allow_insecure = allow_insecure
        self._params = None if preset == "auto" else load_params(preset, allow_insecure)
        self._minimise = minimise
        self._packing, self._bits, self._threads, self._retry = packing, check_bits(bits), threads or usable_cores(), retry
        self._progress, self._cancelled, self._memory_bytes = progress, cancelled, memory_bytes

    def close(self) -> None:
        """Gives up the connection."""
        self._link.close()

    def prepare(self, model: str, rows: int = 1, opening: Opening | None = None) -> Task:
        """Agrees with the server on version, engine, parameters and plan, and runs the environment test: that of `opening`, if it has one.

        Raises what the server refuses with, EngineError when it lacks the engine, ProtocolError when the test's answer is wrong.
        """
        started = time.perf_counter()
        session = ClientSession(self._link, policy=self._retry)
        reply = session.hello(_hello())
        if self._engine not in reply.engines:
            raise EngineError(f"the server offers engines {', '.join(reply.engines) or 'none'}, this side asked for {self._engine}")
        plan = self._agree(session, model, rows)
        test = opening.test if opening is not None else None
        (test or EnvironmentTest.make(plan.engine, plan.params)).run(session)
        runners = tuple(StepRunner(step, threads=self._threads) for step in plan.steps)
        packers = tuple(make_packer(this.layout, plan.params.ring_degree, this.scales) for this in plan.rounds)
        return Task(session, plan, runners, packers, self._threads, time.perf_counter() - started)

    def opening(self, model: str, rows: int = 1) -> Opening:
        """What `prepare` will ask first, for a link that carries it together with a call of its own."""
        test = None if self._params is None else EnvironmentTest.make(self._engine, self._params)
        calls = [send(_hello()), send(self._plan_request(model, rows)), *([] if test is None else [test.frames()])]
        return Opening(tuple(tuple(frames) for frames in calls), test)

    def infer(self, model: str | Task, rows: Any) -> Result:
        """Encrypted predictions for rows (an array [rows, ...] or arrays by input name) of a model, by name or as a prepared Task.

        Raises InputError for rows that do not fit, TransportError when the server is gone, Cancelled when told to stop.
        """
        task = self.prepare(model, count_rows(rows)) if isinstance(model, str) else model
        checked = rows if isinstance(rows, CheckedRows) else check_rows(rows, task.plan.inputs)
        schedule = make_schedule(task.plan, len(checked), self._memory_bytes, self._lanes)
        return run(task, self._link, checked, schedule, self._progress, self._cancelled)

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
        options = {"minimise": self._minimise, **({} if params is None else {"preset_name": params.name})}
        return messages.PlanRequest(model, self._engine, literal, self._packing, self._bits, rows, options)


def _hello() -> messages.Hello:
    return messages.Hello(f"he-nn {VERSION}", tuple(available()))
