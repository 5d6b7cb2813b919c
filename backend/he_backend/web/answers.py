"""The envelope of every answer, {code, data, message}, and the HTTP status of each error of the family."""

from __future__ import annotations

import logging
from typing import Any, Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from he_backend import errors
from he_backend.protocol.failures import failure_of
from he_backend.web.numbers import with_null

RETRY_AFTER_S = 5
_log = logging.getLogger(__name__)


class QueueFull(errors.CapacityError):
    """The service has as much work as it takes on: ask again later."""


class TooLarge(errors.InputError):
    """The request is larger than the service takes."""


class TooSlow(errors.InputError):
    """The request came too slowly."""


# The first class that fits gives the status.
_STATUS = (
    (QueueFull, 503),
    (TooLarge, 413),
    (TooSlow, 408),
    (errors.Unauthenticated, 401),
    (errors.NotPermitted, 403),
    (errors.NotFoundError, 404),
    (errors.ParameterError, 400),
    (errors.InputError, 400),
    (errors.ModelError, 400),
    (errors.CapacityError, 422),
    (errors.Cancelled, 409),
    (errors.TransportError, 502),
    (errors.ProtocolError, 502),
)

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER_S)}}


def answer(data: Mapping[str, Any], message: str = "success", code: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The envelope, with the HTTP status that equals its code."""
    envelope, more = {"code": code, "data": dict(data), "message": message}, dict(headers or {})
    try:
        return JSONResponse(envelope, status_code=code, headers=more)
    except ValueError:  # a figure that is no number
        return JSONResponse(with_null(envelope), status_code=code, headers=more)


def refusal(error: BaseException) -> JSONResponse:
    """The answer for an error: `data.error` names its kind, as between the two parties of the ciphertext channel."""
    code = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    failure = failure_of(error)
    message = failure.message
    if not isinstance(error, errors.HeError):
        _log.error("a request failed", exc_info=error)
        message = "an error inside the service, which its log describes; nothing was computed"
    return answer({"error": failure.kind}, message, code, _HEADERS.get(code))


def install(app: FastAPI) -> None:
    """Makes the app answer in the envelope whatever goes wrong, unknown paths included."""

    def known(_: Request, error: Exception) -> JSONResponse:
        return refusal(error)

    def http(request: Request, error: Exception) -> JSONResponse:
        code = getattr(error, "status_code", 500)
        texts = {404: f"there is no {request.url.path[:80]} here; see /docs", 405: "the method is not allowed here; POST is, see /docs"}
        text = texts.get(code, str(getattr(error, "detail", "the request is wrong"))[:500])
        return answer({"error": "http"}, text, code, getattr(error, "headers", None))

    app.add_exception_handler(errors.HeError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, known)
