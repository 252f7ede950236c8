"""Chats in PostgreSQL: list, retrieve, update and erase them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from antiphon.core.retention import Expiry
from antiphon.stores.conflict_errors import expires_at_once
from antiphon.stores.postgres.chain_reader import (
    read_branches,
    read_chain_part,
    read_chat_branches,
    read_origin,
)
from antiphon.stores.postgres.chat_reader import (
    CHAT_SQL,
    ChatPage,
    find_chat,
    read_chat,
    read_chats,
    read_chats_of,
    read_records,
    read_running_turns,
    read_usage_sums,
    read_waiting,
)
from antiphon.stores.postgres.conversations import delete_conversation
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.deletion import erase_tree
from antiphon.stores.postgres.reader import read_turns
from antiphon.stores.postgres.rows import encode_json
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.turn.chat_protocols import (
    ALL_CHATS,
    MAX_COUNTED,
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

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

T = TypeVar("T")


class PostgresChatStore:
    """A ``ChatStore`` in a PostgreSQL database."""

    def __init__(self, database: PostgresDatabase) -> None:
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
        page = ChatPage(limit, after, newest_first)
        return await self._read(
            lambda connection: read_chats(connection, tenant, page, chat_filter, self._expiry)
        )

    async def get(self, tenant: str, chat_id: str) -> ChatRecord | None:
        return await self._read(
            lambda connection: read_chat(connection, tenant, chat_id, self._expiry)
        )

    async def find(self, tenant: str, response_ids: Sequence[str]) -> list[ChatRecord | None]:
        return await self._read(
            lambda connection: read_chats_of(connection, tenant, response_ids, self._expiry)
        )

    async def update(self, tenant: str, chat_id: str, update: ChatUpdate) -> ChatRecord | None:
        await self._database.submit(update_chat, tenant, chat_id, update, self._expiry)
        return await self.get(tenant, chat_id)

    async def set_generated_title(self, head: Head, title: str) -> bool:
        is_set: bool = await self._database.submit(set_generated_title, head, title)
        return is_set

    async def running_turns(self, tenant: str, chat_id: str) -> list[str]:
        return await self._database.read_snapshot(
            lambda connection: read_running_turns(connection, tenant, chat_id, self._expiry)
        )

    async def delete(self, tenant: str, chat_id: str) -> bool:
        erased: bool = await self._database.submit(erase_chat, tenant, chat_id, self._expiry)
        return erased

    async def branches(self, tenant: str, chat_id: str) -> list[ChatBranch] | None:
        return await self._read(
            lambda connection: read_chat_branches(connection, tenant, chat_id, self._expiry)
        )

    async def usage_sums(self, tenant: str, first_day: int, last_day: int) -> list[UsageSum]:
        return await self._database.read(
            lambda connection: read_usage_sums(connection, tenant, (first_day, last_day))
        )

    async def contents(self, tenant: str) -> StoreContents:
        async def read(connection: Connection) -> StoreContents:
            row = await connection.fetchrow(CHAT_SQL["contents"], tenant, MAX_COUNTED)
            return StoreContents(*row or ())

        return await self._database.read(read)

    async def image(self, tenant: str, sha256: str) -> bytes | None:
        async def read(connection: Connection) -> bytes | None:
            data: bytes | None = await connection.fetchval(
                CHAT_SQL["image"], tenant, bytes.fromhex(sha256)
            )
            return data

        return await self._database.read(read)

    async def waiting_turns(self, tenant: str) -> list[tuple[ChatRecord, StoredTurn]]:
        async def read(connection: Connection) -> list[tuple[ChatRecord, StoredTurn]]:
            found = await read_waiting(connection, tenant, self._expiry)
            keys = [key for _, key in found]
            turns, _ = await read_turns(connection, tenant, keys, with_images=False)
            return [(chat, turn) for (chat, _), turn in zip(found, turns, strict=True)]

        return await self._database.read_snapshot(read)

    async def chain_part(
        self, head: Head, window: ChainWindow, *, with_images: bool = True
    ) -> ChainPart:
        return await self._read(
            lambda connection: read_chain_part(
                connection, head, window, self._expiry, with_images=with_images
            )
        )

    async def siblings(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        return await self._branches(tenant, response_id, of_children=False)

    async def children(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        return await self._branches(tenant, response_id, of_children=True)

    async def origin(self, tenant: str, response_id: str) -> TurnOrigin | None:
        return await self._read(
            lambda connection: read_origin(connection, tenant, response_id, self._expiry)
        )

    async def _branches(
        self, tenant: str, response_id: str, *, of_children: bool
    ) -> list[TurnBranch] | None:
        return await self._read(
            lambda connection: read_branches(
                connection, tenant, response_id, self._expiry, of_children=of_children
            )
        )

    @property
    def _expiry(self) -> Expiry:
        return self._database.expiry

    async def _read(self, read: Callable[[Connection], Awaitable[tuple[T, set[int]]]]) -> T:
        return await self._database.read_recovered(read, snapshot=True)


async def update_chat(
    transaction: WriteTransaction, tenant: str, chat_id: str, update: ChatUpdate, expiry: Expiry
) -> None:
    """Change a chat's own fields."""
    await transaction.flush()
    found = await find_chat(transaction.connection, tenant, chat_id, expiry)
    if found is not None:
        await transaction.lock_tree(found[1])
        if update.is_permanent is False:
            timestamp = await transaction.connection.fetchval(
                CHAT_SQL["expiry_timestamp"], found[1]
            )
            if timestamp <= expiry.cutoff(tenant):
                raise expires_at_once()
        transaction.changes.add_chat("chat.updated", tenant, found[1])
        await set_chat_fields(transaction, found[1], update)


