"""Opens a database by URL so that its tables exist; SQLite is set up for several processes and threads."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from he_backend.errors import ParameterError

_BUSY_TIMEOUT_S = 30
_HIDDEN = "***"
# Query parameters of a URL that hold a secret: password, passwd, sslpassword, PWD, oauth_client_secret, a whole odbc_connect, …
_SECRETS = ("passw", "pwd", "secret", "token", "odbc_connect")
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}  # where the URL names none


def open_database(url: str, metadata: sa.MetaData, what: str) -> sa.engine.Engine:
    """An engine whose tables exist. `what` names the database in errors, such as "the registry's database".

    Raises ParameterError when the URL is none, its driver is not installed, or the database cannot be opened.
    """
    try:
        parsed = sa.engine.make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        if parsed.get_backend_name() == "sqlite":
            # Several processes: wait for a writer instead of failing; no pool, so that nothing is shared over a fork.
            engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_S}, poolclass=NullPool)
        else:
            engine = sa.create_engine(parsed, pool_pre_ping=True)
    except (NoSuchModuleError, ImportError) as problem:
        advice = "pip install 'he-nn[postgresql]' or 'he-nn[mysql]'"
        raise ParameterError(f"{what} url needs a driver that is not installed: {problem}; {advice}") from None
    except (ArgumentError, ValueError):
        # Its text may hold the url, and with it a password.
        raise ParameterError(f"{what} url is not one: write dialect://user:password@host/database") from None
    try:
        _create_tables(engine, metadata)
    except SQLAlchemyError as problem:
        raise ParameterError(f"{what} {_shown(parsed)} cannot be opened: {_without_secrets(cause(problem), parsed)}") from None
    return engine


def shown_url(url: str) -> str:
    """The URL without its secrets; of a text that is no URL nothing, for it may be a password."""
    try:
        return _shown(sa.engine.make_url(url))
    except (ArgumentError, ValueError):
        return _HIDDEN


def _shown(url: sa.engine.URL) -> str:
    query = {name: _HIDDEN if _is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace(quote_plus(_HIDDEN), _HIDDEN)


def _is_secret(name: str) -> bool:
    return any(part in name.lower() for part in _SECRETS)


def _without_secrets(text: str, url: sa.engine.URL) -> str:
    """A driver's words, in case they repeat what it was given."""
    secrets = [str(url.password)] if url.password else []
    for name, value in url.query.items():
        if _is_secret(name):
            secrets += [value] if isinstance(value, str) else list(value)
    for secret in filter(None, secrets):
        text = text.replace(secret, _HIDDEN)
    return text


def add_column(engine: sa.engine.Engine, column: sa.Column[Any], index: sa.Index) -> None:
    """Gives a table that an earlier version made a column that may be empty, and its index. Raises SQLAlchemyError."""

    def is_there() -> bool:
        return column.name in {one["name"] for one in sa.inspect(engine).get_columns(column.table.name)}

    if is_there():
        return
    kind = column.type.compile(engine.dialect)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))
            index.create(connection)
    except SQLAlchemyError:
        if not is_there():  # another process may have been first
            raise


def cause(problem: Exception) -> str:
    """The database's own words, without the statement and its values."""
    return str(getattr(problem, "orig", None) or problem).split("\n")[0][:300]


def _create_tables(engine: sa.engine.Engine, metadata: sa.MetaData) -> None:
    try:
        metadata.create_all(engine)
    except SQLAlchemyError:
        inspector = sa.inspect(engine)
        if not all(inspector.has_table(name) for name in metadata.tables):  # another process may have been first
            raise
