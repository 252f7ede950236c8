"""Blobs and approvals endpoints: images by their hash, and the calls that wait for a person."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import query_params
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.pagination import items_after, list_body, parse_limit
from antiphon.core.ids import item_id
from antiphon.core.images import image_type
from antiphon.core.items import FunctionCall
from antiphon.core.tool_rules import unqualified_name
from antiphon.errors import InvalidImageError, NotFoundError
from antiphon.turn.chat_protocols import ChatRecord, ChatStore
from antiphon.turn.store_protocols import StoredTurn
from antiphon.turn.turn_reader import response_of

_encode = msgspec.json.Encoder().encode
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_HEADERS: Final = [
    # The bytes of a hash never change; an erased image is not shown for long.
    (b"cache-control", b"private, max-age=3600, immutable"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class BlobEndpoints:
    """The endpoints, over the chats of a store."""

    def __init__(self, chats: ChatStore) -> None:
        self._chats = chats

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/blobs/{sha256}: the bytes of an image"""
        name = scope["path_params"]["sha256"]
        found = _SHA256.match(name) and await self._chats.image(tenant_of(scope), name)
        if not found:
            raise NotFoundError(f"No image found with hash '{name}'.", code="blob_not_found")
        headers = [*_HEADERS, (b"content-length", b"%d" % len(found))]
        try:
            headers.append((b"content-type", image_type(found).encode()))
        except InvalidImageError:
            headers.append((b"content-type", b"application/octet-stream"))
            headers.append((b"content-disposition", b"attachment"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": found})

    async def list_approvals(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/approvals: every call that waits for a person, newest turn first"""
        query = query_params(scope)
        limit = parse_limit(query)
        waiting = await self._chats.waiting_turns(tenant_of(scope))
        bodies = [body for chat, turn in waiting for body in _approval_bodies(chat, turn)]
        after = query.get("after", [None])[-1]
        rest = bodies if after is None else items_after(bodies, after)
        await send_json(send, _encode(list_body(rest[:limit], has_more=len(rest) > limit)))


def _approval_bodies(chat: ChatRecord, turn: StoredTurn) -> list[dict[str, Any]]:
    response = response_of(turn, with_images=False)
    waiting = turn.end.approvals if turn.end else ()
    bodies = []
    for position, item in enumerate(response.output, len(response.input)):
        if not isinstance(item, FunctionCall) or item.call_id not in waiting:
            continue
        name = item.call_id
        if item.server is not None:
            name = item_id(response.id, "mcp_approval_request", position)
        body = {
            "id": name,
            "object": "approval",
            "response_id": response.id,
            "chat_id": chat.id,
            "title": chat.title,
            "created_at": int(response.created_at),
            "name": unqualified_name(item),
            "arguments": item.arguments,
        }
        bodies.append(body if item.server is None else {**body, "server_label": item.server})
    return bodies
