"""Reads of chats in the SQLite store: one row a chat, whatever its length."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from antiphon.core.ids import (
    chat_id_of,
    chat_key,
    conversation_id_of,
    response_id_of,
    response_key,
)
from antiphon.core.retention import Expiry
from antiphon.core.turns import TurnStatus, Usage
from antiphon.stores.sqlite.chain_reader import opening_at, response_at, turns_at
from antiphon.stores.sqlite.reader import (
    CONVERSATION_SQL,
    PageRequest,
    has_expired,
    read_head,
    resolve_conversation,
    snapshot,
)
from antiphon.stores.sqlite.rows import (
    decode_end,
    decode_header_time,
    first_of_thread,
    last_of_thread,
    last_of_turn,
    row_id_of,
    seq_of,
    thread_of,
)
from antiphon.stores.sqlite.sql_files import CHAT_SQL, TURN_SQL
from antiphon.turn.chat_protocols import (
    MAX_COUNTED,
    ChatBranch,
    ChatFilter,
    ChatRecord,
    ChatStatus,
    StoreContents,
    UsageSum,
)
from antiphon.turn.store_protocols import StoredTurn, unknown_cursor

#: Where a chat is in the order of a list: its ``updated_at`` and its tree.
ChatPosition: TypeAlias = tuple[float, int]
_BEFORE_FIRST: Final = (-math.inf, -1)
_AFTER_LAST: Final = (math.inf, -1)

#: Lists that are a handful, whatever there is besides: they are sorted when they are read.
_FEW: Final = {"running": "running_trees", "waiting": "waiting_trees", "pinned": "pinned_trees"}


class _Model(msgspec.Struct, frozen=True):
    """The one field of a header or an end that a list shows."""

    model: str | None = None


_model_decoder = msgspec.json.Decoder(_Model)
_metadata_decoder = msgspec.json.Decoder(dict[str, str])


def read_chats(
    connection: sqlite3.Connection,
    tenant: str,
    page: PageRequest,
    chat_filter: ChatFilter,
    expiry: Expiry,
) -> tuple[list[ChatRecord], set[int]]:
    """A page of chats, and the owners of their running turns.

    Raises ``InvalidRequestError`` where ``page.after`` is none of them.
    """
    with snapshot(connection):
        start = _AFTER_LAST if page.newest_first else _BEFORE_FIRST
        if page.after is not None:
            found = find_chat(connection, tenant, page.after, expiry)
            if found is None:
                raise unknown_cursor(page.after)
            start = found
        chats: list[ChatRecord] = []
        owners: set[int] = set()
        for tree in _trees(connection, tenant, page, chat_filter, start):
            if len(chats) == page.limit:
                break
            chat, running = chat_at(connection, tenant, tree, expiry)
            if chat is not None and chat_filter.matches(chat):
                chats.append(chat)
                owners |= running
        return chats, owners


def _trees(
    connection: sqlite3.Connection,
    tenant: str,
    page: PageRequest,
    chat_filter: ChatFilter,
    start: ChatPosition,
) -> Iterator[int]:
    """The trees of the chats that may match, in the page's order."""
    few = _FEW.get("pinned" if chat_filter.is_pinned else chat_filter.status or "")
    if few is not None:
        query = CHAT_SQL[few]
        positions = [(at, tree) for tree, at in connection.execute(query, (tenant,)).fetchall()]
        positions.sort(reverse=page.newest_first)
        for position in positions:
            if position < start if page.newest_first else position > start:
                yield position[1]
        return
    query = CHAT_SQL["backwards" if page.newest_first else "forwards"]
    cursor = connection.execute(query, (tenant, *start))
    for (tree,) in cursor:
        yield tree
    cursor.close()


def find_chat(
    connection: sqlite3.Connection, tenant: str, name: str, expiry: Expiry
) -> ChatPosition | None:
    """Where a chat is, by its own id, one of its responses' or its conversation's."""
    cutoff = expiry.cutoff(tenant)
    query, key = "tree_of_response", None
    if name.startswith("conv_"):
        conversation, _ = resolve_conversation(connection, tenant, name, cutoff)
        if conversation is not None:
            key = response_key(conversation.active_response_id or conversation.head or "")
    elif name.startswith("chat_"):
        query, key = "tree_of_chat", chat_key(name)
    else:
        head, _ = read_head(connection, tenant, name, cutoff)
        key = response_key(name) if head is not None else None
    rows = connection.execute(CHAT_SQL[query], (key, tenant)).fetchall()
    if not rows or rows[0][2] <= cutoff:
        return None
    tree, updated_at, _ = rows[0]
    return updated_at, tree


