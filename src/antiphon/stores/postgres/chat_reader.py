"""Reads of chats in the PostgreSQL store: a page of a list takes three queries, however long they
are.

A read that meets a turn without an end also returns the node that runs it, where that is dead.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from antiphon.core.chat_titles import TITLE_ITEMS, opening_of
from antiphon.core.ids import (
    chat_id_of,
    chat_key,
    conversation_id_of,
    response_id_of,
    response_key,
)
from antiphon.core.retention import Expiry
from antiphon.core.turns import TurnStatus, Usage
from antiphon.stores.postgres.conversation_reader import resolve_conversation
from antiphon.stores.postgres.reader import has_expired, read_head
from antiphon.stores.postgres.rows import TurnKey, decode_items
from antiphon.stores.postgres.sql_files import TURN_SQL, read_queries
from antiphon.turn.chat_protocols import ChatFilter, ChatRecord, ChatStatus, UsageSum
from antiphon.turn.store_protocols import unknown_cursor

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

CHAT_SQL: Final = read_queries("chats.sql")
#: Where a chat is in the order of a list: its ``updated_at`` and its tree.
ChatPosition: TypeAlias = tuple[float, int]
_BEFORE_FIRST: Final = (-math.inf, -1)
_AFTER_LAST: Final = (math.inf, -1)
#: Lists that are a handful, whatever there is besides: they are sorted when they are read.
_FEW: Final = ("running", "waiting", "pinned")
#: At most so many chats are read at once, of those that may match a filter.
_MAX_STEP: Final = 200

_metadata_decoder = msgspec.json.Decoder(dict[str, str])


class ChatPage(msgspec.Struct, frozen=True):
    """A page of a list of chats."""

    limit: int
    after: str | None
    newest_first: bool


class _HeaderModel(msgspec.Struct, frozen=True):
    """The one field of a header that a list shows."""

    model: str


class _EndFields(msgspec.Struct, frozen=True):
    """Those of an end."""

    status: TurnStatus
    model: str | None = None


_header_decoder = msgspec.json.Decoder(_HeaderModel)
_end_decoder = msgspec.json.Decoder(_EndFields)


class TurnSummary(msgspec.Struct, frozen=True):
    """What lists show of a turn. ``model`` is the one that answered, or else was requested."""

    response_id: str
    created_at: float
    model: str
    status: TurnStatus
    opening: str | None


async def read_chats(
    connection: Connection, tenant: str, page: ChatPage, chat_filter: ChatFilter, expiry: Expiry
) -> tuple[list[ChatRecord], set[int]]:
    """A page of chats. Raises ``InvalidRequestError`` where ``page.after`` is none of them."""
    start = _AFTER_LAST if page.newest_first else _BEFORE_FIRST
    if page.after is not None:
        found = await find_chat(connection, tenant, page.after, expiry)
        if found is None:
            raise unknown_cursor(page.after)
        start = found
    chats: list[ChatRecord] = []
    dead: set[int] = set()
    if page.limit < 1:
        return chats, dead
    async for trees in _trees(connection, tenant, page, chat_filter, start):
        records, nodes = await read_records(connection, tenant, trees, expiry)
        dead |= nodes
        found_here = [records[tree] for tree in trees if tree in records]
        chats += [chat for chat in found_here if chat_filter.matches(chat)]
        if len(chats) >= page.limit:
            break
    return chats[: page.limit], dead


async def _trees(
    connection: Connection,
    tenant: str,
    page: ChatPage,
    chat_filter: ChatFilter,
    start: ChatPosition,
) -> AsyncIterator[list[int]]:
    """The trees of the chats that may match, in the page's order, some at a time."""
    few = "pinned" if chat_filter.is_pinned else chat_filter.status or ""
    step = page.limit
    if few in _FEW:
        rows = await connection.fetch(CHAT_SQL[few], tenant)
        positions = sorted(((at, tree) for tree, at in rows), reverse=page.newest_first)
        trees = [
            position[1]
            for position in positions
            if (position < start if page.newest_first else position > start)
        ]
        for at in range(0, len(trees), step):
            yield trees[at : at + step]
        return
    query = CHAT_SQL["backwards" if page.newest_first else "forwards"]
    while rows := await connection.fetch(query, tenant, *start, step):
        yield [tree for tree, _ in rows]
        if len(rows) < step:
            return
        start = (rows[-1][1], rows[-1][0])
        step = min(2 * step, _MAX_STEP)


