"""The data owner's half where an HE-server (server_url) or an HE-client service (client: true) takes the host party's place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from he_backend.api import Evaluation, HEClient, HEServer, InferenceRecord, Model
from he_backend.client.inference import Client
from he_backend.errors import InputError, ModelError, ProtocolError
from he_backend.graph.card import Card

from .artifact import ModelArtifact
from .params import EvalParams, InferenceParams, LoadParams
from .roles import Tracker, preset_of, round_figures
from .table import Rows

LOAD_PRESET = "N13_L8"  # what the server plans for when it loads


@dataclass(frozen=True)
class Served:
    """What an inference by a service gave: the model that was used, its outputs [rows, ...], figures, and what the outputs mean."""

    model: ModelArtifact
    outputs: np.ndarray = field(repr=False)
    figures: dict[str, Any]
    card: Card


def load(params: LoadParams) -> ModelArtifact:
    """The model that the HE-server bound. An HE-client's address does as well: it passes the request on."""
    name = "" if params.is_init else params.model_id or "latest"
    return _artifact(HEServer(params.server_url).load(params.model_type, is_init=params.is_init, model_name=name))


def evaluate(params: EvalParams, artifact: ModelArtifact | None) -> ModelArtifact:
    """The model with the figures of the HE-server's evaluation."""
    done = HEServer(params.server_url).test(
        params.model_type,
        params.model_id,
        encrypted=params.is_encryption,
        preset=params.encryption_parameters,
        start_batch=params.start_batch,
        batch_size=params.batch_size,
    )
    preset = str(done.figures.get("preset", "")) or params.encryption_parameters
    test_acc, plan = (None, {}) if artifact is None else (artifact.test_acc, artifact.plan)
    return ModelArtifact(done.model_id, done.model_name, done.model_type, preset, test_acc, plan, _evaluated(done, params))


def infer(params: InferenceParams, rows: Rows, tracker: Tracker) -> Served:
    """Predictions by way of the HE-client service, by the HE-server's ciphertext channel, or plain at the HE-server.

    Custom encryption parameters are given as text.
    """
    service = HEClient(params.client_url, params.server_url) if params.client else HEServer(params.server_url)
    found = service.find(params.model_type, params.model_id)
    params, card = replace(params, model_id=found.model_id), _card(found)
    rows = rows.matched(card.features, tracker.log)
    if isinstance(service, HEClient):
        return _by_client_service(service, params, rows, tracker, card)
    if not params.is_encryption:
        done = service.inference(params.model_type, _numbers(rows), params.model_id)
        model = ModelArtifact(done.model_id, done.model_name, done.model_type, "")
        return Served(model, done.outputs, {"is_encryption": False, **done.figures}, card)
    outputs, figures = _encrypted(params, service, found.model_id, rows, tracker)
    return Served(_artifact(found), outputs, figures, card)


def _encrypted(params: InferenceParams, server: HEServer, model_id: str, rows: Rows, tracker: Tracker) -> tuple[np.ndarray, dict[str, Any]]:
    def progress(at: Any) -> None:
        tracker.progress(at.chunk * at.rounds + at.round, at.chunks * at.rounds)

    with preset_of(params.encryption_parameters, params.is_custom_enc_param) as preset:
        client = Client(server.ciphertext_address(), preset=preset, progress=progress, credentials=server.channel_credentials())
        try:
            task = client.prepare(model_id, len(rows))
            tracker.log("environment test passed: versions, parameters and one known encrypted computation agree")
            inputs = task.plan.inputs
            if len(inputs) != 1:
                raise InputError(f"the model has {len(inputs)} inputs; he-nn-inference takes models with one")
            result = client.infer(task, rows.as_input(inputs[0].shape, inputs[0].dtype))
        finally:
            client.close()
    tracker.progress(1, 1)
    return result.output, {"is_encryption": True, **round_figures(result.report)}


def _by_client_service(client: HEClient, params: InferenceParams, rows: Rows, tracker: Tracker, card: Card) -> Served:
    values, preset = _numbers(rows), params.encryption_parameters
    inference_id = client.start_inference(params.model_type, values, params.model_id, encrypted=params.is_encryption, preset=preset)
    tracker.log(f"inference {inference_id} started at the HE-client {params.client_url}")

    def progress(record: InferenceRecord) -> None:
        tracker.progress(round(record.progress), 100)

    try:
        done = client.wait(inference_id, progress)
    except BaseException:
        _stop(client, inference_id)
        raise
    if done.log:
        tracker.log(done.log)
    model = ModelArtifact(done.model_id, done.model_name, done.model_type, "")
    return Served(model, done.outputs, {"is_encryption": params.is_encryption, **done.figures}, card)


def _stop(client: HEClient, inference_id: str) -> None:
    """Stops what nobody waits for any more; where that fails, it has ended or cannot be reached."""
    try:
        client.stop_inference(inference_id)
    except Exception:  # noqa: BLE001 - the error that led here matters more
        return


def _numbers(rows: Rows) -> np.ndarray:
    """The rows as they are sent to a service, which knows the model's type: whole numbers as such, for a network of token numbers."""
    values = rows.values
    if values.dtype.kind == "f" and np.abs(values).max(initial=0.0) < 2**31 and np.array_equal(values, np.rint(values)):
        return values.astype(np.int64)
    return values


def _card(model: Model) -> Card:
    try:
        return Card.of(model.data.get("meta") or {})
    except ModelError as problem:
        raise ProtocolError(f"the HE-server's description is wrong: {problem}") from None


def _artifact(model: Model) -> ModelArtifact:
    plan = model.data.get("plan")
    return ModelArtifact(
        model.model_id, model.model_name, model.model_type, LOAD_PRESET, model.test_acc, dict(plan) if isinstance(plan, dict) else {}
    )


def _evaluated(done: Evaluation, params: EvalParams) -> dict[str, Any]:
    figures = {
        "start_row": params.start_batch * params.batch_size,
        "batch_size": done.batch_size,
        "is_encryption": done.is_encryption,
        "test_acc": done.test_acc,
        **done.figures,
    }
    return figures if done.is_encryption else {**figures, "plain_seconds": done.seconds}
