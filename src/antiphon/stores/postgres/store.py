"""PostgreSQL turn store: turns in a database that many processes share.

    writer    all waiting jobs in one transaction, on a connection of its own  (writer.py)
    readers   prepared statements on a pool of connections                     (reader.py)

A turn without an end is running as long as the lease of the process that began it is renewed
(leases.py). Any store that reads a turn of a dead one ends it: as ``failed``, with code
``interrupted``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

from antiphon.core.erase_report import EraseReport
from antiphon.core.ids import response_key
from antiphon.core.retention import RETAIN_FOREVER, Clock, RetentionPolicy
from antiphon.core.secrets import uri_without_password
from antiphon.core.turns import End
from antiphon.errors import ConfigError, StoreError
from antiphon.stores.postgres.api_keys import PostgresApiKeyStore
from antiphon.stores.postgres.changes import PostgresChangeFeed, delete_future_changes
from antiphon.stores.postgres.chat_transfer import PostgresChatTransferStore
from antiphon.stores.postgres.chats import PostgresChatStore
from antiphon.stores.postgres.connection import GroupRead, close_connection, connect
from antiphon.stores.postgres.conversations import PostgresConversationStore
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.deletion import delete_turn
from antiphon.stores.postgres.erasures import VacuumTask, read_erase_report
from antiphon.stores.postgres.errors import CONNECTION_LOST, store_error
from antiphon.stores.postgres.family_copy import PostgresCopyStore
from antiphon.stores.postgres.idempotency import PostgresIdempotencyStore
from antiphon.stores.postgres.import_records import PostgresImportRecordStore
from antiphon.stores.postgres.nodes import PostgresNodeRegistry
from antiphon.stores.postgres.reader import (
    WantedHead,
    has_expired,
    head_in,
    key_of,
    newest_turns_in,
    read_chain,
    read_heads,
    read_history,
    read_turn,
    read_window,
)
from antiphon.stores.postgres.response_index import PostgresResponseIndex
from antiphon.stores.postgres.search.index import PostgresSearchIndex
from antiphon.stores.postgres.shares import PostgresShareStore
from antiphon.stores.postgres.sql_files import migrate
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import (
    Head,
    HistoryTurn,
    NewTurn,
    StoredTurn,
    Stores,
    Window,
)

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection
    from antiphon.stores.postgres.rows import Row

#: How many turns are read with a head. A node behind a balancer lacks the turns that other nodes
#: have run since it ran one: among three, with a turn sent anywhere, at most eight in 96 of 100.
_TURNS_OF_HEAD: Final = 8


async def open_postgres(
    uri: str, retention: RetentionPolicy = RETAIN_FOREVER, *, clock: Clock | None = None
) -> PostgresStore:
    """Open the database that a libpq URI names, for the running event loop.

    Makes the tables that are missing, and ends the turns that dead processes left. What expires
    goes by the database's clock, or by ``clock``. Raises ConfigError, which says what to do.
    """
    try:
        connection = await connect(uri)
        try:
            await migrate(connection)
            await delete_future_changes(connection)
        finally:
            await close_connection(connection)
    except (asyncpg.PostgresError, ValueError, *CONNECTION_LOST) as error:
        raise _cannot_open(uri, error) from error
    store = PostgresStore(PostgresDatabase(uri, retention, clock))
    try:
        await store.start()
    except StoreError as error:
        await store.close()
        raise _cannot_open(uri, error) from error
    except BaseException:
        await store.close()
        raise
    return store


def _cannot_open(uri: str, error: BaseException) -> ConfigError:
    if isinstance(error, ValueError):
        # Its words may be a part of the password.
        why: object = "the URI cannot be read; characters such as @ / ? # in it have to be encoded."
    else:
        why = error if isinstance(error, OSError) else store_error(error).message
    return ConfigError(f"Cannot open the database {uri_without_password(uri)}: {why}")


class PostgresStore:
    """A ``Store`` in a PostgreSQL database. Made by ``open_postgres``, used on one event loop."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._heads: GroupRead[WantedHead, Sequence[Row]] = GroupRead(database.read, read_heads)
        self._search = PostgresSearchIndex(database)
        self.changes = PostgresChangeFeed(database)
        self._vacuum = VacuumTask(database)
        database.on_erased = self._vacuum.start
        self.copies = PostgresCopyStore(database)
        self.stores = Stores(
            response_index=PostgresResponseIndex(database),
            conversations=PostgresConversationStore(database),
            api_keys=PostgresApiKeyStore(database),
            idempotency=PostgresIdempotencyStore(database),
            search=self._search,
            health=database,
            chats=PostgresChatStore(database),
            changes=self.changes,
            shares=PostgresShareStore(database),
            chat_transfer=PostgresChatTransferStore(database, self._search.on_turn_end),
            imports=PostgresImportRecordStore(database),
            nodes=PostgresNodeRegistry(database),
        )

    async def start(self) -> None:
        """Be alive for others, and end the turns of dead processes."""
        await self._database.start()
        await self._vacuum.start_if_pending()

    async def erase_report(self) -> EraseReport:
        """What is still in the tables of what was erased."""
        return await self._database.read(read_erase_report)

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        if turn.stored_at is None and (now := self._database.stored_at(turn.created_at)):
            turn = msgspec.structs.replace(turn, stored_at=now)
        if turn.conversation is not None:
            # Whoever takes the conversation next has to find it taken.
            cutoff = self._database.expiry.cutoff(turn.tenant)
            return self._database.submit(WriteTransaction.begin, turn, cutoff)
        if turn.is_awaited:
            return self._database.submit(WriteTransaction.begin, turn)
        # The end of a quick turn may be stored with its beginning, which costs much less.
        return self._database.hold(turn.response_id, WriteTransaction.begin, turn)

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None, inline: bool = False
    ) -> asyncio.Future[None]:
        self._database.release(response_id)
        if end is not None:
            self._search.on_turn_end()
        return self._database.submit(WriteTransaction.write, response_id, tuple(items), end)

    async def head(self, tenant: str, response_id: str) -> Head | None:
        head, _ = await self._read_head(tenant, response_id, 0)
        return head

    async def head_with_turns(
        self, tenant: str, response_id: str
    ) -> tuple[Head | None, Iterable[HistoryTurn]]:
        head, rows = await self._read_head(tenant, response_id, _TURNS_OF_HEAD)
        return head, newest_turns_in(rows)

    async def _read_head(
        self, tenant: str, response_id: str, turns: int
    ) -> tuple[Head | None, Sequence[Row]]:
        """A head, and its rows."""
        wanted = WantedHead(tenant, response_key(response_id), turns)
        found = head_in(rows := await self._heads.get(wanted), tenant, response_id)
        if found is not None and found[1] and await self._database.settle_dead(found[1]):
            found = head_in(rows := await self._heads.get(wanted), tenant, response_id)
        if found is None or await self._has_expired(head := found[0]):
            return None, ()
        return head, rows

    async def _has_expired(self, head: Head) -> bool:
        cutoff = self._database.expiry.cutoff(head.tenant)
        if head.timestamp > cutoff:
            return False
        return await self._database.read(lambda it: has_expired(it, key_of(head), cutoff))

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        expiry = self._database.expiry

        async def read(connection: Connection) -> tuple[StoredTurn | None, set[int]]:
            return await read_turn(connection, tenant, response_id, expiry)

        return await self._database.read_recovered(read)

    async def chain(self, head: Head) -> list[StoredTurn]:
        cutoff = self._database.expiry.cutoff(head.tenant)

        async def read(connection: Connection) -> tuple[list[StoredTurn], set[int]]:
            return await read_chain(connection, head, cutoff)

        return await self._database.read_recovered(read)

    async def history(self, head: Head) -> list[HistoryTurn]:
        cutoff = self._database.expiry.cutoff(head.tenant)

        async def read(connection: Connection) -> tuple[list[HistoryTurn], set[int]]:
            return await read_history(connection, head, cutoff)

        return await self._database.read_recovered(read)

    async def window(self, head: Head, window: Window) -> list[StoredTurn]:
        cutoff = self._database.expiry.cutoff(head.tenant)

        async def read(connection: Connection) -> tuple[list[StoredTurn], set[int]]:
            return await read_window(connection, head, window, cutoff)

        return await self._database.read_recovered(read, snapshot=True)

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        # What has expired counts as erased, and cannot be deleted again.
        if await self.head(tenant, response_id) is None:
            return False
        erased: bool = await self._database.submit(delete_turn, tenant, response_id, cascade)
        return erased

    async def close(self) -> None:
        await self.changes.close()
        await self._search.close()
        await self._vacuum.stop()
        await self._database.close()
