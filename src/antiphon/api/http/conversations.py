"""``/v1/conversations``: named heads over chains, and their items."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import Receive, Scope, Send, decoded, query_of, read_body
from antiphon.api.common.input_items import decode_items
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.idempotency import Repeats
from antiphon.api.http.includes import include_of
from antiphon.api.http.item_bodies import input_items, output_items
from antiphon.api.http.pagination import behind, limit_of, listed, order_of
from antiphon.api.http.response_request import Metadata
from antiphon.core.ids import parse_item_id
from antiphon.core.items import Item
from antiphon.core.turns import ConversationRecord, Response
from antiphon.errors import InvalidRequestError
from antiphon.turn.conversations import ConversationService, item_not_found
from antiphon.turn.protocols import Window
from antiphon.turn.store_protocols import SearchHit

#: How many items one request may bring.
_MAX_ITEMS = 100

_encode = msgspec.json.Encoder().encode


class ConversationCreate(msgspec.Struct, frozen=True):
    """A new conversation, and the items that it begins with."""

    items: list[dict[str, Any]] | None = None
    metadata: Metadata | None = None


class ConversationUpdate(msgspec.Struct, frozen=True):
    """Metadata in place of what there was."""

    metadata: Metadata


class ItemsCreate(msgspec.Struct, frozen=True):
    """Items to append."""

    items: list[dict[str, Any]]


_created = msgspec.json.Decoder(ConversationCreate)
_described = msgspec.json.Decoder(ConversationUpdate)
_added = msgspec.json.Decoder(ItemsCreate)


class ConversationApi:
    """The endpoints, over the conversations of one service."""

    def __init__(self, conversations: ConversationService, repeats: Repeats) -> None:
        self._conversations = conversations
        self._repeats = repeats

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/conversations"""
        body = await read_body(receive)
        asked = decoded(_created, body or b"{}")
        tenant, items = tenant_of(scope), _items(asked.items or [])
        made = await self._repeats.once(
            scope,
            body,
            partial(self._conversations.create, tenant, items, asked.metadata),
            partial(self._conversations.get, tenant),
        )
        await send_json(send, _encode(_conversation(made)))

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations, with ?query=… what was said in them"""
        query = query_of(scope)
        tenant, limit = tenant_of(scope), limit_of(query)
        after = query.get("after", [None])[-1]
        words = query.get("query", [""])[-1]
        if words:
            if "order" in query:
                raise InvalidRequestError("A search lists the best hits first.", param="order")
            hits = await self._conversations.search(tenant, words, limit + 1, after=after)
            shown = [_hit(hit) for hit in hits[:limit]]
            await send_json(send, _encode(listed(shown, more=len(hits) > limit)))
            return
        found = await self._conversations.list_conversations(
            tenant, limit + 1, after=after, newest_first=order_of(query) == "desc"
        )
        page = [_conversation(one) for one in found[:limit]]
        await send_json(send, _encode(listed(page, more=len(found) > limit)))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations/{id}"""
        found = await self._conversations.get(tenant_of(scope), scope["path_params"]["id"])
        await send_json(send, _encode(_conversation(found)))

    async def update(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/conversations/{id}: its metadata"""
        body = await read_body(receive)
        asked = decoded(_described, body)
        tenant, name = tenant_of(scope), scope["path_params"]["id"]
        repeat = self._repeats.of(scope, body)
        if repeat is None:
            changed = await self._conversations.update_metadata(tenant, name, asked.metadata)
        else:
            async with repeat:
                if repeat.outcome is not None:
                    # Somebody may have described it anew since: that stays.
                    changed = await self._conversations.get(tenant, name)
                else:
                    changed = await self._conversations.update_metadata(
                        tenant, name, asked.metadata
                    )
                    await repeat.made(name)
        await send_json(send, _encode(_conversation(changed)))

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/conversations/{id}, with its items"""
        name = scope["path_params"]["id"]
        await self._conversations.delete(tenant_of(scope), name)
        body = {"id": name, "object": "conversation.deleted", "deleted": True}
        await send_json(send, _encode(body))

    async def list_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations/{id}/items"""
        query = query_of(scope)
        include, limit = include_of(query), limit_of(query)
        items = await _items_behind(
            partial(self._conversations.window, tenant_of(scope), scope["path_params"]["id"]),
            Window(limit // 2 + 1, newest_first=order_of(query) == "desc"),
            query.get("after", [None])[-1],
            limit + 1,
            include,
        )
        await send_json(send, _encode(listed(items[:limit], more=len(items) > limit)))

    async def add_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/conversations/{id}/items: no model is asked"""
        include = include_of(query_of(scope))
        body = await read_body(receive)
        items = _items(decoded(_added, body).items)
        tenant, name = tenant_of(scope), scope["path_params"]["id"]
        turn = await self._repeats.once(
            scope,
            body,
            partial(self._conversations.add, tenant, name, items),
            partial(self._conversations.get_added_turn, tenant, name),
        )
        await send_json(send, _encode(listed(_shown([turn], include), more=False)))

    async def retrieve_item(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations/{id}/items/{item}"""
        at, include = scope["path_params"], include_of(query_of(scope))
        turn = await self._conversations.turn_of(tenant_of(scope), at["id"], at["item"])
        for body in _shown([turn], include):
            if body["id"] == at["item"]:
                await send_json(send, _encode(body))
                return
        raise item_not_found(at["item"])

    async def delete_item(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/conversations/{id}/items/{item}"""
        at = scope["path_params"]
        left = await self._conversations.erase_item(tenant_of(scope), at["id"], at["item"])
        await send_json(send, _encode(_conversation(left)))


def _items(given: list[dict[str, Any]]) -> list[Item]:
    if len(given) > _MAX_ITEMS:
        raise InvalidRequestError(f"Send at most {_MAX_ITEMS} items at once.", param="items")
    intake = decode_items(given, "items")
    if intake.references:
        raise InvalidRequestError("Send the item itself here.", param=intake.references[0].param)
    return list(intake.items)


def _conversation(one: ConversationRecord) -> dict[str, Any]:
    return {
        "id": one.id,
        "object": "conversation",
        "created_at": int(one.created_at),
        "metadata": one.metadata,
    }


def _hit(hit: SearchHit) -> dict[str, Any]:
    return {
        # A conversation may be found in many turns: its own id would not tell them apart.
        "id": hit.response_id,
        "object": "conversation.hit",
        "conversation": hit.conversation,
        "response_id": hit.response_id,
        "created_at": int(hit.created_at),
        "excerpt": hit.excerpt,
    }


async def _items_behind(
    read: Callable[[Window], Awaitable[list[Response]]],
    window: Window,
    after: str | None,
    enough: int,
    include: Sequence[str],
) -> list[dict[str, Any]]:
    """At least ``enough`` items behind the one ``after``, where there are so many.

    Turns are read a window at a time, as many as it takes. Raises ``InvalidRequestError``.
    """
    found: list[dict[str, Any]] = []
    if after is not None:
        window = msgspec.structs.replace(window, at=(parse_item_id(after) or [""])[0])
    turns = await read(window)
    if after is not None:
        found = behind(_directed(turns[:1], include, window), after)
    while True:
        # The first turn of a window is known already, unless the list begins with it.
        found += _directed(turns if window.at is None else turns[1:], include, window)
        if len(found) >= enough or len(turns) < window.limit:
            return found
        limit = max(window.limit, 2)
        window = msgspec.structs.replace(window, at=turns[-1].id, limit=limit)
        turns = await read(window)


def _directed(
    turns: Iterable[Response], include: Sequence[str], window: Window
) -> list[dict[str, Any]]:
    """The items of turns that come in a window's order, in that order too."""
    shown = [_shown([turn], include) for turn in turns]
    return [body for one in shown for body in (one[::-1] if window.newest_first else one)]


def _shown(turns: Iterable[Response], include: Sequence[str]) -> list[dict[str, Any]]:
    return [
        body
        for turn in turns
        for body in (*input_items(turn, include), *output_items(turn, include))
    ]
