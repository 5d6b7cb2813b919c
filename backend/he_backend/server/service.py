"""The ciphertext service: frames in, frames out. A round is a pure function of the model, the plan and the ciphertexts.

Nothing is kept between calls but caches of what can be made again, so any replica can answer any round, and a lost round is simply sent
again. A secret key cannot reach this module: no message has a place for one, and ckks.secret is not among its imports.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from he_backend.access.callers import LOCAL, Caller
from he_backend.ckks import serial
from he_backend.ckks.engines import ReadyMap, available, check_engine, read_tensor, ready_map, tensor_moduli, traits, usable_cores
from he_backend.ckks.params import PRESETS, check_params
from he_backend.ckks.weights import DEFAULT_WEIGHT_BYTES, WeightRoom
from he_backend.errors import EngineError, NotFoundError, NotPermitted, ProtocolError
from he_backend.inference.cost import Costs, costs_path, load_costs
from he_backend.inference.plan import ClientPlan, PlanSpec, rows_class
from he_backend.inference.planner import make_plan
from he_backend.inference.probe import ANSWER_BITS, probe_map, probe_of
from he_backend.inference.selection import Selection
from he_backend.inference.wire import plan_digest, plan_to_bytes
from he_backend.protocol import messages
from he_backend.protocol.session import MAX_CALL_BYTES, Answer, Incoming, answering
from he_backend.protocol.transport import Handler
from he_backend.server.models import Model, ModelSource
from he_backend.version import VERSION

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundFigures:
    """What may be told of a round: who asked, for what, how much and how long it took; bytes are those of ciphertexts."""

    caller: str
    task_id: str
    model_name: str
    segment: int
    seconds: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True)
class _Call:
    """Whom a call is from, and which task of the caller's it belongs to."""

    caller: Caller
    task_id: str = ""


@dataclass(frozen=True)
class _Ready:
    """A plan and all that answering its rounds needs."""

    digest: str
    client_bytes: bytes
    plan: ClientPlan
    maps: tuple[ReadyMap, ...]
    selections: tuple[Selection | None, ...]


