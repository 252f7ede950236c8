"""What a SQLite store and its ledgers stand on: one file, one writer, a pool of readers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from antiphon.errors import StoreError
from antiphon.stores.batch import Batch
from antiphon.stores.cleaning import CLEANINGS, fill_gaps, find_gaps
from antiphon.stores.database import Database
from antiphon.stores.expiry import Expiry
from antiphon.stores.faults import is_busy, store_error
from antiphon.stores.reader import read_owners
from antiphon.stores.writer import Writer, interrupted

T = TypeVar("T")

_READERS: Final = 4
#: How soon the file is cleaned after an erasure.
_CLEAN_SECONDS: Final = 0.5
#: What a read may raise; all but the first mean rows that do not make sense.
_DAMAGE: Final = (sqlite3.Error, msgspec.MsgspecError, struct.error, ValueError)


class Ground:
    """An opened database, for use on the running event loop.

    Reads are functions of a connection, writes are jobs of a ``Batch``. A read that may meet
    turns without an end also tells which stores run them: where one of those is dead, its
    turns are ended and the read is done again.
    """

    def __init__(self, database: Database, expiry: Expiry) -> None:
        self.expiry = expiry
        self._database = database
        self._owners = database.owners
        self._writer = Writer(database, self._on_scrubbed)
        #: What cleans the file, how often it has in a row, and whether there is a reason to.
        self._cleaning: asyncio.Task[None] | None = None
        self._cleanings = 0
        self._scrubbed = False
        self._inline = database.reading
        self._idle: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="antiphon-reader")
        self._closing: asyncio.Task[None] | None = None

    def put(
        self, job: Callable[..., Any], *arguments: Any, within: float = 0.0
    ) -> asyncio.Future[Any]:
        """Have the writer do ``job(batch, *arguments)``; done when it is on disk."""
        return self._writer.put(job, *arguments, within=within)

    async def pooled(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` finds, in a thread."""
        self._check_open()
        loop = asyncio.get_running_loop()
        try:
            reading = loop.run_in_executor(self._pool, self._with_reader, read)
        except RuntimeError as over:
            # An interpreter that ends takes no more work, whoever has not noticed yet.
            raise StoreError("The store is closed.") from over
        return await reading

    async def settled(self, read: Callable[[sqlite3.Connection], tuple[T, set[int]]]) -> T:
        """What ``read`` finds, in a thread, once the turns of the dead have ended."""
        value, owners = await self.pooled(read)
        if owners and await self._end_dead(owners):
            value, _ = await self.pooled(read)
        return value

    async def inline(self, read: Callable[[sqlite3.Connection], tuple[T, set[int]]]) -> T:
        """The same on the loop's own thread, for reads of a few rows."""
        self._check_open()
        try:
            value, owners = read(self._inline)
        except sqlite3.Error as error:
            if not is_busy(error):
                raise store_error(error) from error
            # The log is being recovered or cut: that is waited for in another thread.
            return await self.settled(read)
        if owners and await self._end_dead(owners):
            return await self.settled(read)
        return value

    async def end_orphans(self) -> None:
        """End every turn whose store is dead."""
        await self._end_dead(await self.pooled(read_owners))

    async def close(self) -> None:
        if self._closing is None:
            if self._cleaning is not None:
                self._cleaning.cancel()
            self._writer.stop()
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def _on_scrubbed(self) -> None:
        self._scrubbed = True
        if self._cleaning is None and self._closing is None:
            self._cleaning = asyncio.create_task(self._clean())

    async def _clean(self) -> None:
        """Clean what erasures left in the file. Filling erases, so it is looked at again."""
        # Many erasures one after another are cleaned up after together.
        await asyncio.sleep(_CLEAN_SECONDS)
        self._scrubbed = False
        erasures = self._writer.erasures
        # What fails now is done when the store is closed, or after the next erasure.
        with contextlib.suppress(StoreError, OSError):
            gaps = await self.pooled(partial(find_gaps, pages=self._database.pages))
            if not gaps or self._cleanings == CLEANINGS:
                self._writer.cleaned = erasures
                self._cleanings = 0
            else:
                self._cleanings += 1
                while gaps:
                    gaps = await self.put(fill_gaps, gaps)
        self._cleaning = None
        if self._scrubbed:
            self._on_scrubbed()

    async def _end_dead(self, owners: set[int]) -> bool:
        """End the turns of those owners that are dead; whether there were any."""
        dead = [owner for owner in owners if not self._owners.alive(owner)]
        for owner in dead:
            await self.put(Batch.reap, owner, interrupted())
        return bool(dead)

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
        self._database.pages.close()
        self._owners.leave()
