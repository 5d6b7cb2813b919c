"""The body of a request in memory: JSON, a form or multipart, never larger than allowed and never in a temporary file."""

from __future__ import annotations

import json
import re
from typing import Any, AsyncGenerator, Callable
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from he_backend.errors import HeError, InputError, ParameterError
from he_backend.web.answers import TooLarge

MOST_FIELD_BYTES = 1 << 20
_MOST_FIELDS = 64
_NAME = re.compile(r"[\w.\-\[\]]{1,100}")  # of a form's field
_FEWER_ROWS, _SHORTER = "send fewer rows at a time", "rows come by /model/uploadfile, and no field is as long"
_NO_FORM = "the body is neither a JSON object nor a form (name=value&…, or multipart/form-data)"


class _InMemory(MultiPartParser):
    """Starlette's parser writes what is over 1 MB into temporary files; rows of a user must not touch the disk."""

    spool_max_size = max_file_size = 1 << 40  # the stream is bounded already


async def read_values(request: Request) -> dict[str, Any]:
    """The fields of a JSON object or a form. Raises ParameterError, TooLarge."""
    if _is_multipart(request):
        form, _ = await _multipart(request, _bounded(request, MOST_FIELD_BYTES, _SHORTER))
        return form
    body = b"".join([part async for part in _bounded(request, MOST_FIELD_BYTES, _SHORTER)]).strip()
    if not body:
        return dict(request.query_params)
    if body[:1] == b"{" or "json" in _kind(request):
        return _json(body)
    text = b"&".join(pair for pair in body.split(b"&") if pair)
    try:
        values = dict(parse_qsl(text.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise ParameterError(_NO_FORM) from None
    # Whatever else has an equals sign in it, such as XML, or multipart under another type: its fields would be ignored silently.
    if not all(_NAME.fullmatch(name) for name in values):
        raise ParameterError(_NO_FORM)
    return values


async def read_upload(request: Request, most_bytes: int, take: Callable[[int], None]) -> tuple[dict[str, Any], bytes]:
    """The fields and the file of a multipart request; `take` hears of every piece, and may refuse it. Raises InputError, TooLarge."""
    if not _is_multipart(request):
        raise InputError("the file is expected as multipart form data, such as: curl -F file=@rows.npy -F file_name=rows.npy")
    values, files = await _multipart(request, _bounded(request, most_bytes, _FEWER_ROWS, take))
    if len(files) != 1:
        raise InputError(f"{len(files)} files came, one is expected, such as: curl -F file=@rows.npy -F file_name=rows.npy")
    name, data = files[0]
    return {"file_name": name, **values}, data


def _is_multipart(request: Request) -> bool:
    return _kind(request).startswith("multipart/form-data")


def _kind(request: Request) -> str:
    """The content type, whose case means nothing."""
    return request.headers.get("content-type", "").strip().lower()


async def _multipart(request: Request, parts: AsyncGenerator[bytes, None]) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    try:
        form = await _InMemory(request.headers, parts, max_files=2, max_fields=_MOST_FIELDS).parse()
    except HeError:  # some of ours are ValueErrors
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


async def _bounded(
    request: Request, most_bytes: int, instead: str, take: Callable[[int], None] = lambda count: None
) -> AsyncGenerator[bytes, None]:
    stated = request.headers.get("content-length", "0")
    size = int(stated) if stated.isdigit() else 0
    received = 0
    if size <= most_bytes:
        async for part in request.stream():
            received += len(part)
            if received > most_bytes:
                break
            take(len(part))
            yield part
    if max(size, received) > most_bytes:
        raise TooLarge(f"the request has more than the {most_bytes} bytes that are taken here; {instead}")


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ParameterError("the body is not JSON") from None
    if not isinstance(values, dict):
        raise ParameterError("the body is not a JSON object")
    return values
