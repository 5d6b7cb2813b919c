"""What the runners have in common: FATE's calls around one task of a role."""

from __future__ import annotations

import traceback
from typing import Any, ClassVar

from federatedml.model_base import ComponentOutput, ModelBase
from federatedml.util import LOGGER

from he_backend.errors import EngineError, HeError, ParameterError

from ..artifact import ModelArtifact
from .channel import FateChannel
from .models import export_model, read_model
from .params import HeNNParam
from .tracker import FateTracker


class HeNNRunner(ModelBase):
    """One component of one role. `run` is FATE's entry; `work` is what the role does.

    ModelBase.run would look our protobuf classes up where they are not, and raise for a component without data (he-nn-load), so it is not
    used. An error leaves with its own words or, where it is none of ours, without any: its text reaches the other party's screen.
    """

    module: ClassVar[str] = ""
    param: ClassVar[type[HeNNParam]] = HeNNParam
    is_guest: ClassVar[bool] = False
    takes_table: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.model_param = self.param()

    def work(self, cpn_input: Any, channel: FateChannel, tracker: FateTracker) -> ModelArtifact:
        """Does the task; gives the model artifact that the component puts out."""
        raise NotImplementedError

    def run(self, cpn_input: Any, retry: bool = True) -> Any:
        """What the component puts out: table, model and summary."""
        self.task_version_id = cpn_input.task_version_id
        self.tracker = cpn_input.tracker
        self.checkpoint_manager = cpn_input.checkpoint_manager
        self.model_param.update(cpn_input.parameters)
        self.model_param.check()
        if not self.takes_table and tables_of(cpn_input):
            raise ParameterError(f"input.data: {self.module} takes no table; only HeNNInference does. Take it out of the dsl")
        self.component_properties.parse_component_param(cpn_input.roles, self.model_param)
        self.role = self.component_properties.role
        channel = FateChannel(self.is_guest, self.component_properties.host_party_idlist)
        try:
            self.model_output = export_model(self.module, self.work(cpn_input, channel, FateTracker(self)))
        except HeError as error:
            error.__cause__, error.__suppress_context__ = None, True  # FATE reports the whole chain
            LOGGER.error(str(error))
            channel.part()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, its text may hold what another party must not see
            where = traceback.extract_tb(error.__traceback__)[-1]
            LOGGER.error(f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
            place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
            channel.part()
            text = f"{self.module}: {type(error).__name__} at {place}; the log of this party's task shows the way there"
            raise EngineError(text) from None
        self.save_summary()
        return ComponentOutput(self.save_data(), self._export(), self.save_cache())


def artifact_of(cpn_input: Any) -> ModelArtifact | None:
    """The component's input model."""
    return read_model(cpn_input.models or {})


def table_of(cpn_input: Any) -> Any:
    """The component's input table, None where there is none. Raises ParameterError for several."""
    tables = tables_of(cpn_input)
    if len(tables) > 1:
        raise ParameterError(f"input.data: {len(tables)} tables; allowed: one")
    return tables[0] if tables else None


def tables_of(cpn_input: Any) -> list[Any]:
    """All input tables of a component."""
    tables: list[Any] = []
    for by_kind in (cpn_input.datasets or {}).values():
        for one in by_kind.values():
            tables += [table for table in (one if isinstance(one, list) else [one]) if table is not None]
    return tables
