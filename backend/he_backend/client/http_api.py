"""The HE-client's HTTP API: takes rows, encrypts them here, asks an HE-server, answers with predictions.

Rows, keys and predictions stay in this process's memory. To a server go ciphertexts; and rows only where the user says is_encryption "no".
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import numpy as np
from fastapi import FastAPI

from he_backend.access.credentials import Credentials
from he_backend.api import HEServer, Model
from he_backend.ckks.params import Params
from he_backend.client.connect import open_link
from he_backend.client.inference import Client
from he_backend.client.permitted import PermittedServer
from he_backend.client.report import Report
from he_backend.client.rounds import Progress
from he_backend.client.rows import check_rows
from he_backend.client.stoppable import StoppableLink
from he_backend.errors import HeError, InputError, ParameterError
from he_backend.inference.schedule import DEFAULT_LANES, DEFAULT_MEMORY_BYTES
from he_backend.protocol.transport import Retry
from he_backend.version import VERSION
from he_backend.web import model_fields as fields
from he_backend.web.app import Operation, make_app
from he_backend.web.callers import current_caller
from he_backend.web.fields import REQUIRED, Field
from he_backend.web.figures import inference_figures
from he_backend.web.inference_operations import InferenceOperations, Started
from he_backend.web.tasks import Outcome, Running, Tasks
from he_backend.web.uploads import Uploads
from he_backend.web.watch import TaskWatch

_ABOUT = "HE-client: holds the secret keys, encrypts rows for an HE-server, decrypts its answers. It belongs in the data owner's zone."
_LONG = ("/model/test",)
_ANSWER_TIMEOUT_S = 30.0  # without a byte, from a server that answers at once: what it works on, it is asked about again and again
_IN_THE_CLEAR_OR_NOT = Field(
    "is_encryption", bool, REQUIRED, "yes or no: yes encrypts the rows here, no sends them to the HE-server in the clear"
)
RETRY = Retry(attempts=9, backoff_s=0.5)  # a server may take half a minute to come back


class ClientApi(InferenceOperations):
    """The operations of the HE-client. `server_url` is the HE-server for requests that name none; with `fixed_server` no other is taken.

    `credentials` (None: those of the environment) are shown to that HE-server; to another one goes neither token nor certificate.
    """

    def __init__(
        self,
        tasks: Tasks,
        uploads: Uploads,
        watch: TaskWatch,
        server_url: str,
        *,
        credentials: Credentials | None = None,
        fixed_server: bool = False,
        threads: int = 0,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        super().__init__(tasks, uploads, watch)
        self._credentials = Credentials.from_environment() if credentials is None else credentials
        self._default, self._fixed = HEServer(server_url, credentials=self._credentials).url, fixed_server
        self._threads, self._memory_bytes = threads, memory_bytes

    def app(self, origins: Sequence[str] = ()) -> FastAPI:
        """The HTTP service; `origins` are those of other pages that may ask it."""
        server = Field("server_url", str, "", f"HTTP address of the HE-server; without it {self._default}")
        operations = [
            # A word left out or misspelled here must not send rows in the clear.
            *self.operations(
                self.infer,
                "Encrypted inference (is_encryption yes), or plain at the HE-server (no).",
                (*(_IN_THE_CLEAR_OR_NOT if one.name == _IN_THE_CLEAR_OR_NOT.name else one for one in fields.INFERENCE), server),
                only_these=True,
            ),
            *(
                Operation(path, f"Passed on to the HE-server. {doc}", (*table, server), self._forward(path))
                for path, doc, table in (
                    ("/model/load", "Register a new model of a type, or load a registered one.", fields.LOAD),
                    ("/model/get_list", "The models of a type.", fields.GET_LIST),
                    ("/model/show", "One model: its rounds, and what the client computes and sends.", fields.SHOW),
                    ("/model/test", "Evaluate a model on its owner's test rows.", fields.TEST),
                )
            ),
        ]
        return make_app("HE-client", _ABOUT, operations, self.health, self.ready, origins)

    def health(self) -> dict[str, Any]:
        """What it is."""
        return {"service": "he-client", "version": VERSION, "server_url": self._default, **self.tasks.figures()}

    def ready(self) -> dict[str, Any]:
        """Raises when the records cannot be read, or the default server does not answer or does not take this service's token."""
        self.tasks.list(1)
        server = self._server("", _ANSWER_TIMEOUT_S)  # anybody may ask, and a server that is silent holds a thread
        server.get_list()
        return {"server": server.health(), **self.health()}

    def infer(
        self,
        model_type: str,
        model_name: str,
        inf_file_name: str,
        is_encryption: bool,
        encryption_params: str,
        batch_size: int | None,
        wait: bool,
        server_url: str,
    ) -> Started:
        """/model/inference."""
        params = fields.parameters(encryption_params)
        rows = fields.first_rows(self.uploads.get(inf_file_name), batch_size)
        server = self._server(server_url) if is_encryption else self._server(server_url, _ANSWER_TIMEOUT_S)
        model = server.find(model_type, model_name)
        what = {
            "model_id": model.model_id,
            "model_name": model.model_name,
            "model_type": model.model_type,
            "inference_file": inf_file_name,
            "inference_size": len(rows),
            "is_encryption": "yes" if is_encryption else "no",
            "encryption_parameter": fields.parameter_file(params) if is_encryption else "",
            "server_url": server.url,
        }

        def work(running: Running) -> Outcome:
            if is_encryption:
                return self._encrypted(running, server, model, rows, params)
            return _plain(running, server, model, rows)

        return self.start(what, work, wait)

    def _encrypted(self, running: Running, server: HEServer, model: Model, rows: np.ndarray, params: Params) -> Outcome:
        link = StoppableLink(open_link(server.ciphertext_address(), server.channel_credentials(), running.inference_id))
        running.on_stop(link.stop)

        def progress(at: Progress) -> None:
            running.progress(at.chunk * at.rounds + at.round, at.chunks * at.rounds)

        try:
            with tempfile.TemporaryDirectory() as folder:  # the parameter set is public
                preset = Path(folder) / f"{params.name}.json"
                preset.write_text(json.dumps(params.literal()), encoding="utf-8")
                client = Client(
                    link,
                    preset=str(preset),
                    threads=self._threads,
                    memory_bytes=self._memory_bytes,
                    retry=RETRY,
                    progress=progress,
                    cancelled=running.stopped,
                    lanes=DEFAULT_LANES,
                )
            task = client.prepare(model.model_id, len(rows))
            if len(task.plan.inputs) != 1:
                raise InputError(f"the model has {len(task.plan.inputs)} inputs; this service takes models with one")
            result = client.infer(task, check_rows(rows, task.plan.inputs))
            for this in result.report.per_round:
                own = this.seconds["encrypt"] + this.seconds["decrypt"] + this.seconds["step"]
                self.watch.metrics.round(model.model_name, this.index, own, this.bytes_down, this.bytes_up)
        finally:
            link.close()
        return Outcome(result.output, result.report.seconds["total"], inference_figures(result.report.to_dict()), _log(result.report))

    def _forward(self, path: str) -> Callable[..., Mapping[str, Any] | Future[Mapping[str, Any]]]:
        def forward(server_url: str, **values: Any) -> Mapping[str, Any] | Future[Mapping[str, Any]]:
            server = self._server(server_url)
            given = {name: value for name, value in values.items() if value is not None}
            if path in _LONG:  # the others answer while inferences keep every worker busy
                return self.watch.run(self.tasks, lambda: server.post(path, **given))
            return server.post(path, **given)

        return forward

    def _server(self, server_url: str, timeout_s: float = 3600.0) -> HEServer:
        url = HEServer(server_url or self._default, credentials=Credentials()).url
        if self._fixed and url != self._default:
            raise ParameterError(f"server_url: {url}; this HE-client works with {self._default} only")
        # A request may name any server: what proves who we are is for the operator's own choice alone.
        credentials = self._credentials if url == self._default else self._credentials.without_secrets()
        return PermittedServer(url, current_caller(), credentials, timeout_s)


def _plain(running: Running, server: HEServer, model: Model, rows: np.ndarray) -> Outcome:
    """The user says that the server may see the rows: they go there, under a name of their own, and are forgotten there at once.

    A stop here is one there.
    """
    inference_id = server.start_inference(model.model_type, rows, model.model_id, running.proceed)
    try:
        done = server.wait(inference_id, lambda _: running.proceed())
    except BaseException:
        with contextlib.suppress(HeError):  # it has ended, or the server is gone: what led here matters more
            server.stop_inference(inference_id)
        raise
    return Outcome(done.outputs, done.seconds, done.figures, f"NOT encrypted: {len(rows)} rows went to {server.url} in the clear")


def _log(report: Report) -> str:
    return (
        f"environment test passed; {report.rows} rows encrypted under {report.preset} by the {report.engine} engine: {report.rounds} "
        f"rounds, {report.bytes_up} bytes up, {report.bytes_down} down, at least {report.expected_bits:.1f} bits of precision"
    )
