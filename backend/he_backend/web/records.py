"""Records of inferences in a database: what was asked, where it stands, what it cost. Never a row, never a prediction."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator, List, Mapping

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from he_backend.database import cause, open_database
from he_backend.errors import EngineError, NotFoundError, ParameterError

STARTED, FINISHED, FAILED, STOPPED = "started", "finished", "failed", "stopped"
MOST_LISTED = 1000
_MOST_MESSAGE = 2000
INTERRUPTED = "the service ended while this inference ran; start it again"

_METADATA = sa.MetaData()
_TASKS = sa.Table(
    "he_nn_inferences",
    _METADATA,
    sa.Column("inference_id", sa.String(36), primary_key=True),
    sa.Column("service", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("start_us", sa.BigInteger, nullable=False),  # microseconds since 1970, UTC
    sa.Column("end_us", sa.BigInteger),
    sa.Column("what", sa.Text, nullable=False),  # JSON: model, file name, size, parameters
    sa.Column("figures", sa.Text, nullable=False),  # JSON
    sa.Column("message", sa.String(_MOST_MESSAGE), nullable=False),
)


@dataclass(frozen=True)
class Record:
    """One inference. `what` was asked for; `figures` are what it cost."""

    inference_id: str
    state: str
    start_us: int
    end_us: int | None
    what: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as the API shows it; times are UTC."""
        ended = _time(self.end_us)
        return {
            "inference_id": self.inference_id,
            "state": self.state,
            "start_time": _time(self.start_us),
            "finish_time": ended if self.state in (FINISHED, FAILED) else "",
            "stop_time": ended if self.state == STOPPED else "",
            **self.what,
            "figures": dict(self.figures),
            "message": self.message,
        }


RecordList = List[Record]


class Records:
    """The inferences of one service ("server" or "client"). Opening them marks as failed what an earlier process left unfinished.

    A database belongs to one process of each service. Raises ParameterError when it cannot be opened; methods raise EngineError.
    """

    def __init__(self, url: str, service: str) -> None:
        self._engine, self._service = open_database(url, _METADATA, "the task database's"), service
        self._update(_TASKS.c.state == STARTED, FAILED, {}, INTERRUPTED)

    def start(self, inference_id: str, what: Mapping[str, Any]) -> None:
        """A new record."""
        values = {"inference_id": inference_id, "service": self._service, "state": STARTED, "start_us": _now_us(), "message": ""}
        with self._transaction() as connection:
            connection.execute(sa.insert(_TASKS).values(**values, what=json.dumps(dict(what)), figures="{}"))

    def end(self, inference_id: str, state: str, figures: Mapping[str, Any], message: str = "") -> None:
        """Writes how it ended, unless that is written already."""
        self._update((_TASKS.c.inference_id == inference_id) & (_TASKS.c.state == STARTED), state, figures, message)

    def get(self, inference_id: str) -> Record:
        """One record; raises NotFoundError."""
        found = self._select(_TASKS.c.inference_id == inference_id)
        if not found:
            raise NotFoundError(f"inference_id: there is no inference {inference_id[:80]!r}; leave it out to list them all")
        return found[0]

    def list(self) -> RecordList:
        """The newest records, newest first."""
        return self._select(sa.true())

    def close(self) -> None:
        """Gives up the database's connections."""
        self._engine.dispose()

    def _select(self, condition: Any) -> RecordList:
        query = sa.select(_TASKS).where(condition & (_TASKS.c.service == self._service))
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(_TASKS.c.start_us.desc()).limit(MOST_LISTED)).mappings().all()
        return [
            Record(
                row["inference_id"],
                row["state"],
                row["start_us"],
                row["end_us"],
                json.loads(row["what"]),
                json.loads(row["figures"]),
                row["message"],
            )
            for row in rows
        ]

    def _update(self, condition: Any, state: str, figures: Mapping[str, Any], message: str) -> None:
        values = {"state": state, "end_us": _now_us(), "figures": json.dumps(dict(figures)), "message": message[:_MOST_MESSAGE]}
        with self._transaction() as connection:
            connection.execute(sa.update(_TASKS).where(condition & (_TASKS.c.service == self._service)).values(**values))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.engine.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as problem:
            raise EngineError(f"the task database failed: {cause(problem)}") from None


def default_database(service: str) -> str:
    """SQLite in $HE_NN_HOME (or ~/.he_nn), readable by its owner only."""
    home = os.environ.get("HE_NN_HOME")
    folder = Path(home).expanduser() if home else Path.home() / ".he_nn"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder.absolute() / f"{service}-tasks.sqlite"
        path.touch(mode=0o600)
    except OSError as problem:
        raise ParameterError(f"the folder {folder} cannot be used for the task database: {problem.strerror}") from None
    return f"sqlite:///{path}"


def _time(microseconds: int | None) -> str:
    if microseconds is None:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _now_us() -> int:
    return int(datetime.now(timezone.utc).timestamp() * 1e6)
