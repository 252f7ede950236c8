"""``/openapi.json`` and ``/docs``: what there is to ask, for programs and for people."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.metadata import version
from typing import Any, Final

import msgspec

from antiphon.api.common.body import Receive, Scope, Send
from antiphon.api.http.asgi_responses import Handler, send_json
from antiphon.api.http.openapi import document

_HTML: Final = [
    (b"content-type", b"text/html; charset=utf-8"),
    # The page has no script, loads nothing, and is framed by nobody.
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    ),
]
_STYLE: Final = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a1a1a;background:#fff}code,.m{font-family:ui-monospace,monospace}"
    ".m{display:inline-block;min-width:4.5rem;font-weight:700}"
    "details{border-top:1px solid #8884;padding:.4rem 0}summary{cursor:pointer}"
    "td,th{text-align:left;vertical-align:top;padding:.1rem 1rem .1rem 0}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#111}}"
)


class DocsEndpoints:
    """The endpoints. The document is put together when it is first asked for."""

    def __init__(self) -> None:
        self._document = cache(lambda: document(version("antiphon")))
        self._json = cache(lambda: msgspec.json.encode(self._document()))
        self._page = cache(lambda: render_docs_page(self._document()).encode())

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Methods by path."""
        return {"/openapi.json": {"GET": self.get_openapi}, "/docs": {"GET": self.get_docs}}

    async def get_openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /openapi.json"""
        await send_json(send, self._json())

    async def get_docs(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /docs"""
        body = self._page()
        headers = [*_HTML, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def render_docs_page(document: dict[str, Any]) -> str:
    """An OpenAPI document to be read: every endpoint, what it takes and gives. Pure."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    endpoints = "".join(
        _render_endpoint(method, path, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><style>'
        f"{_STYLE}</style><h1>{title}</h1><p>{escape(document['info']['description'])} "
        "The same for programs: <a href=openapi.json>openapi.json</a>.</p>"
        f"{endpoints}</html>\n"
    )


def _render_endpoint(
    method: str, path: str, operation: dict[str, Any], document: dict[str, Any]
) -> str:
    rows = [(one["name"], one["in"], one.get("description", "")) for one in operation["parameters"]]
    body = operation.get("requestBody")
    if body is not None:
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
        required = schema.get("required", ())
        rows += [
            (field, "body", "required" if field in required else "")
            for field in schema["properties"]
        ]
    table = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{where}<td>{escape(about)}"
        for name, where, about in rows
    )
    return (
        f"<details><summary><span class=m>{method.upper()}</span> <code>{escape(path)}</code> "
        f"{escape(operation['summary'])}</summary><table>{table}</table></details>"
    )