async def find_chat(
    connection: Connection, tenant: str, name: str, expiry: Expiry
) -> ChatPosition | None:
    """Where a chat is, by its own id, one of its responses' or its conversation's."""
    cutoff = expiry.cutoff(tenant)
    query, key = "position_of_response", None
    if name.startswith("conv_"):
        conversation, _ = await resolve_conversation(connection, tenant, name, cutoff)
        if conversation is not None:
            key = response_key(conversation.active_response_id or conversation.head or "")
    elif name.startswith("chat_"):
        query, key = "chat_position", chat_key(name)
    else:
        key = response_key(name)
        if key is not None and cutoff > -math.inf:
            head, _ = await read_head(connection, tenant, name, cutoff)
            key = None if head is None else key
    row = None if key is None else await connection.fetchrow(CHAT_SQL[query], tenant, key)
    if row is None or row[2] <= cutoff:
        return None
    return row[0], row[1]


async def read_chat(
    connection: Connection, tenant: str, name: str, expiry: Expiry
) -> tuple[ChatRecord | None, set[int]]:
    """One chat, by any of its ids."""
    found = await find_chat(connection, tenant, name, expiry)
    if found is None:
        return None, set()
    records, dead = await read_records(connection, tenant, [found[1]], expiry)
    return records.get(found[1]), dead


async def read_chats_of(
    connection: Connection, tenant: str, response_ids: Sequence[str], expiry: Expiry
) -> tuple[list[ChatRecord | None], set[int]]:
    """The chat of each response."""
    positions = [await find_chat(connection, tenant, name, expiry) for name in response_ids]
    trees = list(dict.fromkeys(position[1] for position in positions if position is not None))
    records, dead = await read_records(connection, tenant, trees, expiry)
    return [None if one is None else records.get(one[1]) for one in positions], dead


async def read_records(
    connection: Connection, tenant: str, trees: Sequence[int], expiry: Expiry
) -> tuple[dict[int, ChatRecord], set[int]]:
    """The chats of trees, those that have expired left out."""
    cutoff = expiry.cutoff(tenant)
    found = await connection.fetch(CHAT_SQL["chats"], tenant, trees) if trees else []
    rows = [row for row in found if row["timestamp"] > cutoff]
    shown: dict[int, tuple[str | None, TurnKey]] = {}
    for row in rows:
        conversation, key = await _conversation_head(connection, tenant, row, cutoff)
        newest = TurnKey(row["tree"], row["newest_thread"], row["newest_seq"])
        shown[row["tree"]] = (conversation, key or newest)
    turns = await read_summaries(connection, [key for _, key in shown.values()])
    records = {
        row["tree"]: _record(row, *shown[row["tree"]], turns[shown[row["tree"]][1]], expiry)
        for row in rows
    }
    dead = {row["node"] for row in rows if row["node"] is not None and row["living_node"] is None}
    return records, dead


