"""The model owner's half of load, eval and inference: answers the guest over a channel. It never sees a row that the guest encrypts."""

from __future__ import annotations

import functools
import io
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Mapping, TypeVar

import numpy as np

from he_backend.ckks.params import load_params
from he_backend.errors import HeError, InputError, ParameterError, ProtocolError
from he_backend.graph import Program, Reference
from he_backend.graph.card import Card
from he_backend.graph.quality import quality
from he_backend.server.labelled import batch_of
from he_backend.server.models import Model, RegistryModels, registered_program
from he_backend.server.planning import plan_of
from he_backend.server.registering import register
from he_backend.server.registry import ModelRecord, Registry
from he_backend.server.service import CipherService

from .artifact import LATEST, ModelArtifact
from .channel import Channel, Message, OwnModelsError, answer
from .opening import answer_calls
from .params import EvalParams, InferenceParams, LoadParams, Params
from .roles import Tracker, by_service, preset_of, round_figures, tell_of_service
from .waiting import Watched

T = TypeVar("T")
LOAD_PRESET = "N13_L8"  # he-nn-load has no encryption parameters; its plan summary is for the default of the others


@dataclass(frozen=True)
class ModelOwner:
    """Its registry of models, and where its tasks report to."""

    open_registry: Callable[[], Registry]
    tracker: Tracker

    @functools.cached_property
    def registry(self) -> Registry:
        """Opened when the guest first asks for something, so that it hears of a failure; by a service it is never needed."""
        try:
            return self.open_registry()
        except HeError as problem:
            raise OwnModelsError(str(problem)) from None

    def load(self, channel: Channel, params: LoadParams) -> ModelArtifact:
        """Answers a guest's he-nn-load; gives the model that was bound."""
        if by_service(params):
            return self._idle(channel, params)
        bound: list[ModelArtifact] = []

        def load(request: Message) -> Message:
            bound[:] = [self._bind(LoadParams.of(_given(request)))]
            return Message(bound[0].to_dict())

        answer(Watched(channel, self.tracker, "guest"), {"load": load})
        model = _last(bound)
        self.tracker.summary({"model_name": model.model_name, "test_acc": model.test_acc, **_short(model.plan)})
        return model

    def evaluate(self, channel: Channel, params: EvalParams) -> ModelArtifact:
        """Answers a guest's he-nn-eval; gives the model with the figures of the evaluation."""
        if by_service(params):
            return self._idle(channel, params)
        done: list[ModelArtifact] = []

        def evaluate(request: Message) -> Message:
            done[:] = [self._evaluate(EvalParams.of(_given(request)))]
            return Message(done[0].to_dict())

        answer(Watched(channel, self.tracker, "guest"), {"evaluate": evaluate})
        model = _last(done)
        self.tracker.summary({"model_name": model.model_name, **_short(model.figures)})
        return model

    def infer(self, channel: Channel, params: InferenceParams) -> ModelArtifact:
        """Answers a guest's he-nn-inference: plans and rounds on ciphertexts, or plain rows where both sides say is_encryption false."""
        if by_service(params):
            return self._idle(channel, params)
        models = _JobModels(lambda: RegistryModels(self.registry))
        service = CipherService(models)
        traffic = {"calls": 0, "bytes_in": 0, "bytes_out": 0}

        def describe(request: Message) -> Message:
            asked = str(request.values.get("model_id"))
            record = self.registry.get(asked, str(request.values.get("model_type")))
            models.settle(asked, record)
            program = models.find(record.model_id).program
            inputs = [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in program.inputs]
            card = Card.of(record.meta).to_dict()
            described = {**self._artifact(record, params.encryption_parameters).to_dict(), "inputs": inputs, "card": card}
            return Message(described, answer_calls(request.data, frames))

        def plain(request: Message) -> Message:
            if params.is_encryption:
                raise ParameterError("is_encryption: true at the host, and the guest asked for a plain inference; both must say the same")
            rows = _read_array(request.data)
            reference = Reference(models.find(str(request.values.get("model_id"))).program)
            started = time.perf_counter()
            outputs = reference.run(rows)
            return Message({"seconds": time.perf_counter() - started}, _write_array(next(iter(outputs.values()))))

        def frames(incoming: Any) -> Any:
            traffic["calls"] += 1
            for frame in service.handle(_counted(incoming, traffic, "bytes_in")):
                traffic["bytes_out"] += len(frame)
                yield frame

        answer(Watched(channel, self.tracker, "guest"), {"describe": describe, "plain": plain}, frames)
        artifact = self._artifact(_last([] if models.record is None else [models.record]), params.encryption_parameters)
        self.tracker.summary({"model_name": artifact.model_name, "model_type": artifact.model_type, **traffic})
        return replace(artifact, figures=dict(traffic))

    def _idle(self, channel: Channel, params: Params) -> ModelArtifact:
        """Ends at once: the guest talks to a service, and this party holds no model of the job."""
        tell_of_service(channel, False, params, self.tracker)
        self.tracker.log("the guest uses an HE service (server_url); a host party has nothing to do in this component")
        model_id, model_type = getattr(params, "model_id", ""), getattr(params, "model_type", "")
        return ModelArtifact(model_id, "", model_type, getattr(params, "encryption_parameters", LOAD_PRESET))

    def _bind(self, params: LoadParams) -> ModelArtifact:
        if params.is_init:
            record = self._register(params.model_type)
        else:
            record = self.registry.get(params.model_id or LATEST, params.model_type)
        program = registered_program(self.registry, record)
        if record.test_path is not None:
            measured = self._plain_quality(record, program)
            if "test_acc" in measured:
                record = self.registry.set_accuracy(record.model_id, measured["test_acc"])
            shown = ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
            self.tracker.log(f"model {record.model_name} in the clear on its test set: {shown}")
        plan = self._plan(record, program, LOAD_PRESET)
        return replace(self._artifact(record, LOAD_PRESET), plan=plan)

    def _register(self, model_type: str) -> ModelRecord:
        """A new model of a type, as the HE-server registers one."""
        record = register(self.registry, model_type)
        origin = record.meta.get("dataset") or record.meta.get("copy_of", "")
        self.tracker.log(f"registered {record.model_name}: {record.model_type} of {origin}")
        return record

    def _evaluate(self, params: EvalParams) -> ModelArtifact:
        record = self.registry.get(params.model_id, params.model_type)
        start, x, y = batch_of(*self.registry.test_set(record), params.start_batch, params.batch_size)
        program = registered_program(self.registry, record)
        with preset_of(params.encryption_parameters, params.is_custom_enc_param) as preset:
            run = self._encrypted if params.is_encryption else self._plain
            figures = run(program, x, y, Card.of(record.meta), preset)
            plan = self._plan(record, program, preset, len(x))
        figures = {"start_row": start, "batch_size": len(x), "is_encryption": params.is_encryption, **figures}
        name = plan["preset"]
        return replace(self._artifact(record, name), plan=plan, figures=figures)

    def _plain(self, program: Program, x: np.ndarray, y: np.ndarray, card: Card, _: str) -> dict[str, Any]:
        reference = Reference(program)
        started = time.perf_counter()
        outputs = next(iter(reference.run(x).values()))
        return {**quality(outputs, y, card), "plain_seconds": round(time.perf_counter() - started, 6)}

    def _encrypted(self, program: Program, x: np.ndarray, y: np.ndarray, card: Card, preset: str) -> dict[str, Any]:
        """The figures of rows run with a simulated client, as in the HE-server's own test; the rows are the owner's, so nothing leaks."""
        from he_backend import local  # brings the client's side, which the host of an inference must never load

        def progress(at: Any) -> None:
            self.tracker.progress(at.chunk * at.rounds + at.round + 1, at.chunks * at.rounds)

        result = local.infer(program, x, preset=preset, progress=progress)
        report = result.report
        plain = next(iter(Reference(program).run(x).values()))
        return {
            **quality(result.output, y, card),
            **{"plain_" + name.replace("test_", ""): value for name, value in quality(plain, y, card).items()},
            "agreement": report.agreement,
            "max_abs_error": report.max_abs_error,
            "bits_of_precision": round(report.bits_of_precision or 0.0, 1),
            "plain_seconds": round(report.plain_seconds or 0.0, 6),
            **round_figures(report),
        }

    def _plain_quality(self, record: ModelRecord, program: Program) -> dict[str, float]:
        x, y = self.registry.test_set(record)
        return quality(next(iter(Reference(program).run(x).values())), y, Card.of(record.meta))

    def _plan(self, record: ModelRecord, program: Program, preset: str, rows: int = 1) -> dict[str, Any]:
        return plan_of(record, program, load_params(preset), rows)

    def _artifact(self, record: ModelRecord, preset: str) -> ModelArtifact:
        return ModelArtifact(record.model_id, record.model_name, record.model_type, preset, record.test_acc)


