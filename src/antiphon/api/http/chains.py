"""Chains endpoints: a part of a response's chain, and the turns beside and behind it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import query_params
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.chats import chat_body, parse_boolean, read_feed_cursor
from antiphon.api.http.item_bodies import input_items, parse_include
from antiphon.api.http.pagination import items_after, parse_limit
from antiphon.api.http.responses_codec import response_body
from antiphon.core.ids import to_response_id
from antiphon.errors import InvalidRequestError
from antiphon.turn.chat_protocols import ChainPart, ChainTurn, ChainWindow, TurnBranch
from antiphon.turn.chats import ChatService
from antiphon.turn.turn_reader import response_of

_encode = msgspec.json.Encoder().encode
#: Bytes from which on a window is sent compressed.
_MIN_COMPRESSED: Final = 4096
_ANCHORS: Final = ("before", "after", "around")
IMAGE_FORMS: Final = ("data", "reference")


class ChainEndpoints:
    """The endpoints, over the chats of one service."""

    def __init__(self, chats: ChatService) -> None:
        self._chats = chats

    async def retrieve_chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chats/{id}, with ?window=… its last turns"""
        query, tenant = query_params(scope), tenant_of(scope)
        window = ChainWindow(parse_limit(query, name="window")) if "window" in query else None
        cursor = await read_feed_cursor(self._chats, query)
        chat = await self._chats.get(tenant, scope["path_params"]["id"])
        body = chat_body(chat) | cursor
        if window is not None:
            part = await self._chats.window(tenant, chat.head, window, with_images=False)
            body["window"] = _part_body(part, (), with_images=False)
        await _send_compressed(scope, send, _encode(body))

    async def list_turns(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/turns: a part of its chain, oldest first"""
        query = query_params(scope)
        include, with_images = parse_include(query), parse_images(query) == "data"
        part = await self._chats.window(
            tenant_of(scope),
            scope["path_params"]["id"],
            parse_window(query),
            with_images=with_images,
        )
        body = _part_body(part, include, with_images=with_images)
        await _send_compressed(scope, send, _encode(body))

    async def list_siblings(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/siblings: the turns that continue the same, oldest first"""
        query = query_params(scope)
        cursor = await read_feed_cursor(self._chats, query)
        response_id = to_response_id(scope["path_params"]["id"])
        found = await self._chats.siblings(tenant_of(scope), response_id)
        middle = response_id if parse_boolean(query, "around") else None
        await send_json(send, _encode(_branches_body(found, query, middle) | cursor))

    async def list_children(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/children: the turns that continue it, oldest first"""
        found = await self._chats.children(tenant_of(scope), scope["path_params"]["id"])
        await send_json(send, _encode(_branches_body(found, query_params(scope))))


async def _send_compressed(scope: Scope, send: Send, body: bytes) -> None:
    """Send turns; compressed where they are long: most of them are settings that they share."""
    sent: dict[bytes, bytes] = dict(scope["headers"])
    headers = [(b"vary", b"accept-encoding")]
    if len(body) >= _MIN_COMPRESSED and b"gzip" in sent.get(b"accept-encoding", b""):
        body = await asyncio.to_thread(gzip.compress, body, 1, mtime=0)
        headers.append((b"content-encoding", b"gzip"))
    await send_json(send, body, headers=headers)


def parse_images(query: Mapping[str, Sequence[str]]) -> str:
    """How images are shown: one of ``IMAGE_FORMS``. Raises ``InvalidRequestError``."""
    form = query.get("images", ["data"])[-1]
    if form not in IMAGE_FORMS:
        raise InvalidRequestError("images is data or reference.", param="images")
    return form


def parse_window(query: Mapping[str, Sequence[str]]) -> ChainWindow:
    """``?limit=…`` and one of ``before``, ``after``, ``around``, ``position``.

    Raises ``InvalidRequestError``.
    """
    anchors = [name for name in (*_ANCHORS, "position") if name in query]
    if len(anchors) > 1:
        raise InvalidRequestError(
            f"Give one of {', '.join(anchors)}.",
            code="mutually_exclusive_parameters",
            param=anchors[1],
        )
    ids = {name: to_response_id(query[name][-1]) for name in _ANCHORS if name in query}
    position = query.get("position", [None])[-1]
    if position is not None and not (
        position.isascii() and position.isdigit() and len(position) <= 9
    ):
        raise InvalidRequestError("A position is a number from 0.", param="position")
    return ChainWindow(
        parse_limit(query, "60"), **ids, position=None if position is None else int(position)
    )


def _part_body(part: ChainPart, include: Sequence[str], *, with_images: bool) -> dict[str, Any]:
    turns = [_turn_body(one, include, with_images=with_images) for one in part.turns]
    return {
        "object": "list",
        "data": turns,
        "first_id": part.turns[0].turn.response_id if turns else None,
        "last_id": part.turns[-1].turn.response_id if turns else None,
        "has_more_before": part.has_more_before,
        "has_more_after": part.has_more_after,
        "total": part.total,
    }


def _turn_body(
    chain_turn: ChainTurn, include: Sequence[str], *, with_images: bool
) -> dict[str, Any]:
    response = response_of(chain_turn.turn, with_images=with_images)
    expires_at = chain_turn.turn.expires_at
    return {
        "object": "turn",
        "response": response_body(response, include=include),
        "input": input_items(response, include),
        "position": chain_turn.position,
        "siblings": {"index": chain_turn.sibling_index, "count": chain_turn.siblings},
        "children": chain_turn.children,
        "expires_at": None if expires_at is None else int(expires_at),
    }


def _branches_body(
    branches: Sequence[TurnBranch], query: Mapping[str, Sequence[str]], middle: str | None = None
) -> dict[str, Any]:
    """A page of turns, oldest first: behind the response ``after``, or with ``middle`` in its
    middle, as far as there are others on both sides.
    """
    limit = parse_limit(query)
    bodies = [branch_body(one, index) for index, one in enumerate(branches)]
    after = query.get("after", [None])[-1]
    rest = bodies
    if middle is not None:
        index = [one.response_id for one in branches].index(middle)
        rest = bodies[max(0, min(index - limit // 2, len(bodies) - limit)) :]
    elif after is not None:
        rest = items_after(bodies, to_response_id(after), "response_id")
    page = rest[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["response_id"] if page else None,
        "last_id": page[-1]["response_id"] if page else None,
        "has_more": len(rest) > limit,
        "total": len(bodies),
    }


def branch_body(branch: TurnBranch, index: int) -> dict[str, Any]:
    """One of several turns that continue the same one."""
    return {
        "response_id": branch.response_id,
        "index": index,
        "created_at": int(branch.created_at),
        "model": branch.model,
        "status": branch.status,
        "opening": branch.opening,
        "leaf": branch.leaf,
        "turns": branch.turns,
    }
