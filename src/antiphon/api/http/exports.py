"""Export endpoints: ``/v1/chats/{id}/export``, one chat, and ``/v1/export``, all of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import query_params
from antiphon.api.http.asgi_responses import Headers
from antiphon.errors import InvalidRequestError
from antiphon.transfer.chat_exporter import EXPORT_FORMATS, ChatExporter, ExportFormat
from antiphon.transfer.html_page import content_policy
from antiphon.turn.chats import ChatService
from antiphon.turn.service import TurnService

_MEDIA: Final[dict[ExportFormat, bytes]] = {
    "json": b"application/json",
    "markdown": b"text/markdown; charset=utf-8",
    "html": b"text/html; charset=utf-8",
}
_SUFFIXES: Final[dict[ExportFormat, str]] = {"json": "json", "markdown": "md", "html": "html"}
_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9]+")
_MAX_NAME: Final = 60
#: Bytes that are sent at once.
_CHUNK_BYTES: Final = 65_536


class ExportEndpoints:
    """The endpoints, over the chats of one service."""

    def __init__(self, service: TurnService, chats: ChatService) -> None:
        self._service = service
        self._chats = chats

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chats/{id}/export"""
        query = query_params(scope)
        form = _parse_format(query.get("format", ["json"])[-1])
        exporter = ChatExporter(self._service, self._chats, tenant_of(scope))
        chat, head = await exporter.find(scope["path_params"]["id"], query.get("head", [None])[-1])
        headers = [(b"content-type", _MEDIA[form]), _disposition(chat.title, _SUFFIXES[form])]
        if form == "html":
            headers.append((b"content-security-policy", content_policy().encode()))
        await _send_file(send, headers, exporter.export(chat, head, form))

    async def everything(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/export: one chat a line"""
        exporter = ChatExporter(self._service, self._chats, tenant_of(scope))
        headers = [
            (b"content-type", b"application/x-ndjson"),
            _disposition("antiphon chats", "ndjson"),
        ]
        await _send_file(send, headers, exporter.all_documents())


def _parse_format(text: str) -> ExportFormat:
    for form in EXPORT_FORMATS:
        if form == text:
            return form
    raise InvalidRequestError(f"The format is one of {', '.join(EXPORT_FORMATS)}.", param="format")


def _disposition(title: str | None, suffix: str) -> tuple[bytes, bytes]:
    """The name that a browser saves the file under."""
    plain = _NOT_IN_NAME.sub("-", title or "").strip("-")[:_MAX_NAME] or "chat"
    whole = quote(f"{(title or 'chat')[:_MAX_NAME]}.{suffix}", safe="", errors="replace")
    text = f"attachment; filename=\"{plain}.{suffix}\"; filename*=UTF-8''{whole}"
    return b"content-disposition", text.encode("ascii")


async def _send_file(send: Send, headers: Headers, pieces: AsyncIterator[bytes]) -> None:
    """Send a file as it is made. One that fails in the middle ends the connection."""
    headers = [*headers, (b"cache-control", b"no-store")]
    waiting: list[bytes] = []
    size = 0
    is_started = False
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size < _CHUNK_BYTES:
            continue
        if not is_started:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            is_started = True
        await send({"type": "http.response.body", "body": b"".join(waiting), "more_body": True})
        waiting, size = [], 0
    if not is_started:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(waiting)})
