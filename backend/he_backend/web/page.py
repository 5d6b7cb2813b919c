"""The page at / of a service: plain HTML, style and JavaScript modules from static/, which ask the service's own API.

The page holds no data of its own, so it needs no token; what it shows comes by requests, which carry the one that the user typed.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Callable, Mapping

from fastapi import FastAPI
from fastapi.responses import Response

from he_backend.errors import EngineError
from he_backend.version import VERSION

_STATIC = Path(__file__).parent / "static"
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def install(app: FastAPI, title: str, about: str) -> None:
    """Adds the page at / and its files under /page/. Raises EngineError when they are not installed with the package."""
    text, files = _index(title, about), _files()

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return Response(text, media_type="text/html; charset=utf-8", headers=dict(_HEADERS))

    for name, data in files.items():
        app.add_api_route(f"/page/{name}", _file(data, _KINDS[Path(name).suffix]), methods=["GET"], include_in_schema=False)


def _index(title: str, about: str) -> str:
    about = about.partition(": ")[2] or about
    values = {"title": title, "service": title.lower(), "version": VERSION, "about": about[:1].upper() + about[1:]}
    text = _read("index.html").decode("utf-8")
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", html.escape(value))
    return text


def _files() -> Mapping[str, bytes]:
    return {path.name: _read(path.name) for path in sorted(_STATIC.glob("*")) if path.suffix in _KINDS}


def _file(data: bytes, kind: str) -> Callable[[], Response]:
    def file() -> Response:
        return Response(data, media_type=kind, headers=dict(_HEADERS))

    file.__annotations__ = {"return": Response}
    return file


def _read(name: str) -> bytes:
    try:
        return (_STATIC / name).read_bytes()
    except OSError:
        raise EngineError(f"the page's file {name} is not installed with the package: install he-nn again") from None
