"""Changes of a PostgreSQL database: the log that the feed reads, and its signal that there is more.

A row is named by the number of its transaction. Transactions end in another order than they begin,
so only rows before the oldest that still runs are read: all of those are there, and their order is
the same for every reader. Whoever has written tells other nodes, from a connection of its own and
not with each commit, as commits with a notification wait for each other; and only while somebody
follows the feed in another process, which its row in ``nodes`` says. Who is not told, as behind
a pooler of transactions, looks five times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from antiphon.core.ids import chat_id_of
from antiphon.errors import StoreError
from antiphon.stores.change_entries import MAX_ROWS, decode_changes, trees_of
from antiphon.stores.change_feed import ChangeRow, LogBounds, LogChangeFeed, LogReader
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.stores.postgres.write_transaction import WriteTransaction

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

_SQL: Final = read_queries("changes.sql")
_CHANNEL: Final = "antiphon_changes"
#: Seconds between two notifications of this process.
_NOTIFY_INTERVAL: Final = 0.02
#: Commits of this process between two deletions of old rows.
_TRIM_STEP: Final = 1000


class PostgresChangeLog:
    """A ``ChangeLog`` in a PostgreSQL database."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def bounds(self) -> LogBounds:
        async def read(connection: Connection) -> LogBounds:
            row = await connection.fetchrow(_SQL["bounds"], MAX_ROWS)
            return LogBounds(*row) if row else LogBounds()

        return await self._database.read(read)

    async def read(self, after: int, limit: int) -> Sequence[ChangeRow]:
        async def read(connection: Connection) -> tuple[list[Any], list[Any]]:
            rows = await connection.fetch(_SQL["read"], after, limit)
            if not rows:
                return [], []
            trees = set().union(*[trees_of(row[2]) for row in rows])
            return rows, await connection.fetch(_SQL["chat_keys"], list(trees))

        rows, chats = await self._database.read(read)
        chat_ids = {tree: chat_id_of(key) for tree, key in chats}
        return [decode_changes(number, mark, body, chat_ids.get) for number, mark, body in rows]

    def has_changed(self) -> bool:
        """True: only a read can tell what other nodes have committed."""
        return True


class PostgresChangeFeed(LogChangeFeed):
    """The feed of a database, woken by the commits of this process and of others."""

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__(PostgresChangeLog(database))
        self._database = database
        database.on_written = self._note_written
        self._written = 0
        self._notify_task: asyncio.Task[None] | None = None
        self._listen_task: asyncio.Task[None] | None = None

    async def subscribe(self, tenant: str, after: str | None = None) -> LogReader:
        reader = await super().subscribe(tenant, after)
        if self._readers:
            # Others see it when they renew their leases; until then it is looked for.
            self._database.lease.is_following = True
            if self._listen_task is None:
                self._listen_task = asyncio.create_task(self._listen())
        return reader

    def remove(self, reader: LogReader) -> None:
        super().remove(reader)
        self._database.lease.is_following = bool(self._readers)

    async def close(self) -> None:
        """End all readers, and what this does in the background."""
        self.close_readers()
        tasks = [task for task in (self._notify_task, self._listen_task) if task is not None]
        self._notify_task = self._listen_task = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _note_written(self) -> None:
        self.notify()
        self._written += 1
        if not self._database.lease.is_followed and self._written < _TRIM_STEP:
            return
        if self._notify_task is None or self._notify_task.done():
            self._notify_task = asyncio.create_task(self._notify_others())

    async def _notify_others(self) -> None:
        """Tell other nodes of all commits until now, in a moment."""
        await asyncio.sleep(_NOTIFY_INTERVAL)

        async def tell(connection: Connection) -> None:
            await connection.execute(_SQL["notify"])

        # They look by themselves, too.
        with contextlib.suppress(StoreError):
            if self._database.lease.is_followed:
                await self._database.read(tell)
            if self._written >= _TRIM_STEP:
                self._written = 0
                await self._database.submit(_trim)

    async def _listen(self) -> None:
        """Subscribe to the commits of other nodes, while the connection lasts."""
        # Where there is no such thing, or not through a pooler, it is looked for.
        with contextlib.suppress(StoreError, OSError):
            await self._database.listen(_CHANNEL, self.notify)


async def _trim(transaction: WriteTransaction) -> None:
    await transaction.connection.execute(_SQL["trim"], MAX_ROWS)


async def delete_future_changes(connection: Connection) -> None:
    """Delete rows of a log that came from a server with more transactions, when a store is opened.

    Their readers get a reset, and read everything anew.
    """
    await connection.execute(_SQL["delete_future"])
