"""Conversations endpoints: ``/v1/conversations`` and their items."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import key_id_of, tenant_of
from antiphon.api.common.body import RequestDecoder, query_params, read_body
from antiphon.api.common.input_items import decode_items
from antiphon.api.common.item_shapes import flatten_messages
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.idempotency import IdempotencyKeys
from antiphon.api.http.item_bodies import input_items, output_items, parse_include
from antiphon.api.http.loose_chat_requests import with_normal_metadata
from antiphon.api.http.pagination import items_after, list_body, parse_limit, parse_order
from antiphon.api.http.responses_codec import Metadata
from antiphon.api.http.retried_creations import RetriedCreations
from antiphon.core.ids import parse_item_id
from antiphon.core.items import Item
from antiphon.core.turns import ConversationRecord, Response
from antiphon.errors import InvalidRequestError
from antiphon.turn.conversations import ConversationService, item_not_found
from antiphon.turn.search_protocols import SearchHit
from antiphon.turn.store_protocols import Window

#: How many items one request may bring.
_MAX_ITEMS = 100

_encode = msgspec.json.Encoder().encode


class ConversationCreate(msgspec.Struct, frozen=True):
    """A new conversation, and the items that it begins with."""

    items: list[dict[str, Any]] | None = None
    metadata: Metadata | None = None


class ConversationUpdate(msgspec.Struct, frozen=True):
    """Metadata in place of what there was, and the turn that the next one continues.

    At least one of them. ``head`` is a response of the conversation's chat.
    """

    metadata: Metadata | None = None
    head: str | None = None


class ItemsCreate(msgspec.Struct, frozen=True):
    """Items to append."""

    items: list[dict[str, Any]]


def _normalize_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body of another shape: one item for a list of them, a text for a message."""
    clean = dict(with_normal_metadata(fields))
    items = fields.get("items")
    if isinstance(items, str | dict):
        items = [items]
    if isinstance(items, list):
        clean["items"] = [
            {"role": "user", "content": one} if isinstance(one, str) else one
            for one in flatten_messages(items)
            if one is not None
        ]
    return clean


_create_body = RequestDecoder(ConversationCreate, _normalize_fields)
_update_body = RequestDecoder(ConversationUpdate, _normalize_fields)
_items_body = RequestDecoder(ItemsCreate, _normalize_fields)


