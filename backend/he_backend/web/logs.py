"""Logs of the services: plain text, or one JSON object a line, both with the fields a line is about (task_id, caller, path, …).

An exception is logged by its class and where it happened. Its text is logged only for errors of our own family: the text of any other may
hold a value of a user's.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import datetime, timezone
from typing import Any

from he_backend.errors import HeError, ParameterError

FORMATS, LEVELS = ("text", "json"), ("debug", "info", "warning", "error")
FIELDS = ("task_id", "caller", "model", "segment", "rows", "state", "path", "status", "seconds", "bytes_in", "bytes_out", "peer")
_MOST_CHARACTERS = 4000


class _Formatter(logging.Formatter):
    """One record as its parts."""

    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Time, level, logger, message, then the fields and the exception, where there are any."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _clean(record.getMessage()),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value not in (None, ""):
                found[name] = value if isinstance(value, (int, float)) else _clean(str(value))
        if record.exc_info and record.exc_info[1] is not None:
            found["exception"] = _exception(record.exc_info[1])
        return found


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(self.parts(record), ensure_ascii=False)


class TextFormatter(_Formatter):
    """Time, level, logger and message, then field=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and those of an exception."""
        parts = self.parts(record)
        exception = parts.pop("exception", "")
        head = " ".join(str(parts.pop(name)) for name in ("time", "level", "logger", "message"))
        fields = "".join(f" {name}={value}" for name, value in parts.items())
        return f"{head}{fields}" + (f"\n{exception}" if exception else "")


def configure(kind: str = "text", level: str = "warning") -> None:
    """Sends what every module logs from `level` up to standard error. Raises ParameterError."""
    if kind not in FORMATS or level not in LEVELS:
        raise ParameterError(f"log: {kind!r} from {level!r} up; allowed: {', '.join(FORMATS)}; {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other libraries' chatter is theirs
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each damaged form, which is answered with 400 anyway
    for name in ("he_backend", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())


def _exception(error: BaseException) -> str:
    where = "".join(traceback.format_tb(error.__traceback__))
    text = f": {_clean(str(error))}" if isinstance(error, HeError) else ""
    return f"{where}{type(error).__module__}.{type(error).__name__}{text}"


def _clean(text: str) -> str:
    """No line breaks and no control characters: a line of the log is one line, whatever a peer sent."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= _MOST_CHARACTERS else f"{clean[: _MOST_CHARACTERS - 1]}…"
