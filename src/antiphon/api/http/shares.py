"""Shared links: ``/v1/shares``, and ``/s/{secret}``, a page without script for whoever has one.

The page is made from the store at each read. Nobody needs a key for it: the secret is the key. The
same answer comes for a secret that never was, has expired or was revoked, and for erased chains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import decode_body, query_params, read_body
from antiphon.api.http.asgi_responses import send_chunk, send_json
from antiphon.api.http.pagination import list_body, parse_limit, parse_order
from antiphon.core.turns import Response
from antiphon.errors import NotFoundError
from antiphon.transfer.html_page import (
    content_policy,
    opening_of_turn,
    page_end,
    page_head,
    turn_html,
)
from antiphon.turn.chats import ChatService
from antiphon.turn.shares import ShareService
from antiphon.turn.transfer_protocols import ShareRecord

_encode = msgspec.json.Encoder().encode
#: Ten years, in seconds.
_MAX_LIFETIME: Final = 315_360_000


class ShareCreate(msgspec.Struct, frozen=True):
    """A link to the chain that ends with a response. ``expires_in`` is in seconds."""

    response_id: str
    expires_in: Annotated[int, msgspec.Meta(ge=1, le=_MAX_LIFETIME)] | None = None


_create_decoder = msgspec.json.Decoder(ShareCreate)


class ShareEndpoints:
    """The endpoints, over the shared links and the chats of one service."""

    def __init__(self, shares: ShareService, chats: ChatService) -> None:
        self._shares = shares
        self._chats = chats

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/shares: the one answer that has the link"""
        params = decode_body(_create_decoder, await read_body(receive))
        share, secret = await self._shares.create(
            tenant_of(scope), params.response_id, params.expires_in
        )
        await send_json(send, _encode({**_share_body(share), "url": f"/s/{secret}"}))

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/shares"""
        query, tenant = query_params(scope), tenant_of(scope)
        limit = parse_limit(query)
        found = await self._shares.list_shares(
            tenant,
            limit + 1,
            after=query.get("after", [None])[-1],
            newest_first=parse_order(query) == "desc",
        )
        chats = await self._chats.find(tenant, [share.response_id for share in found[:limit]])
        page = [
            {**_share_body(share), "title": chat.title if chat else None}
            for share, chat in zip(found, chats, strict=False)
        ]
        await send_json(send, _encode(list_body(page, has_more=len(found) > limit)))

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/shares/{id}"""
        name = scope["path_params"]["id"]
        await self._shares.revoke(tenant_of(scope), name)
        await send_json(send, _encode({"id": name, "object": "share.deleted", "deleted": True}))

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /s/{secret}"""
        try:
            share = await self._shares.find(scope["path_params"]["secret"])
        except NotFoundError:
            await _send_missing(send)
            return
        is_begun = False
        async for turns in self._shares.turns(share):
            # A page's Markdown takes long: the event loop has other things to do meanwhile.
            html = await asyncio.to_thread(_render, turns, is_first=not is_begun)
            if not is_begun:
                await _start(send, 200)
                is_begun = True
            await send_chunk(send, html.encode())
        if not is_begun:
            await _send_missing(send)
            return
        await send_chunk(send, page_end(_note(share)).encode(), last=True)


def _share_body(share: ShareRecord) -> dict[str, Any]:
    return {
        "id": share.id,
        "object": "share",
        "response_id": share.response_id,
        "created_at": int(share.created_at),
        "expires_at": None if share.expires_at is None else int(share.expires_at),
    }


def _render(turns: Sequence[Response], *, is_first: bool) -> str:
    head = page_head(opening_of_turn(turns[0]), turns[0]) if is_first else ""
    return head + "".join(map(turn_html, turns))


def _note(share: ShareRecord) -> str:
    if share.expires_at is None:
        return "A reading copy, shared from antiphon."
    at = datetime.fromtimestamp(share.expires_at, UTC)
    return f"A reading copy, shared from antiphon until {at.day} {at:%B %Y}."


async def _send_missing(send: Send) -> None:
    """The one page for everything that is not to be seen."""
    html = page_head("There is nothing here", None)
    html += "<p>The link has expired, was revoked, or never was one.</p>\n" + page_end("antiphon")
    await _start(send, 404)
    await send_chunk(send, html.encode(), last=True)


async def _start(send: Send, status: int) -> None:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", f"{content_policy()}; frame-ancestors 'none'".encode()),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-robots-tag", b"noindex, nofollow"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
