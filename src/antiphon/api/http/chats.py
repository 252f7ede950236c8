"""Chats endpoints: ``/v1/chats``, the list of all that there is, whatever interface it came by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, get_args

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import decode_body, query_params, read_body
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.pagination import (
    items_after,
    list_body,
    parse_limit,
    parse_metadata,
    parse_order,
)
from antiphon.api.http.responses_codec import Metadata
from antiphon.core.token_prices import round_cost
from antiphon.core.turns import Usage
from antiphon.errors import InvalidRequestError
from antiphon.turn.chat_protocols import ChatBranch, ChatFilter, ChatRecord, ChatStatus, ChatUpdate
from antiphon.turn.chats import ChatMatch, ChatService

_encode = msgspec.json.Encoder().encode
#: Branches of one page: all of a chat are read for each.
MAX_BRANCHES: Final = 1000
CHAT_STATUSES: dict[str, ChatStatus] = {status: status for status in get_args(ChatStatus)}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class ChatChange(msgspec.Struct, frozen=True):
    """What ``POST /v1/chats/{id}`` takes: only the fields that are given change."""

    title: Annotated[str, msgspec.Meta(max_length=512)] | msgspec.UnsetType | None = msgspec.UNSET
    pinned: bool | msgspec.UnsetType = msgspec.UNSET
    permanent: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET


_change_decoder = msgspec.json.Decoder(ChatChange)


class ChatEndpoints:
    """The endpoints, over the chats of one service."""

    def __init__(self, chats: ChatService) -> None:
        self._chats = chats

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chats, with ?query=… what was said in them"""
        query = query_params(scope)
        tenant, limit, chat_filter = tenant_of(scope), parse_limit(query), parse_chat_filter(query)
        cursor = await read_feed_cursor(self._chats, query)
        after = query.get("after", [None])[-1]
        words = query.get("query", [""])[-1]
        if not words:
            chats = await self._chats.list_chats(
                tenant,
                limit + 1,
                after=after,
                newest_first=parse_order(query) == "desc",
                chat_filter=chat_filter,
            )
            page = [chat_body(chat) for chat in chats[:limit]]
            body = list_body(page, has_more=len(chats) > limit)
            await send_json(send, _encode(body | cursor))
            return
        if "order" in query:
            raise InvalidRequestError("A search lists the best hits first.", param="order")
        found = await self._chats.search(
            tenant, words, limit + 1, after=after, chat_filter=chat_filter
        )
        matches = found.matches
        page = [_match_body(one) for one in matches[:limit]]
        body = list_body(page, has_more=len(matches) > limit)
        body["is_complete"] = found.is_complete
        await self._send_hits(send, tenant, body | cursor)

    async def _send_hits(self, send: Send, tenant: str, body: dict[str, Any]) -> None:
        """Send what a search found, with how many turns are not indexed yet, if any are."""
        if unsearched := await self._chats.count_unsearched(tenant):
            body["unsearched_turns"] = unsearched
        await send_json(send, _encode(body))

    async def update(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/chats/{id}: its title, its metadata, and whether it is pinned or permanent"""
        change = decode_body(_change_decoder, await read_body(receive))
        update = ChatUpdate(
            title=change.title,
            is_pinned=change.pinned,
            is_permanent=change.permanent,
            metadata=change.metadata,
        )
        chat = await self._chats.update(tenant_of(scope), scope["path_params"]["id"], update)
        await send_json(send, _encode(chat_body(chat)))

    async def list_branches(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chats/{id}/branches: where each branch ends and what it forks from"""
        query = query_params(scope)
        limit = parse_limit(query, maximum=MAX_BRANCHES)
        branches = await self._chats.branches(tenant_of(scope), scope["path_params"]["id"])
        bodies = [_branch_body(one) for one in branches]
        after = query.get("after", [None])[-1]
        rest = bodies if after is None else items_after(bodies, after, "response_id")
        page = rest[:limit]
        body = {
            "object": "list",
            "data": page,
            "first_id": page[0]["response_id"] if page else None,
            "last_id": page[-1]["response_id"] if page else None,
            "has_more": len(rest) > limit,
        }
        await send_json(send, _encode(body))

    async def search(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chats/{id}/search: the turns of one chat in which something was said"""
        query = query_params(scope)
        limit, words = parse_limit(query), query.get("query", [""])[-1]
        tenant, after = tenant_of(scope), query.get("after", [None])[-1]
        found = await self._chats.search_within(
            tenant, scope["path_params"]["id"], words, limit + 1, after=after
        )
        hits = [
            {
                "id": hit.response_id,
                "object": "chat.hit",
                "response_id": hit.response_id,
                "created_at": int(hit.created_at),
                "excerpt": hit.excerpt,
                "position": position,
            }
            for hit, position in found[:limit]
        ]
        await self._send_hits(send, tenant, list_body(hits, has_more=len(found) > limit))

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/chats/{id}, with all its turns and its conversation"""
        chat_id = await self._chats.delete(tenant_of(scope), scope["path_params"]["id"])
        await send_json(send, _encode({"id": chat_id, "object": "chat.deleted", "deleted": True}))


async def read_feed_cursor(
    chats: ChatService, query: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """``?feed_cursor=true``: where the feed is before anything is read; else nothing.

    Raises ``InvalidRequestError``.
    """
    if not parse_boolean(query, "feed_cursor"):
        return {}
    return {"feed_cursor": await chats.feed_cursor()}


def parse_boolean(query: Mapping[str, Sequence[str]], name: str) -> bool | None:
    """True or false, None: it is not given. Raises ``InvalidRequestError``."""
    text = query.get(name, [None])[-1]
    if text is not None and text.lower() not in _BOOLEANS:
        raise InvalidRequestError(f"{name} is true or false.", param=name)
    return _BOOLEANS[text.lower()] if text else None


def _branch_body(branch: ChatBranch) -> dict[str, Any]:
    return {
        "response_id": branch.leaf,
        "forks_from": branch.forks_from,
        "opening": branch.opening,
        "turns": branch.turns,
        "created_at": int(branch.created_at),
        "updated_at": int(branch.updated_at),
        "status": branch.status,
    }


def parse_chat_filter(query: Mapping[str, Sequence[str]]) -> ChatFilter:
    """``?status=…&pinned=…&model=…&metadata[key]=…``. Raises ``InvalidRequestError``."""
    status = query.get("status", [None])[-1]
    if status is not None and status not in CHAT_STATUSES:
        raise InvalidRequestError(
            f"The status is one of {', '.join(CHAT_STATUSES)}.", param="status"
        )
    return ChatFilter(
        status=CHAT_STATUSES[status] if status else None,
        is_pinned=parse_boolean(query, "pinned"),
        model=query.get("model", [None])[-1],
        metadata=parse_metadata(query),
    )


def chat_body(chat: ChatRecord) -> dict[str, Any]:
    """A chat as it is shown."""
    return {
        "id": chat.id,
        "object": "chat",
        "title": chat.title,
        "created_at": int(chat.created_at),
        "updated_at": int(chat.updated_at),
        "model": chat.model,
        "turns": chat.turns,
        "branches": chat.branches,
        "head": chat.head,
        "conversation": chat.conversation,
        "status": chat.status,
        "expires_at": None if chat.expires_at is None else int(chat.expires_at),
        "pinned": chat.is_pinned,
        "permanent": chat.is_permanent,
        "metadata": chat.metadata,
        "usage": sum_body(chat.usage, chat.cost),
    }


def sum_body(usage: Usage, cost: float | None) -> dict[str, Any]:
    """The tokens of several turns; without a cost where no turn had a price."""
    body: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return body if cost is None else {**body, "cost": round_cost(cost)}


def _match_body(match: ChatMatch) -> dict[str, Any]:
    hit = match.hit
    return {
        **chat_body(match.chat),
        "match": {"response_id": hit.response_id, "excerpt": hit.excerpt},
    }
