"""Chats as a whole in SQLite: imported in one transaction, and listed with all their branches."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from antiphon.core.ids import (
    chat_id_of,
    conversation_key,
    new_conversation_id,
    new_response_id,
    response_key,
)
from antiphon.core.retention import Expiry
from antiphon.stores.imported_conversations import header_in, new_head_of, record_of
from antiphon.stores.sqlite.chat_reader import conversation_of
from antiphon.stores.sqlite.chats import set_chat_fields
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.reader import (
    CONVERSATION_SQL,
    has_expired,
    read_head,
    resolve_conversation,
    snapshot,
)
from antiphon.stores.sqlite.rows import (
    HEADER,
    decode_header_time,
    first_of_thread,
    last_of_thread,
    response_id_in,
    row_id_of,
    seq_of,
    thread_of,
)
from antiphon.stores.sqlite.sql_files import CHAT_SQL, TURN_SQL, read_queries
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.chat_protocols import ChatUpdate
from antiphon.turn.store_protocols import Head, NewTurn
from antiphon.turn.transfer_protocols import ChatImport, ChatImportResult, TreeTurn, TurnImport

_SQL: Final = read_queries("chat_transfer.sql")


class SqliteChatTransferStore:
    """A ``ChatTransferStore`` in the file of a SQLite store.

    ``on_turn_end`` is called for each import, so that the search index looks for new turns.
    """

    def __init__(self, database: SqliteDatabase, on_turn_end: Callable[[], None]) -> None:
        self._database = database
        self._on_turn_end = on_turn_end

    async def import_chat(self, chat: ChatImport) -> ChatImportResult:
        self._on_turn_end()
        result: ChatImportResult = await self._database.submit(
            import_chat, chat, self._database.expiry
        )
        return result

    async def tree(self, tenant: str, response_id: str) -> list[TreeTurn]:
        cutoff = self._database.expiry.cutoff(tenant)
        return await self._database.read_pooled(
            partial(_read_tree, tenant=tenant, response_id=response_id, cutoff=cutoff)
        )


class _KnownTurn(msgspec.Struct, frozen=True):
    """A turn that was there before: it, or the tombstone in its place."""

    head: Head
    is_erased: bool


def import_chat(
    transaction: WriteTransaction, chat: ChatImport, expiry: Expiry
) -> ChatImportResult:
    """Write the turns of a chat that are not there yet."""
    transaction.flush()
    connection = transaction.connection
    cutoff = expiry.cutoff(chat.tenant)
    known = [_find_known(connection, chat.tenant, turn, cutoff) for turn in chat.turns]
    if all(one is None or one.is_erased for one in known):
        # Nothing is left of it: whoever imports it again wants it back.
        known = [None] * len(known)
    now = expiry.clock()
    times = _times_of(connection, known)
    conversation_id = _conversation_id(transaction, chat, _tree_of(known), expiry)
    heads: list[Head] = []
    first: Head | None = None
    added: list[tuple[str, bytes, int, bool]] = []
    for turn, one in zip(chat.turns, known, strict=True):
        parent = None if turn.parent is None else heads[turn.parent]
        if one is not None:
            head = one.head
        else:
            header = header_in(turn, conversation_id)
            changed = msgspec.structs.replace(turn, header=header)
            head = _add_turn(transaction, chat.tenant, changed, (parent, first), now)
            row_id = row_id_of(head.thread, head.seq)
            added.append((chat.tenant, turn.digest, row_id, turn.is_of_words))
        heads.append(head)
        first = first or head
    transaction.flush()
    connection.executemany(_SQL["remember"], added)
    assert first is not None, "a chat has turns"
    if added:
        _set_chat(transaction, chat, first, times, now)
    names = tuple(head.response_id for head in heads)
    if added and conversation_id is not None:
        if times is None:
            _create_conversation(transaction, chat, conversation_id, heads)
        else:
            _move_on(transaction, chat, conversation_id, names, cutoff)
    return ChatImportResult(
        _chat_id(connection, first.tree),
        names,
        len(added),
        sum(one is not None and one.is_erased for one in known),
        conversation_id,
    )


def _tree_of(known: Sequence[_KnownTurn | None]) -> int | None:
    """The chat that turns are of already; None: it is new."""
    return next((one.head.tree for one in known if one is not None), None)


def _conversation_id(
    transaction: WriteTransaction, chat: ChatImport, tree: int | None, expiry: Expiry
) -> str | None:
    """The id that a chat's conversation has here, or gets; None: there is none."""
    if chat.conversation is None:
        return None
    if tree is not None:
        name, _ = conversation_of(transaction.connection, chat.tenant, tree, expiry)
        return name
    key = conversation_key(chat.conversation.id)
    exists = CONVERSATION_SQL["metadata"]
    is_taken = key is None or transaction.connection.execute(exists, (key,)).fetchall()
    return new_conversation_id() if is_taken else chat.conversation.id


def _create_conversation(
    transaction: WriteTransaction, chat: ChatImport, name: str, heads: Sequence[Head]
) -> None:
    """Create the conversation of a chat that is new."""
    assert chat.conversation is not None, "it has an id"
    transaction.create_conversation(chat.tenant, record_of(chat.conversation, name))
    position, key = chat.conversation.head, conversation_key(name)
    head = None if position is None else response_key(heads[position].response_id)
    transaction.connection.execute(CONVERSATION_SQL["move_head"], (head, None, key))
    transaction.connection.execute(CHAT_SQL["set_conversation"], (key, heads[0].tree))


