"""The data owner's half of load, eval and inference: asks the host over a channel, or a service. Rows, keys and predictions stay here."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, TypeVar, Union

import numpy as np

from he_backend.ckks.params import load_params
from he_backend.client.inference import Client
from he_backend.client.rows import load_rows
from he_backend.errors import InputError, ModelError, ParameterError, ProtocolError, SecurityError
from he_backend.graph.card import Card
from he_backend.graph.quality import quality

from . import service
from .artifact import ModelArtifact, wanted_model
from .channel import Caller, Channel, Message, OwnParametersError, OwnRowsError
from .opening import OpenedLink
from .params import EvalParams, InferenceParams, LoadParams, Params
from .roles import Tracker, by_service, find_file, preset_of, round_figures, tell_of_service
from .table import Predictions, Rows, from_array, predictions
from .waiting import Watched

MOST_ROUNDS_SHOWN = 40
Q = TypeVar("Q", EvalParams, InferenceParams)
Table = Union[Rows, Callable[[], Optional[Rows]], None]
Given = Union[ModelArtifact, Callable[[], Optional[ModelArtifact]], None]
Answered = Tuple[ModelArtifact, Card, np.ndarray, Dict[str, Any]]  # the model, what its outputs mean, outputs [rows, ...], figures


@dataclass(frozen=True)
class Inferred:
    """What he-nn-inference gives: the rows as they came in, their predictions, and the model with the figures."""

    rows: Rows
    predictions: Predictions
    artifact: ModelArtifact


@dataclass(frozen=True)
class DataOwner:
    """Where the guest's tasks report to."""

    tracker: Tracker

    def load(self, channel: Channel, params: LoadParams) -> ModelArtifact:
        """The model that the host, or the HE-server, bound."""
        if by_service(params):
            tell_of_service(channel, True, params, self.tracker)
            artifact = service.load(params)
        else:
            with Caller(Watched(channel, self.tracker, "host")) as host:
                artifact = ModelArtifact.of(host.call("load", **_values(params)).values)
        self.tracker.log(f"bound model {artifact.model_name} ({artifact.model_type}, id {artifact.model_id})")
        self.tracker.summary({**_words(artifact), **_short(artifact.plan)})
        return artifact

    def evaluate(self, channel: Channel, params: EvalParams, given: Given = None) -> ModelArtifact:
        """The model with the figures of the model owner's evaluation on its own test rows; `given` as for `infer`."""
        if by_service(params):
            tell_of_service(channel, True, params, self.tracker)
            artifact = _artifact(given)
            model_id, model_type = wanted_model(params.model_id, params.model_type, artifact)
            result = service.evaluate(_with_custom_text(replace(params, model_id=model_id, model_type=model_type)), artifact)
        else:
            with Caller(Watched(channel, self.tracker, "host")) as host:
                model_id, model_type = wanted_model(params.model_id, params.model_type, _artifact(given))
                params = _with_custom_text(replace(params, model_id=model_id, model_type=model_type))
                result = ModelArtifact.of(host.call("evaluate", **_values(params)).values)
        self._report(result)
        return result

    def infer(self, channel: Channel, params: InferenceParams, table: Table = None, given: Given = None) -> Inferred:
        """Predictions of the table's rows, or of the first num_inference rows of the file, in order.

        The table, and the model `given` by an earlier component, may come as callables that read them: what is wrong with them then ends
        the host's side too, with the reason.
        """
        if by_service(params):
            tell_of_service(channel, True, params, self.tracker)
            return self._by_service(params, table, _artifact(given))
        with Caller(Watched(channel, self.tracker, "host")) as host:  # from here on the host hears of what goes wrong
            artifact = _artifact(given)
            model_id, model_type = wanted_model(params.model_id, params.model_type, artifact)
            rows = _read(table, params)
            run = self._encrypted if params.is_encryption else self._plain
            model, card, outputs, figures = run(host, replace(params, model_id=model_id, model_type=model_type), rows)
        return self._done(rows, replace(model, plan=artifact.plan if artifact else {}), outputs, figures, card)

    def _by_service(self, params: InferenceParams, table: Table, artifact: ModelArtifact | None) -> Inferred:
        model_id, model_type = wanted_model(params.model_id, params.model_type, artifact)
        rows = _read(table, params)
        how = "encrypted" if params.is_encryption else "NOT encrypted"
        self.tracker.log(f"{len(rows)} rows for {model_type} model {model_id} of {params.server_url}, {how}")
        done = service.infer(_with_custom_text(replace(params, model_id=model_id, model_type=model_type)), rows, self.tracker)
        model = done.model if artifact is None else replace(done.model, plan=artifact.plan, test_acc=artifact.test_acc)
        return self._done(rows, model, done.outputs, done.figures, done.card)

    def _done(self, rows: Rows, model: ModelArtifact, outputs: np.ndarray, figures: dict[str, Any], card: Card) -> Inferred:
        predicted = predictions(outputs, card)
        figures["task"] = predicted.task
        if rows.labels is not None:
            figures.update(self._quality(outputs, rows.labels, card))
        result = replace(model, preset=str(figures.get("preset", "")), figures=figures)
        self._report(result)
        return Inferred(rows, predicted, result)

    def _quality(self, outputs: np.ndarray, labels: np.ndarray, card: Card) -> dict[str, float]:
        """How good the predictions are; labels that do not belong to them are told to the log, and the predictions stay."""
        try:
            measured = quality(outputs, labels, card)
        except InputError as problem:
            self.tracker.log(f"the table's labels are passed on and no accuracy is measured: {problem}")
            return {}
        return {"accuracy" if name == "test_acc" else name: value for name, value in measured.items()}

    def _encrypted(self, host: Caller, params: InferenceParams, rows: Rows) -> Answered:
        def progress(at: Any) -> None:
            self.tracker.progress(at.chunk * at.rounds + at.round, at.chunks * at.rounds)

        link = OpenedLink(host)
        with _own_preset(params) as preset:
            client = Client(link, preset=preset, progress=progress)
            opening = client.opening(params.model_id, len(rows))
            model, card, values = self._described(link.describe(opening.calls, **_which(params)), params, rows)
            task = client.prepare(params.model_id, len(values), opening)
            self.tracker.log("environment test passed: versions, parameters and one known encrypted computation agree")
            result = client.infer(task, values)
        self.tracker.progress(1, 1)
        return model, card, result.output, {"is_encryption": True, **round_figures(result.report)}

    def _plain(self, host: Caller, params: InferenceParams, rows: Rows) -> Answered:
        """Predictions that the host computes on the rows themselves: is_encryption false says that it may see them."""
        model, card, values = self._described(host.call("describe", **_which(params)), params, rows)
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        started = time.perf_counter()
        reply = host.call("plain", buffer.getvalue(), model_id=model.model_id)
        seconds = time.perf_counter() - started
        try:
            outputs = np.load(io.BytesIO(reply.data), allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise ProtocolError("the host's predictions are not a numpy array of numbers") from None
        if outputs.shape[:1] != (len(values),):
            raise ProtocolError(f"the host gave predictions for {outputs.shape[:1]} rows, {len(values)} were asked for")
        sizes = {"bytes_up": len(buffer.getvalue()), "bytes_down": len(reply.data)}
        figures = {"is_encryption": False, "rows": len(values), "rounds": 1, **sizes, "seconds": {"total": round(seconds, 4)}}
        return model, card, outputs, figures

    def _described(self, answer: Message, params: InferenceParams, rows: Rows) -> tuple[ModelArtifact, Card, np.ndarray]:
        """The model, its card, and the rows as it takes them."""
        model, card = ModelArtifact.of(answer.values), read_card(answer.values.get("card", {}))
        how = "encrypted" if params.is_encryption else "NOT encrypted"
        self.tracker.log(f"{len(rows)} rows for model {model.model_name}, {how}")
        return model, card, _as_input(rows.matched(card.features, self.tracker.log), answer.values.get("inputs"))

    def _report(self, artifact: ModelArtifact) -> None:
        """The figures as series and as one flat summary; a summary lists the rounds one by one while they are few."""
        figures = dict(artifact.figures)
        round_ms = figures.pop("round_ms", [])
        self.tracker.series("round_ms", round_ms)
        seconds = figures.pop("seconds", {})
        flat = {**figures, **{f"seconds_{name}": value for name, value in seconds.items()}}
        if len(round_ms) <= MOST_ROUNDS_SHOWN:
            flat.update({f"round_{index + 1}_ms": value for index, value in enumerate(round_ms)})
        self.tracker.summary({**_words(artifact), **_short(flat)})


def _read(table: Table, params: InferenceParams) -> Rows:
    """The rows; raises OwnRowsError when they cannot be used."""
    try:
        rows = table() if callable(table) else table
        return read_file(params) if rows is None else rows
    except InputError as problem:
        raise OwnRowsError(str(problem)) from None


def _artifact(given: Given) -> ModelArtifact | None:
    return given() if callable(given) else given


def read_file(params: InferenceParams) -> Rows:
    """The first num_inference rows of file_inference."""
    advice = "give the absolute path of an .npy file on the guest's machine, or connect a table"
    path = find_file(params.file_inference, "file_inference", advice)
    rows = load_rows(path)
    if isinstance(rows, dict):
        raise InputError(f"file_inference: {path} holds several arrays, one is expected (.npy)")
    return from_array(rows[: len(rows)], params.num_inference, f"file_inference {path}")


def read_card(values: Any) -> Card:
    """The model's card as a peer gave it; raises ProtocolError when it is none."""
    try:
        return Card.of(values)
    except ModelError as problem:
        raise ProtocolError(f"the model owner's description is wrong: {problem}") from None


def _as_input(rows: Rows, inputs: Any) -> np.ndarray:
    if not isinstance(inputs, list) or len(inputs) != 1:
        count = len(inputs) if isinstance(inputs, list) else 0
        raise InputError(f"the model has {count} inputs; he-nn-inference takes models with one")
    try:
        shape, dtype = tuple(int(size) for size in inputs[0]["shape"]), str(np.dtype(inputs[0]["dtype"]))
    except (KeyError, TypeError, ValueError):
        raise ProtocolError("the host's description of the model's input is not one") from None
    return rows.as_input(shape, dtype)


def _which(params: InferenceParams) -> dict[str, Any]:
    return {"model_id": params.model_id, "model_type": params.model_type}


def _values(params: Params) -> dict[str, Any]:
    return dataclasses.asdict(params)


def _with_custom_text(params: Q) -> Q:
    """Custom parameters travel as text: the model owner has no file of the guest's."""
    if not params.is_custom_enc_param:
        return params
    with _own_preset(params) as path, open(path, encoding="utf-8") as stream:
        return replace(params, encryption_parameters=stream.read())


@contextlib.contextmanager
def _own_preset(params: EvalParams | InferenceParams) -> Iterator[str]:
    """preset_of the parameters, read once to see that it can be; what is wrong with the guest's file is told to the guest alone."""
    with contextlib.ExitStack() as stack:
        try:
            preset = stack.enter_context(preset_of(params.encryption_parameters, params.is_custom_enc_param))
            load_params(preset)
        except SecurityError:
            raise
        except (InputError, ParameterError) as problem:
            raise OwnParametersError(str(problem)) from None
        yield preset


def _words(artifact: ModelArtifact) -> dict[str, Any]:
    found = {"model_id": artifact.model_id, "model_name": artifact.model_name, "model_type": artifact.model_type}
    return found if artifact.test_acc is None else {**found, "model_test_acc": artifact.test_acc}


def _short(values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}