def _record(
    row: Any, conversation: str | None, head: TurnKey, turn: TurnSummary, expiry: Expiry
) -> ChatRecord:
    title = _opening(row["opening"]) if row["title"] is None else _text(row["title"])
    return ChatRecord(
        id=chat_id_of(row["key"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        head=turn.response_id,
        turns=head.seq + 1,
        branches=row["branches"],
        model=turn.model,
        status=_status(row),
        title=title,
        conversation=conversation,
        expires_at=expiry.expires_at(row["tenant"], row["timestamp"]),
        is_pinned=row["is_pinned"],
        is_permanent=row["is_permanent"],
        metadata=_metadata_decoder.decode(row["metadata"]) if row["metadata"] else {},
        usage=Usage(row["input_tokens"], row["output_tokens"], row["cached_tokens"]),
        cost=row["cost"],
    )


def _status(row: Any) -> ChatStatus:
    if row["node"] is not None:
        return "running"
    return "waiting" if row["is_waiting"] else "idle"


async def _conversation_head(
    connection: Connection, tenant: str, row: Any, cutoff: float
) -> tuple[str | None, TurnKey | None]:
    """A chat's conversation and its head, which may be gone, or of another chat.

    In nearly all conversations it is the turn that was begun last.
    """
    if row["conversation"] is None:
        return None, None
    name = conversation_id_of(row["conversation"])
    ending = row["active_ending"]
    is_good = row["is_active_running"] or (
        ending is not None and _end_decoder.decode(ending).status in {"completed", "incomplete"}
    )
    if cutoff == -math.inf and row["active_tree"] == row["tree"] and is_good:
        return name, TurnKey(row["active_tree"], row["active_thread"], row["active_seq"])
    found, _ = await resolve_conversation(connection, tenant, name, cutoff)
    head = response_key((found.active_response_id or found.head or "") if found else "")
    key = None if head is None else await connection.fetchrow(TURN_SQL["turn_key"], tenant, head)
    return (name, TurnKey(*key)) if key is not None and key[0] == row["tree"] else (None, None)


async def read_summaries(
    connection: Connection, keys: Sequence[TurnKey]
) -> dict[TurnKey, TurnSummary]:
    """What lists show of turns that are not erased."""
    if not keys:
        return {}
    rows = await connection.fetch(CHAT_SQL["turns"], *zip(*keys, strict=True))
    return {TurnKey(*row[:3]): _summary(row) for row in rows}


def _summary(row: Any) -> TurnSummary:
    end = None if row["ending"] is None else _end_decoder.decode(row["ending"])
    header = _header_decoder.decode(row["header"]) if row["header"] else _HeaderModel("")
    return TurnSummary(
        response_id_of(row["key"]),
        row["created_at"] or 0.0,
        (end.model if end else None) or header.model,
        end.status if end else "in_progress",
        _opening(row["input"]),
    )


def _opening(packed: bytes | None) -> str | None:
    return None if packed is None else opening_of(decode_items(packed)[:TITLE_ITEMS])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


async def read_running_turns(
    connection: Connection, tenant: str, name: str, expiry: Expiry
) -> list[str]:
    """The ids of a chat's turns that run."""
    found = await find_chat(connection, tenant, name, expiry)
    if found is None:
        return []
    rows = await connection.fetch(CHAT_SQL["running_in_tree"], found[1], tenant)
    return [response_id_of(row[0]) for row in rows]


async def read_usage_sums(
    connection: Connection, tenant: str, days: tuple[int, int]
) -> list[UsageSum]:
    """What ended turns used, by day, model and key."""
    rows = await connection.fetch(CHAT_SQL["usage_sums"], tenant, *days)
    return [
        UsageSum(day, _text(model), turns, Usage(given, output, cached), cost, key_id or None)
        for day, model, key_id, turns, given, cached, output, cost in rows
    ]


async def read_waiting(
    connection: Connection, tenant: str, expiry: Expiry
) -> list[tuple[ChatRecord, TurnKey]]:
    """The turns that wait for a person with their chats, newest first."""
    rows = await connection.fetch(CHAT_SQL["waiting_turns"], tenant)
    keys = [TurnKey(*row) for row in rows]
    records, _ = await read_records(connection, tenant, [key.tree for key in keys], expiry)
    cutoff = expiry.cutoff(tenant)
    return [
        (records[key.tree], key)
        for key in keys
        if key.tree in records and not await has_expired(connection, key, cutoff)
    ]
