"""The HE-server's HTTP API: models, evaluations, plain inference. An encrypted inference is the HE-client's, and refused here."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any, Mapping, Sequence

from fastapi import FastAPI

from he_backend.errors import ParameterError
from he_backend.server.owner import Evaluation, Owner
from he_backend.server.registry import ModelRecord
from he_backend.version import VERSION
from he_backend.web import model_fields as fields
from he_backend.web.app import Operation, make_app
from he_backend.web.callers import current_caller
from he_backend.web.inference_operations import InferenceOperations, Started
from he_backend.web.tasks import Outcome, Running, Tasks
from he_backend.web.uploads import Uploads
from he_backend.web.watch import TaskWatch

_ABOUT = "HE-server: holds networks, computes on ciphertexts. Encrypted inference is asked of an HE-client."
_REFUSAL = (
    "is_encryption: an encrypted inference is refused here, because the rows would have to be uploaded in the clear to the machine that "
    "must not see them; ask an HE-client in your own zone (he-nn client-serve) with this server as server_url, or use he-nn infer --server"
)


class ServerApi(InferenceOperations):
    """The operations of the HE-server. Its ciphertext channel listens at `channel`, and others reach it at `port` of this host (or
    at `advertised`)."""

    def __init__(
        self, owner: Owner, tasks: Tasks, uploads: Uploads, watch: TaskWatch, channel: str, port: int, advertised: str = ""
    ) -> None:
        super().__init__(tasks, uploads, watch)
        self._owner, self._channel = owner, channel
        self._where = {"ciphertext_port": port, "ciphertext_address": advertised}

    def app(self, origins: Sequence[str] = ()) -> FastAPI:
        """The HTTP service; `origins` are those of other pages that may ask it."""
        operations = [
            Operation("/model/load", "Register a new model of a type, or load a registered one.", fields.LOAD, self.load),
            Operation("/model/get_list", "The models of a type.", fields.GET_LIST, self.get_list),
            Operation("/model/show", "One model: its rounds, and what the client computes and sends.", fields.SHOW, self.show),
            Operation("/model/test", "Evaluate a model on its own test rows, plain or encrypted.", fields.TEST, self.test),
            *self.operations(self.infer, "Plain inference with an uploaded file."),
        ]
        return make_app("HE-server", _ABOUT, operations, self.health, self.ready, origins)

    def health(self) -> dict[str, Any]:
        """What it is, and where its ciphertext channel is."""
        return {"service": "he-server", "version": VERSION, **self._where, **self.tasks.figures()}

    def ready(self) -> dict[str, Any]:
        """The number of models; raises when the registry or the records cannot be read."""
        self.tasks.list(1)
        return {"models": len(self._owner.registry.list()), **self.health()}

    def load(self, model_type: str, is_init: int | None, model_name: str) -> dict[str, Any]:
        """/model/load."""
        named = model_name.strip() not in ("", "latest")
        if is_init == 1 and named:
            raise ParameterError("model_name: name a model only with is_init 0; a new one (is_init 1) gets a name")
        is_new = is_init == 1 if is_init is not None else not model_name.strip()
        if is_new:
            current_caller().need_admin("registering a model (is_init 1)")
        record = self._owner.register(model_type) if is_new else self._owner.load(model_type, model_name)
        plan = self._owner.plan(record, fields.parameters(fields.DEFAULT_PRESET))
        return {"loadModel": "success", **_model(record), **self._where, "plan": plan}

    def get_list(self, model_type: str) -> dict[str, Any]:
        """/model/get_list."""
        return fields.list_answer("model_list", [_model(record) for record in self._owner.registry.list(model_type)])

    def show(self, model_type: str, model_name: str) -> dict[str, Any]:
        """/model/show."""
        record = self._owner.registry.get(model_name, model_type)
        return {**_model(record), **self._owner.show(record)}

    def test(
        self, model_type: str, model_name: str, is_encryption: bool, enc_param: str, start_batch: int, batch_size: int
    ) -> Future[Mapping[str, Any]]:
        """/model/test."""
        params = fields.parameters(enc_param)
        record = self._owner.registry.get(model_name, model_type)

        def work() -> Mapping[str, Any]:
            done = self._owner.evaluate(record, start_batch, batch_size, params if is_encryption else None, self._channel)
            how = f"encrypted under {params.name} by a simulated client" if is_encryption else "in the clear"
            return {
                "batch_size": done.rows,
                "encryption_parameters": fields.parameter_file(params) if is_encryption else "",
                "is_enc": is_encryption,
                "loadModel": "success",
                **_words(record),
                "test_acc": done.test_acc,
                "time_cost": fields.seconds_text(done.seconds),
                "figures": dict(done.figures),
                "log": f"{done.rows} test rows from row {done.start_row} on, {how}: {_measured(done)}",
            }

        return self.watch.run(self.tasks, work)

    def infer(
        self,
        model_type: str,
        model_name: str,
        inf_file_name: str,
        is_encryption: bool,
        encryption_params: str,
        batch_size: int | None,
        wait: bool,
    ) -> Started:
        """/model/inference."""
        if is_encryption:
            raise ParameterError(_REFUSAL)
        del encryption_params  # of an encrypted inference
        rows = fields.first_rows(self.uploads.get(inf_file_name), batch_size)
        record = self._owner.registry.get(model_name, model_type)
        what = {
            **_words(record),
            "inference_file": inf_file_name,
            "inference_size": len(rows),
            "is_encryption": "no",
            "encryption_parameter": "",
        }

        def work(running: Running) -> Outcome:
            started = time.perf_counter()
            outputs = self._owner.predict(record, rows, running.proceed)
            seconds = time.perf_counter() - started
            running.progress(1, 1)
            log = f"{len(rows)} rows in the clear; this server has seen them, as is_encryption 'no' says it may"
            return Outcome(outputs, seconds, {"rows": len(rows), "seconds": {"total": round(seconds, 4)}}, log)

        return self.start(what, work, wait)


def _measured(done: Evaluation) -> str:
    if done.test_acc is not None:
        return f"accuracy {done.test_acc:.4f}"
    return ", ".join(f"{name} {done.figures[name]:.4f}" for name in ("rmse", "r2") if name in done.figures)


def _words(record: ModelRecord) -> dict[str, Any]:
    return {"model_id": record.model_id, "model_name": record.model_name, "model_type": record.model_type}


def _model(record: ModelRecord) -> dict[str, Any]:
    more = {"model_owner": record.owner, "test_acc": record.test_acc, "created": record.created.isoformat(), "meta": dict(record.meta)}
    return {**_words(record), **more}
