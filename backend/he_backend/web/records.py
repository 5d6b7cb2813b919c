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
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.exc import SQLAlchemyError

from he_backend.database import add_column, cause, open_database
from he_backend.errors import EngineError, NotFoundError, ParameterError

STARTED, FINISHED, FAILED, STOPPED = "started", "finished", "failed", "stopped"
MOST_LISTED = 1000
CALLER = "caller"  # among what was asked: whose inference it is
_MOST_MESSAGE = 2000
_PROGRESS = "rounds_done_of"  # among the stored figures: [rounds done, rounds]
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
    sa.Column("figures", sa.Text().with_variant(MEDIUMTEXT(), "mysql"), nullable=False),  # JSON; MySQL's own TEXT ends at 64 KiB
    sa.Column("message", sa.String(_MOST_MESSAGE), nullable=False),
    sa.Column("caller", sa.String(100)),  # the name in `what`; empty in records of earlier versions until they are looked through
    sa.Index("he_nn_inferences_newest", "service", "start_us"),
)
_OF_CALLER = sa.Index("he_nn_inferences_of_caller", _TASKS.c.service, _TASKS.c.caller, _TASKS.c.start_us)
_AT_ONCE = 1000


@dataclass(frozen=True)
class Record:
    """One inference. `what` was asked for; `figures` are what it cost; rounds are counted over all chunks of rows."""

    inference_id: str
    state: str
    start_us: int
    end_us: int | None
    what: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    rounds_done: int = 0
    rounds: int = 0

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
            "rounds_done": self.rounds_done,
            "rounds": self.rounds,
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
        with self._told():
            add_column(self._engine, _TASKS.c.caller, _OF_CALLER)
        self._name_callers()
        self._update(_TASKS.c.state == STARTED, FAILED, None, INTERRUPTED)

    def start(self, inference_id: str, what: Mapping[str, Any]) -> None:
        """A new record."""
        values = {"inference_id": inference_id, "service": self._service, "state": STARTED, "start_us": now_us(), "message": ""}
        with self._transaction() as connection:
            connection.execute(sa.insert(_TASKS).values(**values, what=json.dumps(dict(what)), caller=_caller(what), figures="{}"))

    def progress(self, inference_id: str, done: int, total: int) -> None:
        """Notes how many rounds are done of how many, so that a restarted service can tell."""
        values = {"figures": json.dumps({_PROGRESS: [done, total]})}
        condition = (_TASKS.c.inference_id == inference_id) & (_TASKS.c.state == STARTED)
        with self._transaction() as connection:
            connection.execute(sa.update(_TASKS).where(condition).values(**values))

    def end(
        self,
        inference_id: str,
        state: str,
        figures: Mapping[str, Any],
        message: str = "",
        rounds: tuple[int, int] = (0, 0),
        end_us: int | None = None,
    ) -> None:
        """Writes how it ended, after how many rounds of how many and when (None: now), unless that is written already."""
        condition = (_TASKS.c.inference_id == inference_id) & (_TASKS.c.state == STARTED)
        self._update(condition, state, {**figures, _PROGRESS: list(rounds)}, message, end_us)

    def get(self, inference_id: str) -> Record:
        """One record; raises NotFoundError."""
        found = self._select(_TASKS.c.inference_id == inference_id)
        if not found:
            raise NotFoundError(f"inference_id: there is no inference {inference_id[:80]!r}; leave it out to list them all")
        return found[0]

    def list(self, most: int = MOST_LISTED, caller: str | None = None) -> RecordList:
        """The newest `most` records, newest first: all of them, or those of a caller."""
        return self._select(sa.true() if caller is None else _TASKS.c.caller == caller, most)

    def close(self) -> None:
        """Gives up the database's connections."""
        self._engine.dispose()

    def _name_callers(self) -> None:
        """Fills in whose the records of earlier versions are."""
        unnamed = sa.select(_TASKS.c.inference_id, _TASKS.c.what).where(_TASKS.c.caller.is_(None) & (_TASKS.c.service == self._service))
        naming = sa.update(_TASKS).where(_TASKS.c.inference_id == sa.bindparam("of")).values(caller=sa.bindparam("name"))
        while True:
            with self._transaction() as connection:
                rows = connection.execute(unnamed.limit(_AT_ONCE)).all()
                if not rows:
                    return
                connection.execute(naming, [{"of": row[0], "name": _caller(json.loads(row[1]))} for row in rows])

    def _select(self, condition: Any, most: int = 1) -> RecordList:
        query = sa.select(_TASKS).where(condition & (_TASKS.c.service == self._service))
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(_TASKS.c.start_us.desc()).limit(most)).mappings().all()
        return [_record(row) for row in rows]

    def _update(self, condition: Any, state: str, figures: Mapping[str, Any] | None, message: str, end_us: int | None = None) -> None:
        values: dict[str, Any] = {"state": state, "end_us": now_us() if end_us is None else end_us, "message": message[:_MOST_MESSAGE]}
        if figures is not None:  # otherwise what was noted of the progress stays
            values["figures"] = json.dumps(dict(figures))
        with self._transaction() as connection:
            connection.execute(sa.update(_TASKS).where(condition & (_TASKS.c.service == self._service)).values(**values))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.engine.Connection]:
        with self._told(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
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


def _record(row: Mapping[Any, Any]) -> Record:
    figures = json.loads(row["figures"])
    done, total = figures.pop(_PROGRESS, (0, 0))
    ends, what = (row["start_us"], row["end_us"]), json.loads(row["what"])
    return Record(row["inference_id"], row["state"], *ends, what, figures, row["message"], done, total)


def _caller(what: Mapping[str, Any]) -> str:
    return str(what.get(CALLER, ""))[:100]


def _time(microseconds: int | None) -> str:
    if microseconds is None:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def now_us() -> int:
    """Microseconds since 1970, UTC."""
    return int(datetime.now(timezone.utc).timestamp() * 1e6)
