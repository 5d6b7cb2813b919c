"""Bodies of requests: what is a form and what is none, in whatever case its type is written, and how many bytes may be under way."""

from __future__ import annotations

import asyncio
import json

import pytest

from he_backend.errors import InputError
from he_backend.web.answers import TooSlow
from he_backend.web.app import Operation, make_app
from he_backend.web.fields import Field

FIELDS = (Field("word", str, "", "a word"),)
MOST = 1000


def app(upload=lambda data, word: {"bytes": len(data)}):
    say = Operation("/model/say", "Says a word.", FIELDS, lambda word: {"word": word})
    return make_app("test", "A test.", [say, Operation("/model/uploadfile", "Takes a file.", FIELDS, upload, MOST)], dict, dict)


async def asked(service, path, pieces, kind="multipart/form-data; boundary=b"):
    """(status, envelope) for a body in pieces, an event among them to wait for, an exception to end with."""
    todo, sent = list(pieces), []

    async def receive():
        piece = todo.pop(0)
        if isinstance(piece, asyncio.Event):
            await piece.wait()
            piece = todo.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return {"type": "http.request", "body": piece, "more_body": bool(todo)}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", kind.encode())] if kind else []
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    await service({**scope, "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 1)}, receive, send)
    body = b"".join(part.get("body", b"") for part in sent[1:])
    return sent[0]["status"], json.loads(body) if body else None


def say(*pieces, kind):
    return asyncio.run(asked(app(), "/model/say", pieces, kind))


MULTIPART = b'--b\r\nContent-Disposition: form-data; name="word"\r\n\r\nx\r\n--b--\r\n'


@pytest.mark.parametrize(
    "body, kind",
    [
        (b"word=x", ""),
        (b"word=x\n", "Application/X-WWW-Form-Urlencoded"),
        (b"&word=x&", "application/x-www-form-urlencoded"),
        (MULTIPART, "multipart/form-data; boundary=b"),
        (MULTIPART, "Multipart/Form-Data; boundary=b"),
        (b'{"word": "x"}', ""),
    ],
)
def test_forms_are_read(body, kind):
    assert say(body, kind=kind) == (200, {"code": 200, "data": {"word": "x"}, "message": "success"})


@pytest.mark.parametrize(
    "body, kind",
    [
        (MULTIPART, "text/plain"),
        (MULTIPART, "multipart/mixed; boundary=b"),
        (MULTIPART, "multipart/form-data"),
        (b"hello", "application/x-www-form-urlencoded"),
        (b"<list type='x'/>", "application/xml"),
        (b"word = x", ""),
        (b"\xff\xfe", ""),
        (b"7", "Application/JSON"),
    ],
)
def test_a_body_that_is_no_form_is_refused(body, kind):
    status, envelope = say(body, kind=kind)

    assert status == envelope["code"] == 400, envelope


def test_another_path_with_a_slash_is_not_there():
    status, envelope = asyncio.run(asked(app(), "/model/say/", [b"word=x"], ""))

    assert status == envelope["code"] == 404 and "/model/say/" in envelope["message"]


def upload(*pieces):
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.npy"\r\n\r\n'
    return [head, *pieces, b"\r\n--b--\r\n"]


def test_uploads_under_way_share_their_bytes_and_give_them_back():
    async def together():
        service, go = app(), asyncio.Event()
        first = asyncio.ensure_future(asked(service, "/model/uploadfile", upload(b"x" * 500, go)))
        await asyncio.sleep(0.05)
        refused = await asked(service, "/model/uploadfile", upload(b"x" * 250, b"x" * 250))
        small = await asked(service, "/model/uploadfile", upload(b"x" * 200))
        fields = await asked(service, "/model/say", [b"word=" + b"x" * 900], "")
        go.set()
        return refused, small, fields, await first, await asked(service, "/model/uploadfile", upload(b"x" * 800))

    refused, small, fields, first, after = asyncio.run(together())
    assert refused[0] == refused[1]["code"] == 503 and "of the 1000 bytes" in refused[1]["message"]
    assert (small[0], fields[0]) == (200, 200)
    assert [one[1]["data"] for one in (small, first, after)] == [{"bytes": 200}, {"bytes": 500}, {"bytes": 800}]


@pytest.mark.parametrize("ends, code", [("slow", 408), ("handler", 400), ("form", 400), ("more", 413)])
def test_the_bytes_are_given_back_however_an_upload_ends(ends, code):
    def handler(data, word):
        if ends == "handler":
            raise InputError("no")
        return {"bytes": len(data)}

    pieces = {
        "slow": [*upload(b"x" * 700)[:2], TooSlow("the request stood still")],
        "handler": upload(b"x" * 700),
        "form": [b"x" * 700, b"y"],
        "more": upload(b"x" * 700, b"x" * 700),
    }[ends]

    async def several():
        service = app(handler)
        return [(await asked(service, "/model/uploadfile", pieces))[0] for _ in range(3)]

    assert asyncio.run(several()) == [code] * 3


def test_an_upload_after_those_that_went_away_is_taken():
    async def several():
        service = app()
        for _ in range(3):
            gone = asyncio.ensure_future(asked(service, "/model/uploadfile", [*upload(b"x" * 700)[:2], asyncio.Event()]))
            await asyncio.sleep(0.05)
            gone.cancel()
            await asyncio.wait([gone])
        return await asked(service, "/model/uploadfile", upload(b"x" * 700))

    assert asyncio.run(several())[0] == 200
