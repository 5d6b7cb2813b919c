"""FATE 2.2's context, tables and models as the Channel, Tracker, Rows and artifacts of he_nn."""

from __future__ import annotations

import functools
import logging
from typing import Any, Mapping, Sequence

from he_backend.errors import ParameterError

from ..artifact import ModelArtifact
from ..params import EvalParams, InferenceParams, LoadParams
from ..roles import Tracker
from ..table import Rows, distinct, from_columns

logger = logging.getLogger("he_nn")

TEST_SET = "test_set"  # how FATE 2.2 marks predictions of a trained model


class FateChannel:
    """Objects of bytes over the task's federation, whatever carries it.

    A name keeps its queue where a message broker carries the objects, and making one takes several requests; so there is one name for each
    direction, and the objects are told apart by the index of their context, as FATE's own iterations are.
    """

    def __init__(self, context: Any, is_guest: bool) -> None:
        self._context, self._is_guest = context.sub_ctx("he_nn"), is_guest
        self._names = ("guest_to_host", "host_to_guest") if is_guest else ("host_to_guest", "guest_to_host")
        self._sent = self._received = 0

    def send(self, data: bytes) -> None:
        """Hands an object to the federation; FATE slices large ones itself."""
        self._peer(self._sent).put(self._names[0], data)
        self._sent += 1

    def receive(self) -> bytes:
        """The peer's next object."""
        data: bytes = self._peer(self._received).get(self._names[1])
        self._received += 1
        return data

    def notify(self, data: bytes) -> None:
        """Hands an object to every other party, if there is one; nobody waits for it to be read."""
        if self._has_peer():
            context = self._context.indexed_ctx(0)
            (context.hosts if self._is_guest else context.guest).put(self._names[0], data)

    def _peer(self, index: int) -> Any:
        """The other party, for the object of that number."""
        context = self._context.indexed_ctx(index)
        if not self._is_guest:
            return context.guest
        hosts = list(context.hosts) if self._has_peer() else []
        if len(hosts) != 1:
            raise ParameterError(f"the job has {len(hosts)} host parties; embedded mode takes one model owner")
        return hosts[0]

    def _has_peer(self) -> bool:
        return any(party.role == ("host" if self._is_guest else "guest") for party in self._context.parties)


class FateTracker:
    """Reports to the task's log and, live, to FATE Flow's metrics, where FATE-Board reads them.

    FATE-Board 2.x draws two things of a component that it does not know: a metric named `summary`, as a table with a line for each entry,
    and all metrics whose type contains `loss`, as one chart with the title Loss. Hence the type of `progress`: it is what a user wants to
    see while the task runs.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._steps = 0

    def log(self, text: str) -> None:
        """A line of the task's log."""
        logger.info(text)

    def progress(self, done: int, total: int) -> None:
        """A point of the curve `progress`, in percent."""
        percent = 100.0 * done / max(1, total)
        logger.info("%.0f%% done", percent)
        self._context.sub_ctx("progress").indexed_ctx(self._steps).metrics.log_loss("progress", percent)
        self._steps += 1

    def series(self, name: str, values: Sequence[float]) -> None:
        """A point for each step."""
        for index, value in enumerate(values):
            self._context.sub_ctx(name).indexed_ctx(index).metrics.log_scalar(name, float(value))

    def summary(self, values: Mapping[str, Any]) -> None:
        """The metric that FATE-Board draws as a table."""
        logger.info("summary: %s", dict(values))
        self._context.metrics.log_metrics(dict(values), name="summary", type="custom")


def load(ctx: Any, role: Any, values: Mapping[str, Any], output_model: Any) -> None:
    """he-nn-load for either role."""
    params = LoadParams.of(values)
    owner, channel = _owner(ctx, role)
    output_model.write(owner.load(channel, params).to_dict())


def evaluate(ctx: Any, role: Any, values: Mapping[str, Any], input_model: Any, output_model: Any) -> None:
    """he-nn-eval for either role."""
    params = EvalParams.of(values)
    owner, channel = _owner(ctx, role)
    given = (functools.partial(_artifact, input_model),) if role.is_guest else ()
    output_model.write(owner.evaluate(channel, params, *given).to_dict())


def infer(ctx: Any, role: Any, values: Mapping[str, Any], input_data: Any, input_model: Any, output_data: Any, output_model: Any) -> None:
    """he-nn-inference for either role; the guest's predictions become a table in FATE's own format."""
    params = InferenceParams.of(values)
    owner, channel = _owner(ctx, role)
    if not role.is_guest:
        output_model.write(owner.infer(channel, params).to_dict())
        return
    frame = None if input_data is None else input_data.read()
    table = None if frame is None else functools.partial(rows_of, frame)
    done = owner.infer(channel, params, table, functools.partial(_artifact, input_model))
    output_data.write(prediction_frame(ctx, done, frame))
    output_model.write(done.artifact.to_dict())


def rows_of(frame: Any) -> Rows:
    """The rows of a FATE data frame; its weight column, if any, is no feature."""
    schema = frame.schema
    table = frame.as_pd_df()
    features = {name: table[name].to_numpy() for name in distinct([str(name) for name in schema.columns])}
    labels = table[schema.label_name].to_numpy() if schema.label_name else None
    match_ids = table[schema.match_id_name].tolist() if schema.match_id_name else []
    return from_columns(table[schema.sample_id_name].tolist(), features, labels, match_ids)


def prediction_frame(ctx: Any, done: Any, frame: Any) -> Any:
    """Predictions as FATE 2.2's data frame: ids as they came, label, predict_score, predict_result, predict_detail, type.

    With as many partitions as the input, the same ids fall into the same ones, so that the rows keep their order.
    """
    import pandas
    from fate.arch.dataframe import PandasReader

    sample, match = "sample_id", "match_id"
    more: dict[str, Any] = {}
    rows, predicted = done.rows, done.predictions
    if frame is not None:
        sample, match = frame.schema.sample_id_name, frame.schema.match_id_name or "match_id"
        more["partition"] = frame.block_table.num_partitions
    columns: dict[str, Any] = {sample: list(rows.ids), match: list(rows.match_ids or rows.ids)}
    if rows.labels is not None:
        columns["label"] = rows.labels.tolist()
        more.update(label_name="label", label_type=str(rows.labels.dtype))
    columns.update(predict_score=predicted.score, predict_result=predicted.result, predict_detail=predicted.detail)
    columns["type"] = TEST_SET
    reader = PandasReader(sample_id_name=sample, match_id_name=match, dtype="object", **more)
    return reader.to_frame(ctx, pandas.DataFrame(columns))


def _owner(ctx: Any, role: Any) -> tuple[Any, FateChannel]:
    """The role's half, and its end of the channel. The host never imports the guest's half, where the secret key is."""
    tracker: Tracker = FateTracker(ctx)
    channel = FateChannel(ctx, role.is_guest)
    if role.is_guest:
        from ..guest import DataOwner

        return DataOwner(tracker), channel
    from he_backend.server.registry import Registry, default_root

    from ..host import ModelOwner

    return ModelOwner(lambda: Registry(default_root()), tracker), channel


def _artifact(input_model: Any) -> ModelArtifact | None:
    return None if input_model is None else ModelArtifact.of(input_model.read())