class ConversationEndpoints:
    """The endpoints, over the conversations of one service."""

    def __init__(
        self, conversations: ConversationService, idempotency_keys: IdempotencyKeys
    ) -> None:
        self._conversations = conversations
        self._idempotency_keys = idempotency_keys
        self._creations = RetriedCreations(idempotency_keys)

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/conversations"""
        body = await read_body(receive)
        params = _create_body.decode_known(body or b"{}")
        tenant, items = tenant_of(scope), _decode_new_items(params.items or [])
        conversation = await self._creations.run_once(
            scope,
            body,
            partial(
                self._conversations.create,
                tenant,
                items,
                params.metadata,
                key_id=key_id_of(scope),
            ),
            partial(self._conversations.get, tenant),
            lambda created: created.id,
        )
        await send_json(send, _encode(_conversation_body(conversation)))

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations, with ?query=… what was said in them"""
        query = query_params(scope)
        tenant, limit = tenant_of(scope), parse_limit(query)
        after = query.get("after", [None])[-1]
        words = query.get("query", [""])[-1]
        if words:
            if "order" in query:
                raise InvalidRequestError("A search lists the best hits first.", param="order")
            hits = await self._conversations.index.search(tenant, words, limit + 1, after=after)
            body = list_body([_hit_body(hit) for hit in hits[:limit]], has_more=len(hits) > limit)
            if unsearched := await self._conversations.index.count_unsearched(tenant):
                body["unsearched_turns"] = unsearched
            await send_json(send, _encode(body))
            return
        found = await self._conversations.store.list_conversations(
            tenant, limit + 1, after=after, newest_first=parse_order(query) == "desc"
        )
        page = [_conversation_body(one) for one in found[:limit]]
        await send_json(send, _encode(list_body(page, has_more=len(found) > limit)))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations/{id}"""
        found = await self._conversations.get(tenant_of(scope), scope["path_params"]["id"])
        await send_json(send, _encode(_conversation_body(found)))

    async def update(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/conversations/{id}: its metadata, its head"""
        body = await read_body(receive)
        params = _update_body.decode_known(body or b"{}")
        if params.metadata is None and params.head is None:
            raise InvalidRequestError(
                "The metadata is missing.", code="missing_required_parameter", param="metadata"
            )
        tenant, name = tenant_of(scope), scope["path_params"]["id"]
        idempotent_request = self._idempotency_keys.for_request(scope, body)
        if idempotent_request is None:
            changed = await self._apply_update(tenant, name, params)
        else:
            async with idempotent_request:
                if idempotent_request.result_id is not None:
                    # Somebody may have described it anew since: that stays.
                    changed = await self._conversations.get(tenant, name)
                else:
                    changed = await self._apply_update(tenant, name, params)
                    await idempotent_request.complete(name)
        await send_json(send, _encode(_conversation_body(changed)))

    async def _apply_update(
        self, tenant: str, name: str, params: ConversationUpdate
    ) -> ConversationRecord:
        if params.head is not None:
            await self._conversations.move_head(tenant, name, params.head)
        if params.metadata is None:
            return await self._conversations.get(tenant, name)
        return await self._conversations.update_metadata(tenant, name, params.metadata)

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/conversations/{id}, with its items"""
        name = scope["path_params"]["id"]
        await self._conversations.delete(tenant_of(scope), name)
        body = {"id": name, "object": "conversation.deleted", "deleted": True}
        await send_json(send, _encode(body))

    async def list_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations/{id}/items"""
        query = query_params(scope)
        include, limit = parse_include(query), parse_limit(query)
        items = await _read_items(
            partial(self._conversations.window, tenant_of(scope), scope["path_params"]["id"]),
            Window(limit // 2 + 1, newest_first=parse_order(query) == "desc"),
            query.get("after", [None])[-1],
            limit + 1,
            include,
        )
        await send_json(send, _encode(list_body(items[:limit], has_more=len(items) > limit)))

    async def add_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/conversations/{id}/items: no model is asked"""
        include = parse_include(query_params(scope))
        body = await read_body(receive)
        items = _decode_new_items(_items_body.decode_known(body).items)
        tenant, name = tenant_of(scope), scope["path_params"]["id"]
        turn = await self._creations.run_once(
            scope,
            body,
            partial(self._conversations.add, tenant, name, items, key_id=key_id_of(scope)),
            partial(self._conversations.get_added_turn, tenant, name),
            lambda added: added.id,
        )
        await send_json(send, _encode(list_body(_item_bodies([turn], include), has_more=False)))

    async def retrieve_item(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/conversations/{id}/items/{item}"""
        ids, include = scope["path_params"], parse_include(query_params(scope))
        turn = await self._conversations.turn_of(tenant_of(scope), ids["id"], ids["item"])
        for body in _item_bodies([turn], include):
            if body["id"] == ids["item"]:
                await send_json(send, _encode(body))
                return
        raise item_not_found(ids["item"])

    async def delete_item(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/conversations/{id}/items/{item}"""
        ids = scope["path_params"]
        left = await self._conversations.erase_item(tenant_of(scope), ids["id"], ids["item"])
        await send_json(send, _encode(_conversation_body(left)))


def _decode_new_items(given: list[dict[str, Any]]) -> list[Item]:
    if len(given) > _MAX_ITEMS:
        raise InvalidRequestError(f"Send at most {_MAX_ITEMS} items at once.", param="items")
    intake = decode_items(given, "items")
    if intake.references:
        raise InvalidRequestError("Send the item itself here.", param=intake.references[0].param)
    return list(intake.items)


def _conversation_body(one: ConversationRecord) -> dict[str, Any]:
    return {
        "id": one.id,
        "object": "conversation",
        "created_at": int(one.created_at),
        "metadata": one.metadata,
    }


def _hit_body(hit: SearchHit) -> dict[str, Any]:
    return {
        # A conversation may be found in many turns: its own id would not tell them apart.
        "id": hit.response_id,
        "object": "conversation.hit",
        "conversation": hit.conversation,
        "response_id": hit.response_id,
        "created_at": int(hit.created_at),
        "excerpt": hit.excerpt,
    }


async def _read_items(
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
        found = items_after(_directed(turns[:1], include, window), after)
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
    shown = [_item_bodies([turn], include) for turn in turns]
    return [body for one in shown for body in (one[::-1] if window.newest_first else one)]


def _item_bodies(turns: Iterable[Response], include: Sequence[str]) -> list[dict[str, Any]]:
    return [
        body
        for turn in turns
        for body in (*input_items(turn, include), *output_items(turn, include))
    ]
