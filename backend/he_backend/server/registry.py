"""The models that a server has: records in a database, ONNX files (and test sets) beside it under generated names.

A model's name and type come from users and other parties; file names come from the id alone, so no name can point elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator, List, Mapping

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from he_backend.database import cause, open_database
from he_backend.errors import EngineError, ModelError, NotFoundError, ParameterError
from he_backend.server.model_files import Source, TestSet, pack_test_set, read_source, rename, unlink, unpack_test_set, write_temporary

LATEST = "latest"
ALL = "all"
TYPES = ("MLP", "CNN", "AlexNet", "RNN", "BERT")
_SPELLINGS = {**{name.lower(): name for name in TYPES}, "cryptonets": "CNN"}
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_NAME_CHARACTERS, _OWNER_CHARACTERS, _META_BYTES = 6, 200, 1 << 16
_SHOWN = 10

_METADATA = sa.MetaData()
_MODELS = sa.Table(
    "he_nn_models",
    _METADATA,
    sa.Column("model_id", sa.String(36), primary_key=True),
    sa.Column("model_name", sa.String(64), nullable=False, unique=True),
    sa.Column("model_type", sa.String(32), nullable=False),
    sa.Column("has_test", sa.Boolean, nullable=False),
    sa.Column("test_acc", sa.Float),
    sa.Column("owner", sa.String(_OWNER_CHARACTERS), nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),  # microseconds since 1970, UTC: databases differ on fractions and zones
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("meta", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class ModelRecord:
    """One registered model. `test_path` is an .npz of arrays x [rows, ...] and y [rows]; `sha256` is that of the ONNX file."""

    model_id: str
    model_name: str
    model_type: str
    path: Path
    test_path: Path | None
    test_acc: float | None
    owner: str
    created: datetime
    sha256: str
    meta: Mapping[str, Any] = field(default_factory=dict)


Records = List[ModelRecord]


def default_root() -> Path:
    """$HE_NN_HOME/models, or ~/.he_nn/models."""
    home = os.environ.get("HE_NN_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".he_nn") / "models"


def canonical_type(model_type: str) -> str:
    """A model type as it is stored: known ones in their usual spelling (cryptonets -> CNN). Raises ParameterError for what is none."""
    if not isinstance(model_type, str) or not _TYPE.fullmatch(model_type) or model_type.lower() == ALL:
        shown = repr(str(model_type)[:40])
        raise ParameterError(
            f"model_type is {shown}; allowed are {', '.join(TYPES)} or a name of your own of up to 32 letters, digits, - and _"
        )
    return _SPELLINGS.get(model_type.lower(), model_type)


class Registry:
    """The models under `root`, made when it is missing. `url` names another database (SQLAlchemy form); files stay under `root`.

    Several processes may use one registry at the same time. Raises ParameterError when the folder or database cannot be opened; every
    method raises EngineError when the database fails.
    """

    def __init__(self, root: str | os.PathLike[str], url: str | None = None) -> None:
        self.root = Path(root).expanduser().absolute()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as problem:
            raise ParameterError(f"the model folder {self.root} cannot be made: {problem.strerror}") from None
        self._engine = open_database(url or f"sqlite:///{self.root / 'registry.sqlite'}", _METADATA, "the registry's database")

    def close(self) -> None:
        """Gives up the database's connections."""
        self._engine.dispose()

    def add(
        self,
        model: Source,
        model_type: str,
        *,
        test: TestSet | None = None,
        test_acc: float | None = None,
        owner: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> ModelRecord:
        """The record of a new model from ONNX bytes or a path; `test` is a path or bytes of an .npz, or (x, y).

        All or nothing: when anything is refused, neither files nor a record stay behind. The bytes are stored as they are; import them
        first to know that they run.
        """
        model_bytes, test_bytes = read_source(model, "model"), None if test is None else pack_test_set(test)
        values = {
            "model_type": canonical_type(model_type),
            "has_test": test_bytes is not None,
            "test_acc": _accuracy(test_acc),
            "owner": _owner(owner),
            "sha256": hashlib.sha256(model_bytes).hexdigest(),
            "meta": _meta(meta),
        }
        for attempt in range(5):  # a name has 24 random bits
            model_id = str(uuid.uuid4())
            name = model_id[:_NAME_CHARACTERS] + str(values["model_type"])
            row = {**values, "model_id": model_id, "model_name": name, "created_us": _now_us()}
            try:
                self._store(row, model_bytes, test_bytes)
            except IntegrityError as problem:
                if attempt == 4:
                    raise EngineError(f"the model registry has no free name for a new model: {problem.orig}") from None
            else:
                return self._record(row)
        raise AssertionError("unreachable")

    def add_again(self, model_type: str, otherwise: str = "") -> ModelRecord:
        """A new record, with an id and name of its own, of the newest model of a type: the same file and test set.

        Raises NotFoundError, which starts with `otherwise`, when none of that type is registered; ParameterError for what is
        no type, such as all.
        """
        model_type = canonical_type(model_type)
        try:
            first = self.get(LATEST, model_type)
        except NotFoundError:
            known = f"{otherwise}; nor is one of that type registered" if otherwise else f"no model of type {model_type} is registered"
            raise NotFoundError(f"{known}: he-nn model add FILE --type {model_type}") from None
        test = None if first.test_path is None else self.test_set(first)
        meta = {**first.meta, "copy_of": first.model_id}
        return self.add(self.model_bytes(first), first.model_type, test=test, test_acc=first.test_acc, owner=first.owner, meta=meta)

    def get(self, name_or_id: str = LATEST, model_type: str | None = None) -> ModelRecord:
        """The model of that name or id (or of the only one that starts so), or the newest ('latest'); raises NotFoundError."""
        wanted = (name_or_id or LATEST).strip().lower()
        of_type = self.list(model_type or "")
        if wanted == LATEST:
            if of_type:
                return of_type[-1]
            raise NotFoundError(f"there is no model{_of(model_type)} yet; {self._what_there_is()}")
        exact = [one for one in of_type if wanted in (one.model_id, one.model_name.lower())]
        found = exact or [one for one in of_type if one.model_id.startswith(wanted) or one.model_name.lower().startswith(wanted)]
        shown = repr(wanted[:80])
        if not found:
            raise NotFoundError(f"there is no model {shown}{_of(model_type)}; {self._what_there_is()}")
        if len(found) > 1:
            raise NotFoundError(f"several models start with {shown}, give more of the name or id: {_names(found)}")
        return found[0]

    def list(self, model_type: str = "") -> Records:
        """The records of a type, oldest first; of all types for 'all' or ''."""
        query = sa.select(_MODELS).order_by(_MODELS.c.created_us, _MODELS.c.model_id)
        if model_type and model_type.lower() != ALL:
            query = query.where(sa.func.lower(_MODELS.c.model_type) == canonical_type(model_type).lower())
        with self._transaction() as connection:
            return [self._record(dict(row)) for row in connection.execute(query).mappings()]

    def set_accuracy(self, name_or_id: str, test_acc: float) -> ModelRecord:
        """The record with its new accuracy (0 to 1)."""
        record, accuracy = self.get(name_or_id), _accuracy(test_acc)
        with self._transaction() as connection:
            change = sa.update(_MODELS).where(_MODELS.c.model_id == record.model_id).values(test_acc=accuracy)
            connection.execute(change)
        return self.get(record.model_id)

    def remove(self, name_or_id: str) -> ModelRecord:
        """The record of the model that was removed, with its files."""
        record = self.get(name_or_id)
        with self._transaction() as connection:
            connection.execute(sa.delete(_MODELS).where(_MODELS.c.model_id == record.model_id))
        unlink(record.path, self._test_path(record.model_id))
        return record

    def model_bytes(self, record: ModelRecord) -> bytes:
        """The ONNX file of a record; raises NotFoundError when it is gone, ModelError when it is not the one that was registered."""
        data = self._read(record, record.path)
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise ModelError(f"the file of model {record.model_name} has changed since it was registered: register it again")
        return data

    def test_set(self, record: ModelRecord) -> tuple[np.ndarray, np.ndarray]:
        """Arrays (x, y) of a record's test set; raises NotFoundError when it has none."""
        if record.test_path is None:
            raise NotFoundError(f"model {record.model_name} was registered without a test set")
        return unpack_test_set(self._read(record, record.test_path))

    def _store(self, row: Mapping[str, Any], model: bytes, test: bytes | None) -> None:
        """Files first under temporary names; they get theirs when the database has accepted the row and before others can see it."""
        finals = [(self._model_path(row["model_id"]), model)]
        if test is not None:
            finals.append((self._test_path(row["model_id"]), test))
        with contextlib.ExitStack() as undo:
            pairs = []
            for path, data in finals:
                temporary = write_temporary(self.root, data)
                undo.callback(unlink, temporary)
                pairs.append((temporary, path))
            with self._transaction() as connection:
                connection.execute(sa.insert(_MODELS).values(**row))
                for temporary, path in pairs:
                    rename(temporary, path)
                    undo.callback(unlink, path)
            undo.pop_all()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.engine.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as problem:
            raise EngineError(f"the model registry's database failed: {cause(problem)}") from None

    def _record(self, row: Mapping[str, Any]) -> ModelRecord:
        model_id = row["model_id"]
        return ModelRecord(
            model_id=model_id,
            model_name=row["model_name"],
            model_type=row["model_type"],
            path=self._model_path(model_id),
            test_path=self._test_path(model_id) if row["has_test"] else None,
            test_acc=row["test_acc"],
            owner=row["owner"],
            created=datetime.fromtimestamp(row["created_us"] // 10**6, timezone.utc).replace(microsecond=row["created_us"] % 10**6),
            sha256=row["sha256"],
            meta=json.loads(row["meta"]),
        )

    def _model_path(self, model_id: str) -> Path:
        return self.root / f"{model_id}.onnx"

    def _test_path(self, model_id: str) -> Path:
        return self.root / f"{model_id}.npz"

    def _read(self, record: ModelRecord, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as problem:
            raise NotFoundError(
                f"the file {path.name} of model {record.model_name} cannot be read ({problem.strerror}): "
                "put it back, or remove the model and register it again"
            ) from None

    def _what_there_is(self) -> str:
        records = self.list()
        return f"registered are {_names(records)}" if records else "none is registered"


def _accuracy(value: float | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise ParameterError(f"test_acc is {value!r}, allowed are 0 to 1")
    return number


def _owner(owner: str) -> str:
    if not isinstance(owner, str) or len(owner) > _OWNER_CHARACTERS or not owner.isprintable():
        raise ParameterError(f"owner must be a printable text of at most {_OWNER_CHARACTERS} characters")
    return owner


def _meta(meta: Mapping[str, Any] | None) -> str:
    try:
        values: dict[str, Any] = dict(meta or {})
        text = json.dumps(values, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise ParameterError("meta must be a mapping that JSON can hold") from None
    if len(text) > _META_BYTES:
        raise ParameterError(f"meta has {len(text)} bytes as JSON, at most {_META_BYTES} are allowed")
    return text


def _now_us() -> int:
    now = datetime.now(timezone.utc)
    return int(now.timestamp()) * 10**6 + now.microsecond


def _of(model_type: str | None) -> str:
    return f" of type {canonical_type(model_type)}" if model_type and model_type.lower() != ALL else ""


def _names(records: Records) -> str:
    names = [one.model_name for one in records[-_SHOWN:]]
    more = len(records) - len(names)
    return ", ".join(names) + (f" and {more} older ones" if more else "")
