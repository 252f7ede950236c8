"""Conversations in SQLite: create, list, update and delete them, and erase single items."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import partial

import msgspec

from antiphon.core.ids import (
    conversation_key,
    new_conversation_id,
    response_key,
)
from antiphon.core.items import ERASED_ITEM, ERASED_SUMMARY_ITEM
from antiphon.core.turns import ConversationRecord, IdempotencyReservation
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.deletion import (
    add_text,
    bump_epochs,
    delete_conversation,
    delete_texts,
    delete_unused_blobs,
    descendant_ranges,
    erase_derived_words,
    replace_text,
    tombstone,
    trees_of,
)
from antiphon.stores.sqlite.large_deletion import erase_most
from antiphon.stores.sqlite.reader import (
    CONVERSATION_SQL,
    PageRequest,
    has_expired,
    read_conversation,
    read_conversations,
    read_head,
    resolve_conversation,
    snapshot,
)
from antiphon.stores.sqlite.rows import (
    BLOB_USE,
    INPUT,
    OUTPUT,
    TURN_STRIDE,
    RowRange,
    decode_blob_use,
    last_of_turn,
    thread_of,
)
from antiphon.stores.sqlite.search.removal import index_again, take_out_ranges
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.stores.sqlite.write_transaction import WriteTransaction

_encoder = msgspec.json.Encoder()


class SqliteConversationStore:
    """A ``ConversationStore`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def create(
        self,
        tenant: str,
        metadata: dict[str, str],
        reservation: IdempotencyReservation | None = None,
    ) -> ConversationRecord:
        now = self._database.expiry.clock()
        conversation = ConversationRecord(new_conversation_id(), now, dict(metadata))
        await self._database.submit(
            WriteTransaction.create_conversation, tenant, conversation, reservation
        )
        return conversation

    async def get(self, tenant: str, conversation_id: str) -> ConversationRecord | None:
        cutoff = self._database.expiry.cutoff(tenant)
        return await self._database.read_inline(
            partial(
                read_conversation, tenant=tenant, conversation_id=conversation_id, cutoff=cutoff
            )
        )

    async def update_metadata(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> ConversationRecord | None:
        cutoff = self._database.expiry.cutoff(tenant)
        await self._database.submit(
            _update_metadata, tenant, conversation_id, dict(metadata), cutoff
        )
        return await self.get(tenant, conversation_id)

    async def move_head(self, tenant: str, seen: ConversationRecord, response_id: str) -> bool:
        cutoff = self._database.expiry.cutoff(tenant)
        moved: bool = await self._database.submit(_move_head, tenant, seen, response_id, cutoff)
        return moved

    async def list_conversations(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ConversationRecord]:
        page = PageRequest(limit, after, newest_first)
        cutoff = self._database.expiry.cutoff(tenant)
        read = partial(read_conversations, tenant=tenant, page=page, cutoff=cutoff)
        return await self._database.read_recovered(read)

    async def delete(self, tenant: str, conversation_id: str) -> bool:
        cutoff = self._database.expiry.cutoff(tenant)
        read = partial(
            _read_later_turns, tenant=tenant, conversation_id=conversation_id, cutoff=cutoff
        )
        await erase_most(self._database, read)
        erased: bool = await self._database.submit(
            erase_conversation, tenant, conversation_id, cutoff
        )
        return erased

    async def erase_item(self, tenant: str, response_id: str, position: int) -> bool:
        cutoff = self._database.expiry.cutoff(tenant)
        head = await self._database.read_inline(
            partial(read_head, tenant=tenant, response_id=response_id, cutoff=cutoff)
        )
        if head is None or head.is_running:
            return False
        erased: bool = await self._database.submit(erase_item, tenant, response_id, position)
        return erased


def _update_metadata(
    transaction: WriteTransaction,
    tenant: str,
    conversation_id: str,
    metadata: dict[str, str],
    cutoff: float,
) -> None:
    transaction.flush()
    found, _ = resolve_conversation(transaction.connection, tenant, conversation_id, cutoff)
    if found is not None:
        connection, key = transaction.connection, conversation_key(found.id)
        old = connection.execute(CONVERSATION_SQL["metadata"], (key,)).fetchall()
        new = add_text(connection, _encoder.encode(metadata))
        connection.execute(CONVERSATION_SQL["update_metadata"], (new, key))
        delete_texts(connection, [text_id for (text_id,) in old], transaction.erased)
        transaction.has_erased = True
        transaction.changes.add_conversation("conversation.updated", tenant, found.id)


def _move_head(
    transaction: WriteTransaction,
    tenant: str,
    seen: ConversationRecord,
    response_id: str,
    cutoff: float,
) -> bool:
    transaction.check_head_unchanged(tenant, seen, cutoff)
    connection, key = transaction.connection, response_key(response_id)
    if not connection.execute(TURN_SQL["row_id"], (key, tenant)).fetchall():
        return False
    connection.execute(CONVERSATION_SQL["move_head"], (key, None, conversation_key(seen.id)))
    transaction.changes.add_conversation("conversation.moved", tenant, seen.id)
    return True


def erase_conversation(
    transaction: WriteTransaction, tenant: str, conversation_id: str, cutoff: float
) -> bool:
    """Erase a conversation and those of its turns that no living turn of others descends from."""
    transaction.flush()
    connection = transaction.connection
    found, _ = resolve_conversation(connection, tenant, conversation_id, cutoff)
    key = conversation_key(conversation_id)
    if found is None or key is None:
        return False
    turns = connection.execute(CONVERSATION_SQL["turns"], (key,)).fetchall()
    erasable = _find_erasable(connection, [row_id for row_id, _ in turns], key, cutoff)
    row_ranges = _merge_row_ranges(erasable)
    take_out_ranges(connection, row_ranges)
    delete_unused_blobs(
        connection,
        set().union(*[tombstone(connection, one, transaction.erased) for one in row_ranges]),
        transaction.erased,
    )
    bump_epochs(connection, erasable)
    gone = set(erasable)
    for row_id, response in turns:
        if row_id in gone:
            (tree,) = trees_of(connection, [row_id])
            transaction.changes.add_erasure(tenant, tree, response)
    transaction.changes.add_conversation("conversation.erased", tenant, conversation_id)
    delete_conversation(connection, key, transaction.erased)
    transaction.has_erased = True
    return True


def _read_later_turns(
    connection: sqlite3.Connection, tenant: str, conversation_id: str, cutoff: float
) -> list[RowRange]:
    """The turns that go with a conversation, but for the first."""
    key = conversation_key(conversation_id)
    with snapshot(connection):
        found, _ = resolve_conversation(connection, tenant, conversation_id, cutoff)
        if found is None or key is None:
            return []
        row_ids = [row_id for row_id, _ in connection.execute(CONVERSATION_SQL["turns"], (key,))]
        return _merge_row_ranges(_find_erasable(connection, row_ids, key, cutoff)[1:])


def _find_erasable(
    connection: sqlite3.Connection, row_ids: list[int], key: bytes, cutoff: float
) -> list[int]:
    """Those of a conversation's turns that no living turn of others descends from, in order."""
    needed = _rows_needed_outside(connection, row_ids, key, cutoff)
    return [row_id for row_id in row_ids if row_id > needed.get(thread_of(row_id), -1)]


def _rows_needed_outside(
    connection: sqlite3.Connection, row_ids: list[int], key: bytes, cutoff: float
) -> dict[int, int]:
    """By thread: the last row id that turns outside a conversation descend from.

    ``row_ids`` are those of the conversation's turns, in order.
    """
    needed: dict[int, int] = {}
    seen: set[int] = set()
    for row_id in row_ids:
        if thread_of(row_id) in seen:
            continue
        for row_range in descendant_ranges(connection, row_id):
            seen.add(thread_of(row_range[0]))
            others = connection.execute(
                CONVERSATION_SQL["other_turns"], (*row_range, key)
            ).fetchall()
            for other, timestamp in others:
                if timestamp > cutoff or not has_expired(connection, other, cutoff):
                    _mark_needed(connection, needed, other)
                    break
    return needed


def _mark_needed(
    connection: sqlite3.Connection, needed: dict[int, int], row_id: int | None
) -> None:
    """Mark a turn and all its ancestors as needed."""
    while row_id is not None and needed.get(thread := thread_of(row_id), -1) < row_id:
        needed[thread] = row_id
        ((row_id,),) = connection.execute(CONVERSATION_SQL["parent"], (thread,)).fetchall()


def _merge_row_ranges(row_ids: Iterable[int]) -> list[RowRange]:
    """The turns as ranges, neighbours joined."""
    row_ranges: list[RowRange] = []
    for row_id in row_ids:
        first = row_id
        if row_ranges and last_of_turn(row_id - TURN_STRIDE) == row_ranges[-1][1]:
            first = row_ranges.pop()[0]
        row_ranges.append((first, last_of_turn(row_id)))
    return row_ranges


def erase_item(transaction: WriteTransaction, tenant: str, response_id: str, position: int) -> bool:
    """Replace an item by ``ErasedItem``, and delete images that no other item of its turn uses."""
    transaction.flush()
    connection = transaction.connection
    found = connection.execute(TURN_SQL["row_id"], (response_key(response_id), tenant)).fetchall()
    if not found or connection.execute(TURN_SQL["owner"], found[0]).fetchall():
        return False
    row_id: int = found[0][0]
    rows = connection.execute(TURN_SQL["rows"], (row_id, last_of_turn(row_id))).fetchall()
    items = [(row_id, text) for row_id, kind, _, text in rows if kind in (INPUT, OUTPUT)]
    if not 0 <= position < len(items) or items[position][1] in (ERASED_ITEM, ERASED_SUMMARY_ITEM):
        return False
    erased = transaction.erased
    index_again(connection, [row_id])
    replace_text(connection, items[position][0], ERASED_ITEM, erased)
    erase_derived_words(connection, row_id, erased)
    rest = [body for _, body in items[:position] + items[position + 1 :]]
    unused = {
        item_row_id: use
        for item_row_id, kind, use, _ in rows
        if kind == BLOB_USE and not _is_blob_used(connection, use, rest)
    }
    connection.executemany(TURN_SQL["delete_row"], [(item_row_id,) for item_row_id in unused])
    delete_unused_blobs(connection, unused.values(), erased)
    bump_epochs(connection, [row_id])
    trees = trees_of(connection, [row_id])
    erased.trees.update(trees)
    for tree in trees:
        transaction.changes.add_chat("chat.updated", tenant, tree)
    transaction.has_erased = True
    return True


def _is_blob_used(connection: sqlite3.Connection, use: bytes, items: list[bytes]) -> bool:
    rows = connection.execute(TURN_SQL["blob_hash"], (decode_blob_use(use),)).fetchall()
    return any(rows[0][0].hex().encode() in item for item in items) if rows else False
