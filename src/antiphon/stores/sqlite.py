"""Turns in one SQLite file, which several processes may have open at once.

    loop thread     begin, write, delete: a job for the writer. head: one statement
    writer thread   all jobs that wait, in one transaction, one fsync  (writer.py, batch.py)
    reader threads  turn, chain, recent                                 (reader.py)

A turn that has no end is running as long as the store that began it is alive
(owners.py). Whoever meets one whose store is dead ends it: as ``failed``, with code
``interrupted``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import msgspec

from antiphon.core.turns import End
from antiphon.errors import ConfigError, StoreError
from antiphon.stores.batch import Batch
from antiphon.stores.database import Database, open_database
from antiphon.stores.faults import is_busy, store_error
from antiphon.stores.reader import read_chain, read_head, read_owners, read_recent, read_turn
from antiphon.stores.writer import Writer, interrupted
from antiphon.turn.ports import Head, NewTurn, Recent, StoredTurn

T = TypeVar("T")

_READERS: Final = 4
#: How long a turn's beginning may wait for company where nobody waits for it.
_IDLE_SECONDS: Final = 0.005
#: With so many turns under way, a commit waits for others to share its cost, so long.
_MANY: Final = 8
_GATHER_SECONDS: Final = 0.002
#: What a read may raise; all but the first mean rows that do not make sense.
_DAMAGE: Final = (sqlite3.Error, msgspec.MsgspecError, struct.error, ValueError)


async def open_sqlite(path: str | os.PathLike[str]) -> SqliteStore:
    """Open the database at ``path``, made if missing, for the running event loop.

    Ends the turns that dead processes left. Raises ConfigError, which says what to do.
    """
    store = SqliteStore(await asyncio.to_thread(open_database, path))
    try:
        await store.end_orphans()
    except StoreError as error:
        await store.close()
        raise ConfigError(f"Cannot open the database {path}: {error.message}") from error
    except BaseException:
        await store.close()
        raise
    return store


class SqliteStore:
    """A ``Store`` in a SQLite file. Made by ``open_sqlite``, used on one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owners = database.owners
        self._writer = Writer(database.writing, database.wal, database.owners.me)
        #: Turns begun here and not ended yet.
        self._under_way = 0
        self._inline = database.reading
        self._idle: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="antiphon-reader")
        self._closing: asyncio.Task[None] | None = None

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        self._under_way += 1
        within = self._gathering() if turn.awaited else _IDLE_SECONDS
        return self._writer.put(Batch.begin, turn, within=within)

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None
    ) -> asyncio.Future[None]:
        within = self._gathering()
        if end is not None:
            self._under_way = max(0, self._under_way - 1)
        return self._writer.put(Batch.write, response_id, tuple(items), end, within=within)

    def _gathering(self) -> float:
        """How long to wait for other turns to share a commit: only where there are many."""
        return _GATHER_SECONDS if self._under_way >= _MANY else 0.0

    async def head(self, tenant: str, response_id: str) -> Head | None:
        self._check_open()
        try:
            head, owners = read_head(self._inline, tenant, response_id)
        except sqlite3.Error as error:
            if not is_busy(error):
                raise store_error(error) from error
            # The log is being recovered or cut: that is waited for in another thread.
            return await self._read(partial(read_head, tenant=tenant, response_id=response_id))
        if owners and await self._end_dead(owners):
            return await self._read(partial(read_head, tenant=tenant, response_id=response_id))
        return head

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        return await self._read(partial(read_turn, tenant=tenant, response_id=response_id))

    async def chain(self, head: Head) -> list[StoredTurn]:
        return await self._read(partial(read_chain, head=head))

    async def recent(self, tenant: str, limit: int) -> list[Recent]:
        return await self._pooled(partial(read_recent, tenant=tenant, limit=limit))

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        erased: bool = await self._writer.put(Batch.delete, tenant, response_id, cascade)
        return erased

    async def close(self) -> None:
        if self._closing is None:
            self._writer.stop()
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def end_orphans(self) -> None:
        """End every turn whose store is dead."""
        await self._end_dead(await self._pooled(read_owners))

    async def _read(self, read: Callable[[sqlite3.Connection], tuple[T, set[int]]]) -> T:
        value, owners = await self._pooled(read)
        if owners and await self._end_dead(owners):
            value, _ = await self._pooled(read)
        return value

    async def _end_dead(self, owners: set[int]) -> bool:
        """End the turns of those owners that are dead; whether there were any."""
        dead = [owner for owner in owners if not self._owners.alive(owner)]
        for owner in dead:
            await self._writer.put(Batch.reap, owner, interrupted())
        return bool(dead)

    async def _pooled(self, read: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._with_reader, read)

    def _with_reader(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._database.reader()
            try:
                return read(connection)
            finally:
                self._idle.append(connection)
        except _DAMAGE as error:
            raise store_error(error) from error

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreError("The store is closed.")

    async def _close(self) -> None:
        await self._writer.stopped()
        # Not in another thread: when the interpreter ends there is none to be had.
        self._pool.shutdown()
        for connection in (self._inline, *self._idle):
            connection.close()
        self._owners.leave()
