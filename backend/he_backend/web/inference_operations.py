"""The operations that both services have: upload a file, infer with it, list inferences, stop one."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Callable, Mapping, Sequence, Union

from he_backend.errors import Cancelled
from he_backend.web import model_fields as fields
from he_backend.web.app import Operation
from he_backend.web.fields import Field
from he_backend.web.tasks import Outcome, Running, Tasks
from he_backend.web.uploads import Uploads
from he_backend.web.watch import TaskWatch, seen, stop_seen

_OVERHEAD_BYTES = 1 << 16  # of multipart around a file
Started = Union[Mapping[str, Any], "Future[Mapping[str, Any]]"]


class InferenceOperations:
    """Uploads and tasks of one service. `infer` gets the fields of /model/inference and starts one with `self.start`."""

    def __init__(self, tasks: Tasks, uploads: Uploads, watch: TaskWatch) -> None:
        self.tasks, self.uploads, self.watch = tasks, uploads, watch

    def start(self, what: Mapping[str, Any], work: Callable[[Running], Outcome], wait: bool) -> Started:
        """Starts an inference; the answer when it has ended, or at once."""
        inference_id, outcome = self.watch.start(self.tasks, what, work)
        if not wait:
            return {"inference_id": inference_id, "state": "started", **what}
        result: Future[Mapping[str, Any]] = Future()

        def done(ended: Future[Outcome]) -> None:
            stopped = Cancelled(f"inference {inference_id} was stopped while it waited for its turn")
            problem = stopped if ended.cancelled() else ended.exception()
            if problem is not None:
                result.set_exception(problem)
            else:
                result.set_result(fields.inference_answer(inference_id, what, ended.result()))

        outcome.add_done_callback(done)
        return result

    def operations(
        self, infer: Callable[..., Started], about: str, table: Sequence[Field] = fields.INFERENCE, only_these: bool = False
    ) -> list[Operation]:
        """The operations; `table` has the fields of /model/inference, and with `only_these` others are refused there."""
        most = self.uploads.most_bytes + _OVERHEAD_BYTES
        return [
            Operation("/model/uploadfile", "Upload an .npy file; it is kept in memory only.", fields.UPLOAD, self._upload, most),
            Operation("/model/deletefile", "Forget an uploaded file.", fields.DELETE_FILE, self._delete),
            Operation("/model/inference", about, table, infer, only_these=only_these),
            Operation("/model/get_inference", "One inference or all, with state and progress.", fields.GET_INFERENCE, self._get),
            Operation("/model/stop_inference", "Stop an inference.", fields.STOP, self._stop),
        ]

    def _upload(self, data: bytes, file_name: str) -> dict[str, Any]:
        return {"file_upload": "success", "inf_file_name": self.uploads.add(file_name, data)}

    def _delete(self, inf_file_name: str) -> dict[str, Any]:
        self.uploads.remove(inf_file_name)
        return {"file_delete": "success", "inf_file_name": inf_file_name}

    def _get(self, inference_id: str, limit: int) -> dict[str, Any]:
        found = seen(self.tasks, inference_id, limit)
        return fields.list_answer("inference_list", [fields.record_answer(record) for record in found])

    def _stop(self, inference_id: str) -> dict[str, Any]:
        stop_seen(self.tasks, inference_id)
        return {"inference_id": inference_id, "stop": "success"}