class CipherService:
    """Answers the calls of the ciphertext channel for the models of a source.

    `allow_clear` lets a client choose the engine that does not encrypt (tests, baselines); `allow_insecure` lets it choose parameters that
    say security_level 0. Transformed weights of more than `weight_bytes` lie in temporary files. `observe` is called after each round.
    """

    def __init__(
        self,
        models: ModelSource,
        *,
        allow_insecure: bool = False,
        allow_clear: bool = False,
        max_call_bytes: int = MAX_CALL_BYTES,
        keep_plans: int = 8,
        threads: int = 0,
        costs: Costs | None = None,
        weight_bytes: int = DEFAULT_WEIGHT_BYTES,
        observe: Callable[[RoundFigures], None] | None = None,
    ) -> None:
        self._models, self._observe = models, observe
        self._allow_insecure, self._allow_clear = allow_insecure, allow_clear
        self._max_call_bytes, self._keep = max_call_bytes, keep_plans
        self._threads = threads or usable_cores()
        self._costs = load_costs(costs_path()) if costs is None else costs
        self._room = WeightRoom(weight_bytes)
        self._plans: OrderedDict[str, _Ready] = OrderedDict()
        self._lock = threading.Lock()

    def handle(self, frames: Iterator[bytes]) -> Iterator[bytes]:
        """The frames that answer one call's frames, of a caller who may do all that a client may; an error becomes a Failure frame."""
        return self.handler_for(LOCAL)(frames)

    def handler_for(self, caller: Caller, task_id: str = "") -> Handler:
        """What answers the frames of a caller's calls with frames; an error, a model that it may not use included, becomes a Failure."""
        call = _Call(caller, task_id)
        return answering(lambda incoming: _ANSWERS[type(incoming.head)](self, incoming, call), limit_bytes=self._max_call_bytes)

    def _hello(self, incoming: Incoming, call: _Call) -> Answer:
        engines = tuple(name for name in available() if name != "clear" or self._allow_clear)
        return messages.HelloReply(f"he-nn {VERSION}", engines, PRESETS, limits={"max_call_bytes": self._max_call_bytes}), ()

    def _plan(self, incoming: Incoming, call: _Call) -> Answer:
        ready = self._find_plan(incoming.head, call.caller)
        client = ready.plan
        return messages.PlanReply(ready.digest, client.model_id, client.model_name), (ready.client_bytes,)

    def _probe(self, incoming: Incoming, call: _Call) -> Answer:
        engine = self._engine(incoming.head.engine)
        params = check_params(_literal(incoming.head.preset_json), "of the environment test", self._allow_insecure)
        header = serial.read_header(incoming.head.header)
        level = probe_of(engine, params).level
        moduli = tensor_moduli(engine, params.moduli[:level])
        serial.check_header(header, engine, params.ring_degree, moduli, probe_map().in_count, 1)
        answer = ready_map(engine, params, probe_map(), level, ANSWER_BITS)(read_tensor(header, incoming.blocks))
        return messages.ProbeReply(serial.header_of(answer).to_bytes()), serial.to_pieces(answer)

    def _round(self, incoming: Incoming, call: _Call) -> Answer:
        head = incoming.head
        ready = self._find_plan(head.plan, call.caller)
        if ready.digest != head.plan_digest:
            raise ProtocolError("the model or the software changed since this plan was made: ask for a new plan and start again")
        client, index = ready.plan, head.round_index
        if index >= len(ready.maps):
            raise ProtocolError(f"round {index} was asked for; the plan has rounds 0 to {len(ready.maps) - 1}")
        header = serial.read_header(head.header)
        columns = traits(client.engine, client.params).most_columns
        serial.check_header(header, client.engine, client.params.ring_degree, client.sent_moduli(index), client.in_count(index), columns)
        tensor = read_tensor(header, incoming.blocks)
        started = time.perf_counter()
        answer = ready.maps[index](tensor)
        selection = ready.selections[index]
        if selection is not None:
            answer = selection.pick(answer, self._threads)
        seconds = time.perf_counter() - started
        answered = serial.header_of(answer)
        if self._observe is not None:
            sizes = (header.payload_bytes, answered.payload_bytes)
            self._observe(RoundFigures(call.caller.name, call.task_id, client.model_name, index, seconds, *sizes))
        return messages.RoundReply(answered.to_bytes(), seconds), serial.to_pieces(answer)

    def _find_model(self, name: str, caller: Caller) -> Model:
        """The model; a restricted caller hears the same of a model that is not there and of one that it may not use."""
        try:
            try:
                model = self._models.find(name)
            except NotFoundError:
                if caller.is_restricted:
                    caller.need_use(name)
                raise
            caller.need_use(model.model_type, model.model_name, model.model_id)
        except NotPermitted as problem:
            _log.warning("refused: %s", problem, extra={"caller": caller.name})
            raise
        return model

    def _find_plan(self, request: messages.PlanRequest, caller: Caller) -> _Ready:
        """The plan of a request, made again if it is not among the last used."""
        model = self._find_model(request.model, caller)
        spec = PlanSpec(
            model.model_id,
            self._engine(request.engine),
            _literal(request.preset_json),
            request.packing,
            request.bits,
            request.rows,
            request.options.get("preset_name", "custom"),
            self._allow_insecure,
            self._costs,
            request.options.get("minimise", "latency"),
        )
        what = [spec.goal, spec.model, spec.engine, spec.preset, spec.packing, spec.bits, spec.preset_name, rows_class(spec.rows)]
        key = json.dumps(what, sort_keys=True)
        with self._lock:
            if key not in self._plans:
                plan = make_plan(model.program, model.model_id, model.model_name, spec)
                data = plan_to_bytes(plan.client)
                maps = tuple(
                    ready_map(spec.engine, plan.client.params, linear, this.level, this.answer_bits, self._threads, self._room)
                    for this, linear in zip(plan.client.rounds, plan.maps)
                )
                selections = tuple(plan.client.selection(this.index) for this in plan.client.rounds)
                self._plans[key] = _Ready(plan_digest(data), data, plan.client, maps, selections)
            self._plans.move_to_end(key)
            while len(self._plans) > self._keep:
                self._plans.popitem(last=False)
            return self._plans[key]

    def _engine(self, name: str) -> str:
        if name == "clear" and not self._allow_clear:
            raise EngineError("engine 'clear' does not encrypt, and this server takes no rows in the clear; use native or seal")
        return check_engine(name)


_ANSWERS: dict[type, Callable[[CipherService, Incoming, _Call], Answer]] = {
    messages.Hello: CipherService._hello,
    messages.PlanRequest: CipherService._plan,
    messages.ProbeRequest: CipherService._probe,
    messages.RoundRequest: CipherService._round,
}


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("the preset of a call is not JSON: both sides must run the same version of he-nn") from None
