"""The model owner's half of load, eval and inference: answers the guest over a channel. It never sees a row that the guest encrypts."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, replace
from typing import Any, Mapping, TypeVar

import numpy as np

from he_backend import zoo
from he_backend.ckks.engines import default_engine
from he_backend.ckks.params import load_params
from he_backend.errors import InputError, NotFoundError, ParameterError, ProtocolError
from he_backend.graph import Program, Reference, convert
from he_backend.inference.describe import plan_figures
from he_backend.inference.plan import PlanSpec, make_plan
from he_backend.server.models import RegistryModels
from he_backend.server.registry import ModelRecord, Registry
from he_backend.server.service import CipherService

from .artifact import LATEST, ModelArtifact
from .channel import Channel, Message, answer
from .params import EvalParams, InferenceParams, LoadParams, Params
from .roles import Tracker, by_service, preset_of, round_figures
from .table import accuracy

T = TypeVar("T")
LOAD_PRESET = "N13_L8"  # he-nn-load has no encryption parameters; its plan summary is for the default of the others


@dataclass(frozen=True)
class ModelOwner:
    """A registry of models, and where its tasks report to."""

    registry: Registry
    tracker: Tracker

    def load(self, channel: Channel, params: LoadParams) -> ModelArtifact:
        """Answers a guest's he-nn-load; gives the model that was bound."""
        if by_service(params):
            return self._idle(params)
        bound: list[ModelArtifact] = []

        def load(request: Message) -> Message:
            bound[:] = [self._bind(LoadParams.of(_given(request)))]
            return Message(bound[0].to_dict())

        answer(channel, {"load": load})
        model = _last(bound)
        self.tracker.summary({"model_name": model.model_name, "test_acc": model.test_acc, **_short(model.plan)})
        return model

    def evaluate(self, channel: Channel, params: EvalParams) -> ModelArtifact:
        """Answers a guest's he-nn-eval; gives the model with the figures of the evaluation."""
        if by_service(params):
            return self._idle(params)
        done: list[ModelArtifact] = []

        def evaluate(request: Message) -> Message:
            done[:] = [self._evaluate(EvalParams.of(_given(request)))]
            return Message(done[0].to_dict())

        answer(channel, {"evaluate": evaluate})
        model = _last(done)
        self.tracker.summary({"model_name": model.model_name, **_short(model.figures)})
        return model

    def infer(self, channel: Channel, params: InferenceParams) -> ModelArtifact:
        """Answers a guest's he-nn-inference: plans and rounds on ciphertexts, or plain rows where both sides say is_encryption false."""
        if by_service(params):
            return self._idle(params)
        models = RegistryModels(self.registry)
        service = CipherService(models)
        used: list[ModelRecord] = []
        traffic = {"calls": 0, "bytes_in": 0, "bytes_out": 0}

        def describe(request: Message) -> Message:
            record = self.registry.get(str(request.values.get("model_id")), str(request.values.get("model_type")))
            used[:] = [record]
            program = models.find(record.model_id).program
            inputs = [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in program.inputs]
            return Message({**self._artifact(record, params.encryption_parameters).to_dict(), "inputs": inputs})

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

        answer(channel, {"describe": describe, "plain": plain}, frames)
        artifact = self._artifact(_last(used), params.encryption_parameters)
        self.tracker.summary({"model_name": artifact.model_name, "model_type": artifact.model_type, **traffic})
        return replace(artifact, figures=dict(traffic))

    def _idle(self, params: Params) -> ModelArtifact:
        """Ends at once: the guest talks to a service, and this party holds no model of the job."""
        self.tracker.log("the guest uses an HE service (server_url); a host party has nothing to do in this component")
        model_id, model_type = getattr(params, "model_id", ""), getattr(params, "model_type", "")
        return ModelArtifact(model_id, "", model_type, getattr(params, "encryption_parameters", LOAD_PRESET))

    def _bind(self, params: LoadParams) -> ModelArtifact:
        if params.is_init:
            record = self._register(params.model_type)
        else:
            record = self.registry.get(params.model_id or LATEST, params.model_type)
        program = convert(self.registry.model_bytes(record), name=record.model_name)
        if record.test_path is not None:
            measured = self._plain_accuracy(record, program)
            record = self.registry.set_accuracy(record.model_id, measured)
            self.tracker.log(f"model {record.model_name}: plain accuracy {measured:.4f} on its test set")
        plan = self._plan(record, program, LOAD_PRESET)
        return replace(self._artifact(record, LOAD_PRESET), plan=plan)

    def _register(self, model_type: str) -> ModelRecord:
        """A new model of a type of the zoo, from the weights that come with it."""
        try:
            network = zoo.shipped(model_type)
        except NotFoundError as missing:  # a type of the owner's own
            return self.registry.add_again(model_type, str(missing))
        meta = {"dataset": network.dataset, "activation": network.activation, "input_shape": list(network.input_shape)}
        record = self.registry.add(network.onnx_path, network.model_type, test=network.load_test(), test_acc=network.test_acc, meta=meta)
        self.tracker.log(f"registered {record.model_name}: {network.model_type} trained on {network.dataset}")
        return record

    def _evaluate(self, params: EvalParams) -> ModelArtifact:
        record = self.registry.get(params.model_id, params.model_type)
        x, y = self.registry.test_set(record)
        start = params.start_batch * params.batch_size
        if start >= len(x):
            last = (len(x) - 1) // params.batch_size
            raise InputError(
                f"start_batch: {params.start_batch}; the test set has {len(x)} rows, the last batch of {params.batch_size} is {last}"
            )
        x, y = x[start : start + params.batch_size], y[start : start + params.batch_size]
        program = convert(self.registry.model_bytes(record), name=record.model_name)
        with preset_of(params.encryption_parameters, params.is_custom_enc_param) as preset:
            figures = self._encrypted(program, x, y, preset) if params.is_encryption else self._plain(program, x, y)
            plan = self._plan(record, program, preset, len(x))
        figures = {"start_row": start, "batch_size": len(x), "is_encryption": params.is_encryption, **figures}
        name = plan["preset"]
        return replace(self._artifact(record, name), plan=plan, figures=figures)

    def _plain(self, program: Program, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        reference = Reference(program)
        started = time.perf_counter()
        outputs = next(iter(reference.run(x).values()))
        return {"test_acc": accuracy(outputs.argmax(axis=-1), y), "plain_seconds": round(time.perf_counter() - started, 6)}

    def _encrypted(self, program: Program, x: np.ndarray, y: np.ndarray, preset: str) -> dict[str, Any]:
        """The figures of rows run with a simulated client, as in the HE-server's own test; the rows are the owner's, so nothing leaks."""
        from he_backend import local  # brings the client's side, which the host of an inference must never load

        def progress(at: Any) -> None:
            self.tracker.progress(at.chunk * at.rounds + at.round + 1, at.chunks * at.rounds)

        result = local.infer(program, x, preset=preset, progress=progress)
        report = result.report
        plain = next(iter(Reference(program).run(x).values()))
        return {
            "test_acc": accuracy(result.output.argmax(axis=-1), y),
            "plain_acc": accuracy(plain.argmax(axis=-1), y),
            "agreement": report.agreement,
            "max_abs_error": report.max_abs_error,
            "bits_of_precision": round(report.bits_of_precision or 0.0, 1),
            "plain_seconds": round(report.plain_seconds or 0.0, 6),
            **round_figures(report),
        }

    def _plain_accuracy(self, record: ModelRecord, program: Program) -> float:
        x, y = self.registry.test_set(record)
        return accuracy(next(iter(Reference(program).run(x).values())).argmax(axis=-1), y)

    def _plan(self, record: ModelRecord, program: Program, preset: str, rows: int = 1) -> dict[str, Any]:
        params = load_params(preset)
        spec = PlanSpec(record.model_id, default_engine(), params.literal(), rows=rows, preset_name=params.name)
        return plan_figures(make_plan(program, record.model_id, record.model_name, spec).client, rows)

    def _artifact(self, record: ModelRecord, preset: str) -> ModelArtifact:
        return ModelArtifact(record.model_id, record.model_name, record.model_type, preset, record.test_acc)


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
