"""Usage endpoints: what turns used, by day, model and key or in a chain; what the store holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import ApiKeyAuthenticator, tenant_of
from antiphon.api.common.body import query_params
from antiphon.api.http.asgi_responses import send_json
from antiphon.api.http.chats import sum_body
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import InvalidRequestError
from antiphon.turn.chat_protocols import MAX_COUNTED, ChatStore, UsageSum
from antiphon.turn.chats import ChatService
from antiphon.turn.usage_groups import add_up, group_fields, parse_groupings

_encode = msgspec.json.Encoder().encode
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_LAST_DAY: Final = 10**7


class UsageEndpoints:
    """The endpoints, over the chats of a store."""

    def __init__(self, chats: ChatStore, service: ChatService, keys: ApiKeyAuthenticator) -> None:
        self._chats = chats
        self._keys = keys
        self._service = service

    async def retrieve_of_response(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/usage: of that turn, and of the chain that ends there"""
        found = await self._service.chain_usage(tenant_of(scope), scope["path_params"]["id"])
        body = {
            "object": "response.usage",
            "turn": sum_body(found.turn.usage, found.turn.cost),
            "chain": sum_body(found.chain.usage, found.chain.cost),
            "turns": found.chain.turns,
        }
        await send_json(send, _encode(body))

    async def retrieve_of_store(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/usage/store: how much there is, and what expires next"""
        tenant = tenant_of(scope)
        contents, chat = await self._service.contents(tenant)
        body: dict[str, Any] = {
            "object": "store.usage",
            "chats": contents.chats,
            "conversations": contents.conversations,
            "turns": contents.turns,
            "counted_to": MAX_COUNTED,
            "expires_next": None
            if chat is None or chat.expires_at is None
            else {"chat_id": chat.id, "title": chat.title, "expires_at": int(chat.expires_at)},
        }
        # The bytes are those of all tenants: they are the operator's business.
        if tenant == DEFAULT_TENANT and contents.size is not None:
            body["bytes"] = contents.size
        await send_json(send, _encode(body))

    async def list_sums(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/usage: turns, tokens and cost of each day, model and key"""
        query, tenant = query_params(scope), tenant_of(scope)
        first, last = _parse_day(query, "from", 0), _parse_day(query, "to", _LAST_DAY)
        groupings = parse_groupings(query.get("by", ["day"])[-1])
        sums = add_up(await self._chats.usage_sums(tenant, first, last), groupings)
        names: dict[str, str | None] = {}
        if "key" in groupings and sums:
            names = await self._keys.key_names(tenant)
        body = [_sum_body(one, groupings, names) for one in sums]
        await send_json(send, _encode({"object": "list", "data": body}))


def _parse_day(query: Mapping[str, Sequence[str]], name: str, default: int) -> int:
    """A date, or Unix seconds, as days since 1970. Raises ``InvalidRequestError``."""
    text = query.get(name, [None])[-1]
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 11:
        return int(text) // 86_400
    try:
        if _DATE.match(text):
            return math.floor((datetime.fromisoformat(text + "T00:00:00+00:00") - _EPOCH).days)
    except ValueError:
        pass
    raise InvalidRequestError(f"{name} is a date, as 2026-01-31, or Unix seconds.", param=name)


def _sum_body(
    one: UsageSum, groupings: Sequence[str], names: Mapping[str, str | None]
) -> dict[str, Any]:
    body: dict[str, Any] = group_fields(one, groupings)
    if "key" in groupings:
        body["key_name"] = names.get(one.key_id or "")
    return {**body, "turns": one.turns, **sum_body(one.usage, one.cost)}