def _move_on(
    transaction: WriteTransaction,
    chat: ChatImport,
    name: str,
    response_ids: Sequence[str],
    cutoff: float,
) -> None:
    """Move the head of a conversation on to turns that were added, where they continue it."""
    connection = transaction.connection
    current, _ = resolve_conversation(connection, chat.tenant, name, cutoff)
    head = None if current is None else new_head_of(chat, response_ids, current)
    if head is not None:
        values = (response_key(head), None, conversation_key(name))
        connection.execute(CONVERSATION_SQL["move_head"], values)
        transaction.changes.add_conversation("conversation.moved", chat.tenant, name)


def _times_of(
    connection: sqlite3.Connection, known: Sequence[_KnownTurn | None]
) -> tuple[float, float] | None:
    """When a chat was created and last written to; None: it is not there yet."""
    for one in known:
        if one is not None:
            rows = connection.execute(CHAT_SQL["times"], (one.head.tree,)).fetchall()
            return rows[0] if rows else None
    return None


def _set_chat(
    transaction: WriteTransaction,
    chat: ChatImport,
    first: Head,
    times: tuple[float, float] | None,
    now: float,
) -> None:
    """Give a chat the times that it had, and one that is new its title and the rest."""
    created_at, updated_at = times or (chat.created_at, chat.updated_at)
    updated_at = max(updated_at, chat.updated_at)
    transaction.connection.execute(
        CHAT_SQL["set_imported"], (created_at, updated_at, now, first.tree)
    )
    transaction.changes.add_chat("chat.updated", chat.tenant, first.tree)
    if times is None:
        update = ChatUpdate(title=chat.title, is_pinned=chat.is_pinned, metadata=chat.metadata)
        set_chat_fields(transaction, first.tree, update)


def _chat_id(connection: sqlite3.Connection, tree: int) -> str:
    rows = connection.execute(CHAT_SQL["key"], (tree,)).fetchall()
    return chat_id_of(rows[0][0])


def _find_known(
    connection: sqlite3.Connection, tenant: str, turn: TurnImport, cutoff: float
) -> _KnownTurn | None:
    for query, values in (
        ("by_digest", (tenant, turn.digest)),
        ("by_response", (response_key(turn.response_id), tenant)),
    ):
        for (row_id,) in connection.execute(_SQL[query], values).fetchall():
            found = _known_at(connection, tenant, row_id, cutoff)
            if found is not None:
                return found
    return None


def _known_at(
    connection: sqlite3.Connection, tenant: str, row_id: int, cutoff: float
) -> _KnownTurn | None:
    rows = connection.execute(_SQL["turn"], (row_id, tenant)).fetchall()
    if not rows:
        return None
    kind, key, tree, epoch, timestamp = rows[0]
    is_alive = kind == HEADER and not (
        timestamp <= cutoff and has_expired(connection, row_id, cutoff)
    )
    head = Head(
        response_id_in(key),
        tenant,
        thread_of(row_id),
        seq_of(row_id),
        tree,
        epoch,
        is_running=False,
        timestamp=timestamp,
    )
    return _KnownTurn(head, not is_alive)


def _add_turn(
    transaction: WriteTransaction,
    tenant: str,
    turn: TurnImport,
    near: tuple[Head | None, Head | None],
    now: float,
) -> Head:
    """Write one turn; its head. ``near`` are its parent and the first turn of its chat."""
    parent, first = near
    key = response_key(turn.response_id)
    exists = TURN_SQL["response_exists"]
    is_taken = key is None or transaction.connection.execute(exists, (key,)).fetchall()
    new = NewTurn(
        new_response_id() if is_taken else turn.response_id,
        tenant,
        turn.created_at,
        turn.header,
        turn.input,
        parent=parent,
        sibling=first if parent is None else None,
        blobs=turn.blobs,
        stored_at=now,
    )
    row_id = transaction.add_whole_turn(new, turn.output, turn.end)
    return Head(
        new.response_id,
        tenant,
        thread_of(row_id),
        seq_of(row_id),
        thread_of(row_id) if first is None else first.tree,
        0 if first is None else first.epoch,
        is_running=False,
        timestamp=now,
    )


def _read_tree(
    connection: sqlite3.Connection, tenant: str, response_id: str, cutoff: float
) -> list[TreeTurn]:
    with snapshot(connection):
        head, _ = read_head(connection, tenant, response_id, cutoff)
        if head is None:
            return []
        turns: list[TreeTurn] = []
        #: By the row id of a turn or a tombstone: the nearest turn that is not erased.
        nearest: dict[int, str | None] = {}
        threads = connection.execute(_SQL["threads"], {"tree": head.tree}).fetchall()
        for thread, parent in threads:
            above = nearest.get(parent)
            first = first_of_thread(row_id_of(thread, 0))
            rows = connection.execute(_SQL["headers"], (first, last_of_thread(first))).fetchall()
            for row_id, kind, key in rows:
                if kind == HEADER:
                    name = response_id_in(key)
                    turns.append(TreeTurn(name, decode_header_time(key), above))
                    above = name
                nearest[row_id] = above
        return turns
