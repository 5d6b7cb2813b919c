"""How inferences ended, where the database did not take it: kept in memory, shown, and written when the database works again."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Mapping

from he_backend.errors import EngineError
from he_backend.web.records import STARTED, Record, Records, now_us

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class End:
    """What is to be written of an inference that has ended, after how many rounds of how many, and when (microseconds, UTC)."""

    state: str
    figures: Mapping[str, Any]
    message: str
    rounds: tuple[int, int]
    end_us: int


class Ends:
    """The ends of one service's inferences on their way into `records`."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._left: OrderedDict[str, End] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, inference_id: str, state: str, figures: Mapping[str, Any], message: str, rounds: tuple[int, int]) -> None:
        """An inference has ended. What of it cannot be written now is written later."""
        with self._lock:
            self._left[inference_id] = End(state, figures, message, rounds, now_us())
        try:
            self.write()
        except EngineError as problem:
            _log.error("the end of an inference is not in the records yet: %s", problem, extra={"task_id": inference_id})

    def write(self) -> None:
        """Writes what is left; raises EngineError when the database still fails."""
        with self._lock:
            left = list(self._left.items())
        for inference_id, end in left:
            self._records.end(inference_id, end.state, end.figures, end.message, end.rounds, end.end_us)
            with self._lock:
                self._left.pop(inference_id, None)

    def settle(self) -> None:
        """Writes what is left, if the database takes it now."""
        with contextlib.suppress(EngineError):
            self.write()

    def shown(self, record: Record) -> Record:
        """The record as it will be once its end is written."""
        with self._lock:
            end = self._left.get(record.inference_id)
        if end is None or record.state != STARTED:
            return record
        done, total = end.rounds
        ended: Mapping[str, Any] = {"state": end.state, "figures": end.figures, "message": end.message, "end_us": end.end_us}
        return replace(record, **ended, rounds_done=done, rounds=total)
