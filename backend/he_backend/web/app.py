"""An HTTP service made of operations: POST paths with a table of fields each, answered in the envelope, described at /docs."""

from __future__ import annotations

import asyncio
import html
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Mapping, Sequence, Union

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.concurrency import run_in_threadpool

from he_backend.version import VERSION
from he_backend.web import answers, page
from he_backend.web.body import read_upload, read_values
from he_backend.web.budget import Budget
from he_backend.web.fields import Field, read_fields, schema
from he_backend.web.origin import SameOrigin

Data = Mapping[str, Any]
Handler = Callable[..., Union[Data, "Future[Data]"]]


@dataclass(frozen=True)
class Operation:
    """One path. `handler` gets the fields by name (and the file's bytes, where `upload` says how many there may be).

    With `only_these` a name that is none of the fields' is refused, otherwise it is left alone.
    """

    path: str
    doc: str
    fields: Sequence[Field]
    handler: Handler
    upload: int = 0
    only_these: bool = False

    def read(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields' values; raises ParameterError."""
        return read_fields(self.fields, values, self.only_these)

    def schema(self) -> dict[str, Any]:
        """The fields as a JSON schema."""
        return schema(self.fields, self.only_these)


def make_app(
    title: str,
    about: str,
    operations: Sequence[Operation],
    health: Callable[[], Data],
    ready: Callable[[], Data],
    origins: Sequence[str] = (),
) -> FastAPI:
    """The service. `health` gives the data of /healthz; `ready` that of /readyz, or raises what is wrong.

    `origins` are those of other pages that may ask.
    """
    # The usual /docs loads its scripts from elsewhere; ours works without the internet.
    app = FastAPI(title=title, version=VERSION, description=about, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False  # a redirect has no envelope, and a POST that follows it may lose its body
    answers.install(app)
    app.add_middleware(SameOrigin, allowed=tuple(origins))
    page.install(app, title, about)
    for operation in operations:
        app.add_api_route(
            operation.path, _endpoint(operation), methods=["POST"], summary=operation.doc, openapi_extra=_described(operation)
        )
    for path, probe, what in (("/healthz", _alive(health), "The process is alive."), ("/readyz", _probe(ready), "It can do its work.")):
        app.add_api_route(path, probe, methods=["GET"], summary=what, response_class=Response)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(_page(title, about, operations))

    return app


def _endpoint(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    budget = Budget(operation.upload)

    async def endpoint(request: Request) -> Response:
        if operation.upload:
            with budget.share() as take:
                values, data = await read_upload(request, operation.upload, take)
                result = await run_in_threadpool(operation.handler, data, **operation.read(values))
        else:
            values = await read_values(request)
            result = await run_in_threadpool(operation.handler, **operation.read(values))
        if isinstance(result, Future):
            result = await asyncio.wrap_future(result)
        return answers.answer(result)

    endpoint.__annotations__ = {"request": Request, "return": Response}  # FastAPI reads them, and cannot resolve them from here as text
    endpoint.__name__ = operation.path.strip("/").replace("/", "_")
    return endpoint


def _alive(call: Callable[[], Data]) -> Callable[[], Awaitable[Response]]:
    # In the event loop itself, which alone it asks about: threads may all be at work.
    async def alive() -> Response:
        return answers.answer(call())

    alive.__annotations__ = {"return": Response}
    alive.__name__ = "probe"
    return alive


def _probe(call: Callable[[], Data]) -> Callable[[], Response]:
    def probe() -> Response:
        return answers.answer(call())

    probe.__annotations__ = {"return": Response}
    probe.__name__ = "probe"
    return probe


def _described(operation: Operation) -> dict[str, Any]:
    body = operation.schema()
    if operation.upload:
        properties = {**body["properties"], "file": {"type": "string", "format": "binary", "description": "the .npy file"}}
        content = {"multipart/form-data": {"schema": {**body, "properties": properties, "required": ["file"]}}}
    else:
        content = {kind: {"schema": body} for kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")}
    envelope = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "data": {"type": "object"}, "message": {"type": "string"}},
        "required": ["code", "data", "message"],
    }
    shown = {"application/json": {"schema": envelope}}
    texts = {"200": "Done", "4XX": "Refused; the message says what to change", "5XX": "Failed, or busy (503 with Retry-After)"}
    return {
        "requestBody": {"required": bool(body["required"]) or operation.upload > 0, "content": content},
        "responses": {code: {"description": text, "content": shown} for code, text in texts.items()},
    }


def _page(title: str, about: str, operations: Sequence[Operation]) -> str:
    parts = [
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{html.escape(title)}</title><style>body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}",
        "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.2rem .6rem;text-align:left}</style>",
        f"<h1>{html.escape(title)} {VERSION}</h1><p>{html.escape(about)}</p>",
        "<p>POST with JSON or form fields; every answer is {code, data, message}. A service that has tokens wants the header "
        "<code>Authorization: Bearer TOKEN</code>. For tools: <a href=/openapi.json>openapi.json</a>.</p>",
    ]
    for operation in operations:
        head = "<tr><th>field</th><th>type</th><th>default</th><th>meaning</th></tr>"
        parts.append(f"<h2><code>{operation.path}</code></h2><p>{html.escape(operation.doc)}</p><table>{head}")
        body = operation.schema()
        for name, field in body["properties"].items():
            default = "required" if name in body["required"] else str(field.get("default", ""))
            cells = (name, field["type"][0], default, field["description"])
            parts.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        parts.append("</table>")
    return "\n".join(parts)