def read_chat(
    connection: sqlite3.Connection, tenant: str, name: str, expiry: Expiry
) -> tuple[ChatRecord | None, set[int]]:
    """One chat, by any of its ids."""
    with snapshot(connection):
        found = find_chat(connection, tenant, name, expiry)
        return (None, set()) if found is None else chat_at(connection, tenant, found[1], expiry)


def read_chats_of(
    connection: sqlite3.Connection, tenant: str, response_ids: tuple[str, ...], expiry: Expiry
) -> tuple[list[ChatRecord | None], set[int]]:
    """The chat of each response."""
    with snapshot(connection):
        chats: dict[int, ChatRecord | None] = {}
        owners: set[int] = set()
        found: list[ChatRecord | None] = []
        for name in response_ids:
            position = find_chat(connection, tenant, name, expiry)
            tree = position[1] if position else -1
            if tree not in chats:
                chats[tree], running = chat_at(connection, tenant, tree, expiry)
                owners |= running
            found.append(chats[tree])
        return found, owners


def read_running_turns(
    connection: sqlite3.Connection, tenant: str, name: str, expiry: Expiry
) -> list[str]:
    """The ids of a chat's turns that run."""
    with snapshot(connection):
        found = find_chat(connection, tenant, name, expiry)
        if found is None:
            return []
        rows = connection.execute(CHAT_SQL["running_in_tree"], (found[1],)).fetchall()
        return [response_id_of(key) for (key,) in rows]


def read_chat_branches(
    connection: sqlite3.Connection, tenant: str, name: str, expiry: Expiry
) -> tuple[list[ChatBranch] | None, set[int]]:
    """The branches of a chat: one a thread that has turns."""
    with snapshot(connection):
        found = find_chat(connection, tenant, name, expiry)
        if found is None:
            return None, set()
        branches = []
        threads = connection.execute(CHAT_SQL["threads"], {"tree": found[1]}).fetchall()
        for (thread,) in sorted(threads):
            branch = _chat_branch(connection, thread, expiry.cutoff(tenant))
            if branch is not None:
                branches.append(branch)
        owners = connection.execute(TURN_SQL["owners"]).fetchall()
        running = any(one.status == "in_progress" for one in branches)
        return branches, {owner for (owner,) in owners} if running else set()


def _chat_branch(connection: sqlite3.Connection, thread: int, cutoff: float) -> ChatBranch | None:
    row_range = (row_id_of(thread, 0), last_of_thread(row_id_of(thread, 0)))
    first = connection.execute(CHAT_SQL["first_turn"], row_range).fetchall()
    last = connection.execute(CHAT_SQL["previous_living"], row_range).fetchall()
    if not first or has_expired(connection, last[0][0], cutoff):
        return None
    created_at, _ = _time_and_status(connection, first[0][0])
    updated_at, status = _time_and_status(connection, last[0][0])
    parents = connection.execute(CONVERSATION_SQL["parent"], (thread,)).fetchall()
    forks_from = None
    if parents and parents[0][0] is not None:
        above = (first_of_thread(parents[0][0]), parents[0][0])
        for _, key in connection.execute(CHAT_SQL["previous_living"], above).fetchall():
            forks_from = response_id_of(key[:16])
    return ChatBranch(
        leaf=response_at(connection, last[0][0]),
        forks_from=forks_from,
        opening=opening_at(connection, first[0][0]),
        turns=seq_of(last[0][0]) + 1,
        created_at=created_at,
        updated_at=updated_at,
        status=status,
    )


def _time_and_status(connection: sqlite3.Connection, row_id: int) -> tuple[float, TurnStatus]:
    """When a turn was created, and what has become of it."""
    ((key, _),) = connection.execute(TURN_SQL["row"], (row_id,)).fetchall()
    ending = connection.execute(TURN_SQL["row"], (last_of_turn(row_id),)).fetchall()
    status: TurnStatus = decode_end(ending[0][1]).status if ending else "in_progress"
    return decode_header_time(key), status


def read_usage_sums(
    connection: sqlite3.Connection, tenant: str, days: tuple[int, int]
) -> list[UsageSum]:
    """What ended turns used, by day, model and key."""
    rows = connection.execute(CHAT_SQL["usage_sums"], (tenant, *days)).fetchall()
    return [
        UsageSum(day, model, turns, Usage(given, output, cached), cost, key_id or None)
        for day, model, key_id, turns, given, cached, output, cost in rows
    ]


def read_contents(connection: sqlite3.Connection, tenant: str) -> StoreContents:
    """How much there is of a tenant."""
    values = {"tenant": tenant, "limit": MAX_COUNTED}
    return StoreContents(*connection.execute(CHAT_SQL["contents"], values).fetchall()[0])


