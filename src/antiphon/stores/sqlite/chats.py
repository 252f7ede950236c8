"""Chats in SQLite: list, retrieve, update and erase them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial

import msgspec

from antiphon.core.ids import conversation_key, response_key
from antiphon.core.retention import Expiry
from antiphon.stores.conflict_errors import expires_at_once
from antiphon.stores.sqlite.chain_reader import read_branches, read_chain_part, read_origin
from antiphon.stores.sqlite.chat_reader import (
    conversation_of,
    find_chat,
    read_chat,
    read_chat_branches,
    read_chats,
    read_chats_of,
    read_contents,
    read_image,
    read_running_turns,
    read_usage_sums,
    read_waiting_turns,
)
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.deletion import (
    add_text,
    delete_conversation,
    delete_texts,
    delete_unused_blobs,
    descendant_ranges,
    tombstone,
)
from antiphon.stores.sqlite.large_deletion import erase_most, ranges_after
from antiphon.stores.sqlite.reader import PageRequest, snapshot
from antiphon.stores.sqlite.rows import TURN_STRIDE, RowRange, row_id_of
from antiphon.stores.sqlite.search.removal import take_out_ranges
from antiphon.stores.sqlite.sql_files import CHAT_SQL, TURN_SQL
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.chat_protocols import (
    ALL_CHATS,
    ChainPart,
    ChainWindow,
    ChatBranch,
    ChatFilter,
    ChatRecord,
    ChatUpdate,
    StoreContents,
    TurnBranch,
    TurnOrigin,
    UsageSum,
)
from antiphon.turn.store_protocols import Head, StoredTurn

_encode = msgspec.json.Encoder().encode


class SqliteChatStore:
    """A ``ChatStore`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def list_chats(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        chat_filter: ChatFilter = ALL_CHATS,
    ) -> list[ChatRecord]:
        await self._database.apply_deferred()
        read = partial(
            read_chats,
            tenant=tenant,
            page=PageRequest(limit, after, newest_first),
            chat_filter=chat_filter,
            expiry=self._database.expiry,
        )
        return await self._database.read_recovered(read)

    async def get(self, tenant: str, chat_id: str) -> ChatRecord | None:
        await self._database.apply_deferred()
        read = partial(read_chat, tenant=tenant, name=chat_id, expiry=self._database.expiry)
        return await self._database.read_recovered(read)

    async def find(self, tenant: str, response_ids: Sequence[str]) -> list[ChatRecord | None]:
        await self._database.apply_deferred()
        read = partial(
            read_chats_of,
            tenant=tenant,
            response_ids=tuple(response_ids),
            expiry=self._database.expiry,
        )
        return await self._database.read_recovered(read)

    async def update(self, tenant: str, chat_id: str, update: ChatUpdate) -> ChatRecord | None:
        await self._database.submit(update_chat, tenant, chat_id, update, self._database.expiry)
        return await self.get(tenant, chat_id)

    async def set_generated_title(self, head: Head, title: str) -> bool:
        is_set: bool = await self._database.submit(set_generated_title, head, title)
        return is_set

    async def running_turns(self, tenant: str, chat_id: str) -> list[str]:
        await self._database.apply_deferred()
        read = partial(
            read_running_turns, tenant=tenant, name=chat_id, expiry=self._database.expiry
        )
        return await self._database.read_pooled(read)

    async def delete(self, tenant: str, chat_id: str) -> bool:
        await self._database.apply_deferred()
        read = partial(_read_later_turns, tenant=tenant, name=chat_id, expiry=self._database.expiry)
        await erase_most(self._database, read)
        erased: bool = await self._database.submit(
            erase_chat, tenant, chat_id, self._database.expiry
        )
        return erased

    async def branches(self, tenant: str, chat_id: str) -> list[ChatBranch] | None:
        await self._database.apply_deferred()
        read = partial(
            read_chat_branches, tenant=tenant, name=chat_id, expiry=self._database.expiry
        )
        return await self._database.read_recovered(read)

    async def usage_sums(self, tenant: str, first_day: int, last_day: int) -> list[UsageSum]:
        await self._database.apply_deferred()
        read = partial(read_usage_sums, tenant=tenant, days=(first_day, last_day))
        return await self._database.read_pooled(read)

    async def contents(self, tenant: str) -> StoreContents:
        return await self._database.read_pooled(partial(read_contents, tenant=tenant))

    async def image(self, tenant: str, sha256: str) -> bytes | None:
        return await self._database.read_pooled(partial(read_image, tenant=tenant, sha256=sha256))

    async def waiting_turns(self, tenant: str) -> list[tuple[ChatRecord, StoredTurn]]:
        await self._database.apply_deferred()
        return await self._database.read_pooled(
            partial(read_waiting_turns, tenant=tenant, expiry=self._database.expiry)
        )

    async def chain_part(
        self, head: Head, window: ChainWindow, *, with_images: bool = True
    ) -> ChainPart:
        expiry = self._database.expiry
        read = partial(
            read_chain_part, head=head, window=window, expiry=expiry, with_images=with_images
        )
        return await self._database.read_recovered(read)

    async def siblings(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        return await self._branches(tenant, response_id, of_children=False)

    async def children(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        return await self._branches(tenant, response_id, of_children=True)

    async def origin(self, tenant: str, response_id: str) -> TurnOrigin | None:
        expiry = self._database.expiry
        read = partial(read_origin, tenant=tenant, response_id=response_id, expiry=expiry)
        return await self._database.read_recovered(read)

    async def _branches(
        self, tenant: str, response_id: str, *, of_children: bool
    ) -> list[TurnBranch] | None:
        read = partial(
            read_branches,
            tenant=tenant,
            response_id=response_id,
            expiry=self._database.expiry,
            of_children=of_children,
        )
        return await self._database.read_recovered(read)


def update_chat(
    transaction: WriteTransaction, tenant: str, chat_id: str, update: ChatUpdate, expiry: Expiry
) -> None:
    """Change a chat's own fields."""
    transaction.flush()
    found = find_chat(transaction.connection, tenant, chat_id, expiry)
    if found is not None:
        if update.is_permanent is False:
            ((timestamp,),) = transaction.connection.execute(
                CHAT_SQL["expiry_timestamp"], (found[1],)
            ).fetchall()
            if timestamp <= expiry.cutoff(tenant):
                raise expires_at_once()
        transaction.changes.add_chat("chat.updated", tenant, found[1])
        set_chat_fields(transaction, found[1], update)


def set_generated_title(transaction: WriteTransaction, head: Head, title: str) -> bool:
    """Give a chat without a title one, if nothing was erased from it since ``head`` was read."""
    transaction.flush()
    connection = transaction.connection
    row_id = row_id_of(head.thread, head.seq)
    seen = (row_id + TURN_STRIDE, row_id, response_key(head.response_id), head.tree, head.epoch)
    titles = connection.execute(CHAT_SQL["texts"], (head.tree,)).fetchall()
    if not titles or titles[0][0] is not None:
        return False
    if connection.execute(TURN_SQL["is_unchanged"], seen).fetchone() is None:
        return False
    text = add_text(connection, title.encode("utf-8", "surrogatepass"))
    connection.execute(CHAT_SQL["set_title"], (text, 1, head.tree))
    transaction.changes.add_chat("chat.updated", head.tenant, head.tree)
    return True


def set_chat_fields(transaction: WriteTransaction, tree: int, update: ChatUpdate) -> None:
    """Change the own fields of the chat of a tree, which has been flushed."""
    connection = transaction.connection
    ((title, metadata),) = connection.execute(CHAT_SQL["texts"], (tree,)).fetchall()
    if update.title is not msgspec.UNSET:
        text = _replace_text(transaction, title, update.title and update.title.encode())
        connection.execute(CHAT_SQL["set_title"], (text, 0, tree))
    if update.metadata is not msgspec.UNSET:
        body = _encode(update.metadata) if update.metadata else None
        text = _replace_text(transaction, metadata, body)
        connection.execute(CHAT_SQL["set_metadata"], (text, tree))
    if update.is_pinned is not msgspec.UNSET:
        connection.execute(CHAT_SQL["set_pinned"], (update.is_pinned, tree))
    if update.is_permanent is not msgspec.UNSET:
        connection.execute(CHAT_SQL["set_permanent"], (update.is_permanent, tree))


def _replace_text(
    transaction: WriteTransaction, old: int | None, body: bytes | str | None
) -> int | None:
    """The id of a new text, None: there is none. The old one is erased."""
    if old is not None:
        delete_texts(transaction.connection, [old], transaction.erased)
        transaction.has_erased = True
    return add_text(transaction.connection, body) if isinstance(body, bytes) else None


def _read_later_turns(
    connection: sqlite3.Connection, tenant: str, name: str, expiry: Expiry
) -> list[RowRange]:
    """The turns of a chat but for the first of each of its roots."""
    with snapshot(connection):
        found = find_chat(connection, tenant, name, expiry)
        if found is None:
            return []
        roots = connection.execute(CHAT_SQL["roots"], {"tree": found[1]}).fetchall()
        row_ids = [row_id_of(thread, 0) for (thread,) in roots]
        return [one for row_id in row_ids for one in ranges_after(connection, row_id)]


def erase_chat(transaction: WriteTransaction, tenant: str, chat_id: str, expiry: Expiry) -> bool:
    """Erase all turns of a chat, and its conversation."""
    transaction.flush()
    connection, erased = transaction.connection, transaction.erased
    found = find_chat(connection, tenant, chat_id, expiry)
    if found is None:
        return False
    tree = found[1]
    conversation, _ = conversation_of(connection, tenant, tree, expiry)
    roots = connection.execute(CHAT_SQL["roots"], {"tree": tree}).fetchall()
    row_ranges = [
        row_range
        for (thread,) in roots
        for row_range in descendant_ranges(connection, row_id_of(thread, 0))
    ]
    take_out_ranges(connection, row_ranges)
    uses: set[bytes] = set()
    for row_range in row_ranges:
        uses |= tombstone(connection, row_range, erased)
    delete_unused_blobs(connection, uses, erased)
    if conversation is not None:
        delete_conversation(connection, conversation_key(conversation) or b"", erased)
        transaction.changes.add_conversation("conversation.erased", tenant, conversation)
    connection.execute(TURN_SQL["bump_epoch"], (tree,))
    transaction.settle_chats()
    transaction.has_erased = True
    return True
