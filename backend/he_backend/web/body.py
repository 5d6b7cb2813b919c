"""The body of a request in memory: JSON, a form or multipart, never larger than allowed and never in a temporary file."""

from __future__ import annotations

import json
from typing import Any, AsyncGenerator
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from he_backend.errors import InputError, ParameterError
from he_backend.web.answers import TooLarge

MOST_FIELD_BYTES = 1 << 20
_MOST_FIELDS = 64


class _InMemory(MultiPartParser):
    """Starlette's parser writes what is over 1 MB into temporary files; rows of a user must not touch the disk."""

    spool_max_size = max_file_size = 1 << 40  # the stream is bounded already


async def read_values(request: Request) -> dict[str, Any]:
    """The fields of a JSON object or a form. Raises ParameterError, TooLarge."""
    if _is_multipart(request):
        form, _ = await _multipart(request, MOST_FIELD_BYTES)
        return form
    body = b"".join([part async for part in _bounded(request, MOST_FIELD_BYTES)]).strip()
    if not body:
        return dict(request.query_params)
    if body[:1] == b"{" or "json" in request.headers.get("content-type", ""):
        return _json(body)
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise ParameterError("the body is neither a JSON object nor a form") from None


async def read_upload(request: Request, most_bytes: int) -> tuple[dict[str, Any], bytes]:
    """The fields and the file of a multipart request. Raises InputError, TooLarge."""
    if not _is_multipart(request):
        raise InputError("the file is expected as multipart form data, such as: curl -F file=@rows.npy -F file_name=rows.npy")
    values, files = await _multipart(request, most_bytes)
    if len(files) != 1:
        raise InputError(f"{len(files)} files came, one is expected, such as: curl -F file=@rows.npy -F file_name=rows.npy")
    name, data = files[0]
    return {"file_name": name, **values}, data


def _is_multipart(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


async def _multipart(request: Request, most_bytes: int) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    try:
        form = await _InMemory(request.headers, _bounded(request, most_bytes), max_files=2, max_fields=_MOST_FIELDS).parse()
    except TooLarge:
        raise
    except (MultiPartException, KeyError, ValueError):  # KeyError: no boundary; ValueError: what older parsers raise, and wrong UTF-8
        raise InputError("the multipart form cannot be read: it is damaged, or has more than one file") from None
    values: dict[str, Any] = {}
    files = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.append((value.filename or "", await value.read()))
        else:
            values[name] = value
    await form.close()
    return values, files


async def _bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    stated = request.headers.get("content-length", "0")
    size = int(stated) if stated.isdigit() else 0
    received = 0
    if size <= most_bytes:
        async for part in request.stream():
            received += len(part)
            if received > most_bytes:
                break
            yield part
    if max(size, received) > most_bytes:
        raise TooLarge(f"the request has more than the {most_bytes} bytes that this service takes; send fewer rows at a time")


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ParameterError("the body is not JSON") from None
    if not isinstance(values, dict):
        raise ParameterError("the body is not a JSON object")
    return values