def read_image(connection: sqlite3.Connection, tenant: str, sha256: str) -> bytes | None:
    """The bytes of an image."""
    rows = connection.execute(CHAT_SQL["image"], (tenant, bytes.fromhex(sha256))).fetchall()
    return rows[0][0] if rows else None


def read_waiting_turns(
    connection: sqlite3.Connection, tenant: str, expiry: Expiry
) -> list[tuple[ChatRecord, StoredTurn]]:
    """The turns that wait for a person, newest first."""
    with snapshot(connection):
        rows = connection.execute(CHAT_SQL["waiting_turns"], (tenant,)).fetchall()
        found = []
        for _, row_id, tree in sorted(rows, reverse=True):
            chat, _ = chat_at(connection, tenant, tree, expiry)
            if chat is not None and not has_expired(connection, row_id, expiry.cutoff(tenant)):
                found.append((chat, turns_at(connection, [row_id], with_images=False)[0]))
        return found


class _ChatRow(msgspec.Struct, frozen=True):
    """What the query ``chat`` gives."""

    key: bytes
    created_at: float
    updated_at: float
    newest: int
    branches: int
    conversation: bytes | None
    is_pinned: int
    is_permanent: int
    title: bytes | None
    metadata: bytes | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: float | None
    owner: int | None
    waiting: int | None
    timestamp: float

    @property
    def status(self) -> ChatStatus:
        if self.owner is not None:
            return "running"
        return "idle" if self.waiting is None else "waiting"


def chat_at(
    connection: sqlite3.Connection, tenant: str, tree: int, expiry: Expiry
) -> tuple[ChatRecord | None, set[int]]:
    """The chat of a tree, and the owner of its newest turn. None: gone, or expired."""
    rows = connection.execute(CHAT_SQL["chat"], (tree,)).fetchall()
    if not rows or rows[0][-1] <= expiry.cutoff(tenant):
        return None, set()
    row = _ChatRow(*rows[0])
    conversation, head = None, None
    if row.conversation is not None:
        conversation, head = conversation_of(connection, tenant, tree, expiry, row.conversation)
    row_id = row.newest if head is None else head
    chat = ChatRecord(
        id=chat_id_of(row.key),
        created_at=row.created_at,
        updated_at=row.updated_at,
        head=response_at(connection, row_id),
        turns=seq_of(row_id) + 1,
        branches=row.branches,
        model=_model_at(connection, row_id),
        status=row.status,
        title=(_opening(connection, tree, row.newest) if row.title is None else row.title.decode()),
        conversation=conversation,
        expires_at=expiry.expires_at(tenant, row.timestamp),
        is_pinned=bool(row.is_pinned),
        is_permanent=bool(row.is_permanent),
        metadata=_metadata_decoder.decode(row.metadata) if row.metadata else {},
        usage=Usage(row.input_tokens, row.output_tokens, row.cached_tokens),
        cost=row.cost,
    )
    return chat, set() if row.owner is None else {row.owner}


def conversation_of(
    connection: sqlite3.Connection,
    tenant: str,
    tree: int,
    expiry: Expiry,
    key: bytes | None = None,
) -> tuple[str | None, int | None]:
    """A chat's conversation and the row id of its head; ``key`` is the one that its turns name.

    It may be gone, or of another chat: where all its turns were erased, it begins a new one.
    """
    if key is None:
        rows = connection.execute(CHAT_SQL["conversation"], (tree,)).fetchall()
        key = rows[0][0] if rows else None
    if key is None:
        return None, None
    name = conversation_id_of(key)
    found, _ = resolve_conversation(connection, tenant, name, expiry.cutoff(tenant))
    head = response_key((found.active_response_id or found.head or "") if found else "")
    for (row_id,) in connection.execute(TURN_SQL["row_id"], (head, tenant)).fetchall():
        if connection.execute(TURN_SQL["tree_of"], (thread_of(row_id),)).fetchall() == [(tree,)]:
            return name, row_id
    return None, None


def _model_at(connection: sqlite3.Connection, row_id: int) -> str:
    """The model that answered, or else the one that was requested."""
    for at in (last_of_turn(row_id), row_id):
        for _, text in connection.execute(TURN_SQL["row"], (at,)).fetchall():
            model = _model_decoder.decode(text).model
            if model is not None:
                return model
    return ""


def _opening(connection: sqlite3.Connection, tree: int, newest: int) -> str | None:
    """The first words of the oldest turn of the chat's first thread, or else of its newest one."""
    for thread in dict.fromkeys((tree, thread_of(newest))):
        first = first_of_thread(row_id_of(thread, 0))
        turn = connection.execute(CHAT_SQL["first_turn"], (first, last_of_thread(first))).fetchall()
        if not turn:
            continue
        return opening_at(connection, turn[0][0])
    return None