async def set_generated_title(transaction: WriteTransaction, head: Head, title: str) -> bool:
    """Give a chat without a title one, if nothing was erased from it since ``head`` was read."""
    await transaction.lock_tree(head.tree)
    body = title.encode("utf-8", "surrogatepass")
    changed = await transaction.fetch(
        CHAT_SQL["set_generated_title"], head.tree, body, head.tenant, head.epoch
    )
    if changed:
        transaction.changes.add_chat("chat.updated", head.tenant, head.tree)
    return bool(changed)


async def set_chat_fields(transaction: WriteTransaction, tree: int, update: ChatUpdate) -> None:
    """Change the own fields of the chat of a tree, whose row is there."""
    # What was there before is words.
    transaction.erased.add("chats")
    if update.title is not msgspec.UNSET:
        title = update.title.encode("utf-8", "surrogatepass") if update.title else None
        await transaction.execute(CHAT_SQL["set_title"], tree, title)
    if update.metadata is not msgspec.UNSET:
        metadata = encode_json(update.metadata) if update.metadata else None
        await transaction.execute(CHAT_SQL["set_metadata"], tree, metadata)
    if update.is_pinned is not msgspec.UNSET:
        await transaction.execute(CHAT_SQL["set_pinned"], tree, update.is_pinned)
    if update.is_permanent is not msgspec.UNSET:
        await transaction.execute(CHAT_SQL["set_permanent"], tree, update.is_permanent)


async def erase_chat(
    transaction: WriteTransaction, tenant: str, chat_id: str, expiry: Expiry
) -> bool:
    """Erase all turns of a chat, and its conversation."""
    await transaction.flush()
    found = await find_chat(transaction.connection, tenant, chat_id, expiry)
    if found is None:
        return False
    tree = found[1]
    await transaction.lock_tree(tree)
    # Also where its head is of another chat by now, it stays.
    records, _ = await read_records(transaction.connection, tenant, [tree], expiry)
    await erase_tree(transaction, tenant, tree)
    name = records[tree].conversation if tree in records else None
    if name is not None:
        await delete_conversation(transaction, tenant, name)
    return True
