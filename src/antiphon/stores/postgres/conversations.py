"""Conversations in PostgreSQL: create, list, update and delete them, and erase single items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.core.ids import conversation_key, new_conversation_id, response_key
from antiphon.core.items import ERASED_ITEM, ERASED_SUMMARY_ITEM, is_summary
from antiphon.core.turns import ConversationRecord, IdempotencyReservation
from antiphon.stores.postgres.conversation_reader import (
    CONVERSATION_SQL,
    list_conversations,
    resolve_conversation,
)
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.deletion import (
    DELETION_SQL,
    bump_epoch,
    delete_blob_uses_of,
    erase_derived_words,
    lock_turn,
    merge_ranges,
    tombstone,
)
from antiphon.stores.postgres.reader import PageRequest, has_expired, read_head
from antiphon.stores.postgres.retention_sweep import mark_needed
from antiphon.stores.postgres.rows import (
    TurnKey,
    decode_items,
    encode_items,
    encode_json,
    unpack_hashes,
)
from antiphon.stores.postgres.search.erasure import reindex_turns
from antiphon.stores.postgres.write_transaction import WriteTransaction

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection
    from antiphon.turn.store_protocols import Head


class PostgresConversationStore:
    """A ``ConversationStore`` in the database of a PostgreSQL store."""

    def __init__(self, database: PostgresDatabase) -> None:
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
        return await self._database.read_recovered(
            lambda connection: resolve_conversation(connection, tenant, conversation_id, cutoff)
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
        cutoff = self._database.expiry.cutoff(tenant)
        return await self._database.read_recovered(
            lambda connection: list_conversations(
                connection, tenant, PageRequest(limit, after, newest_first), cutoff
            ),
            snapshot=True,
        )

    async def delete(self, tenant: str, conversation_id: str) -> bool:
        cutoff = self._database.expiry.cutoff(tenant)
        erased: bool = await self._database.submit(
            erase_conversation, tenant, conversation_id, cutoff
        )
        return erased

    async def erase_item(self, tenant: str, response_id: str, position: int) -> bool:
        cutoff = self._database.expiry.cutoff(tenant)

        async def read(connection: Connection) -> tuple[Head | None, set[int]]:
            return await read_head(connection, tenant, response_id, cutoff)

        head = await self._database.read_recovered(read)
        if head is None or head.is_running:
            return False
        erased: bool = await self._database.submit(erase_item, tenant, response_id, position)
        return erased


async def _update_metadata(
    transaction: WriteTransaction,
    tenant: str,
    conversation_id: str,
    metadata: dict[str, str],
    cutoff: float,
) -> None:
    await transaction.flush()
    connection = transaction.connection
    found, _ = await resolve_conversation(connection, tenant, conversation_id, cutoff)
    if found is not None:
        values = (tenant, conversation_key(found.id), encode_json(metadata))
        await transaction.execute(CONVERSATION_SQL["update_metadata"], *values)
        transaction.changes.add_conversation("conversation.updated", tenant, found.id)
        transaction.erased.add("conversations")


async def _move_head(
    transaction: WriteTransaction,
    tenant: str,
    seen: ConversationRecord,
    response_id: str,
    cutoff: float,
) -> bool:
    key = await lock_turn(transaction, tenant, response_id)
    await transaction.check_head_unchanged(tenant, seen, cutoff)
    if key is None:
        return False
    await transaction.move_head(tenant, seen.id, response_key(response_id), None)
    transaction.changes.add_conversation("conversation.moved", tenant, seen.id)
    return True


async def erase_conversation(
    transaction: WriteTransaction, tenant: str, conversation_id: str, cutoff: float
) -> bool:
    """Erase a conversation and those of its turns that no living turn of others descends from."""
    key = conversation_key(conversation_id)
    if key is None:
        return False
    await transaction.flush()
    connection = transaction.connection
    trees: set[int] = set()
    while True:
        # Whoever begins a turn on it has both locks, and takes that of the tree first.
        turns = await connection.fetch(CONVERSATION_SQL["turns"], tenant, key)
        if (found_in := {row["tree"] for row in turns}) <= trees and trees:
            break
        trees |= found_in
        await transaction.lock_trees(trees)
        await connection.fetch(CONVERSATION_SQL["hold"], tenant, key)
        if not trees:
            turns = await connection.fetch(CONVERSATION_SQL["turns"], tenant, key)
            if not turns:
                break
    found, _ = await resolve_conversation(connection, tenant, conversation_id, cutoff)
    if found is None:
        return False
    for tree in sorted(trees):
        of_tree = [row for row in turns if row["tree"] == tree]
        needed = await _needed_outside(connection, tenant, tree, key, cutoff)
        erasable = [row for row in of_tree if row["seq"] > needed.get(row["thread"], -1)]
        ranges = merge_ranges((row["thread"], row["seq"]) for row in erasable)
        await tombstone(transaction, tenant, tree, ranges)
        if erasable:
            await bump_epoch(transaction, tree)
        for row in erasable:
            transaction.changes.add_erasure(tenant, tree, row["id"])
    transaction.changes.add_conversation("conversation.erased", tenant, conversation_id)
    await transaction.execute(CONVERSATION_SQL["delete"], tenant, key)
    transaction.erased.add("conversations")
    return True


async def _needed_outside(
    connection: Connection, tenant: str, tree: int, key: bytes, cutoff: float
) -> dict[int, int]:
    """By thread: the last depth that living turns outside a conversation descend from."""
    others = await connection.fetch(DELETION_SQL["others_in_tree"], tree, tenant, key)
    if not others:
        return {}
    threads = {
        thread: (parent, seq)
        for thread, parent, seq in await connection.fetch(DELETION_SQL["threads"], tree)
    }
    needed: dict[int, int] = {}
    for thread, seq, timestamp in others:
        if needed.get(thread, -1) >= seq:
            continue
        if timestamp > cutoff or not await has_expired(
            connection, TurnKey(tree, thread, seq), cutoff
        ):
            mark_needed(needed, threads, thread, seq)
    return needed


async def erase_item(
    transaction: WriteTransaction, tenant: str, response_id: str, position: int
) -> bool:
    """Replace an item by ``ErasedItem``, and delete images that no other item of its turn uses."""
    key = await lock_turn(transaction, tenant, response_id)
    connection = transaction.connection
    if key is None or await connection.fetch(DELETION_SQL["runs"], *key):
        return False
    parts = await connection.fetch(DELETION_SQL["items_of"], *key)
    items = [
        (part, column, number, item)
        for column in ("input", "output")
        for part, row in ((row["part"], row) for row in parts)
        if row[column] is not None
        for number, item in enumerate(decode_items(row[column]))
    ]
    if not 0 <= position < len(items) or items[position][3] in (ERASED_ITEM, ERASED_SUMMARY_ITEM):
        return False
    part, column, number, _ = items[position]
    packed = list(decode_items(next(row for row in parts if row["part"] == part)[column]))
    packed[number] = ERASED_ITEM
    values: tuple[object, ...] = (*key, part, encode_items(packed))
    if column == "output":
        values = (*values, any(map(is_summary, packed)))
    await transaction.execute(DELETION_SQL[f"set_{column}"], *values)
    await erase_derived_words(transaction, tenant, key)
    await _drop_images(
        transaction, tenant, key, parts[0]["images"], items[:position] + items[position + 1 :]
    )
    await reindex_turns(connection, tenant, [key])
    await bump_epoch(transaction, key.tree)
    transaction.erased_trees.add(key.tree)
    transaction.changes.add_chat("chat.updated", tenant, key.tree)
    return True


async def _drop_images(
    transaction: WriteTransaction,
    tenant: str,
    key: TurnKey,
    images: bytes | None,
    items: list[tuple[int, str, int, bytes]],
) -> None:
    """Have a turn use no more those images that none of its items shows."""
    hashes = unpack_hashes(images)
    shown = [one for one in hashes if any(one.hex().encode() in item[3] for item in items)]
    if len(shown) < len(hashes):
        packed = b"".join(shown) or None
        await transaction.execute(DELETION_SQL["set_images"], *key, packed)
        unused = [one for one in hashes if one not in shown]
        await delete_blob_uses_of(transaction, tenant, key, unused)


async def delete_conversation(
    transaction: WriteTransaction, tenant: str, conversation_id: str
) -> None:
    """Delete a conversation's row."""
    key = conversation_key(conversation_id)
    if await transaction.execute(CONVERSATION_SQL["delete"], tenant, key) == "DELETE 1":
        transaction.changes.add_conversation("conversation.erased", tenant, conversation_id)
        transaction.erased.add("conversations")