class _JobModels:
    """The registry's models for one inference: once `describe` has told which one, the guest's word for it means this model alone."""

    def __init__(self, open_models: Callable[[], RegistryModels]) -> None:
        self._open_models = open_models
        self._asked = ""
        self.record: ModelRecord | None = None

    @functools.cached_property
    def _models(self) -> RegistryModels:
        return self._open_models()

    def settle(self, asked: str, record: ModelRecord) -> None:
        """From here on `asked` means `record`, whatever is bound meanwhile."""
        self._asked, self.record = asked, record

    def find(self, model: str) -> Model:
        """The model; raises NotFoundError naming what there is."""
        return self._models.find(self.record.model_id if self.record is not None and model == self._asked else model)


def _last(found: list[T]) -> T:
    if not found:
        raise ProtocolError("the guest ended the task without asking for anything")
    return found[-1]


def _given(request: Message) -> dict[str, Any]:
    return {name: value for name, value in request.values.items() if name != "operation"}


def _short(values: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are one number or word."""
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}


def _counted(frames: Any, counts: dict[str, int], name: str) -> Any:
    for frame in frames:
        counts[name] += len(frame)
        yield frame


def _read_array(data: bytes) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise InputError("the guest's rows are not a numpy array of numbers") from None
    return np.asarray(array)


def _write_array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
