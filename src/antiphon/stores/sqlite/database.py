"""What a SQLite store and its ledgers stand on: one file, one writer, a pool of readers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from antiphon.core.retention import Expiry
from antiphon.errors import StoreError
from antiphon.stores.health import Health
from antiphon.stores.sqlite.connection import DatabaseConnections
from antiphon.stores.sqlite.errors import DAMAGE, is_busy
from antiphon.stores.sqlite.page_scrubbing import CleaningTask
from antiphon.stores.sqlite.reader import read_owners
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.stores.sqlite.writer import Writer, interrupted_end

T = TypeVar("T")

_ADD_PROBE: Final = TURN_SQL["add_probe"]
_DROP_PROBE: Final = TURN_SQL["delete_probe"]

_READER_COUNT: Final = 4
#: How long it is believed that the disk takes what is written, and does not.
_WRITABLE_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 1.0


#: How many bytes are written to see whether that can be done: about what a turn takes.
_PROBE_BYTES: Final = 16384


class SqliteDatabase:
    """An opened database, for use on the running event loop.

    Reads are functions of a connection, writes are jobs of a ``WriteTransaction``. A read that
    may meet turns without an end also returns the owners that run them: where one of those is
    dead, its turns are ended and the read is done again.
    """

    def __init__(self, connections: DatabaseConnections, expiry: Expiry) -> None:
        self.expiry = expiry
        self._connections = connections
        self._process_locks = connections.process_locks
        self.erasures = connections.erasures
        self._health = Health()
        self._scrub_task = CleaningTask(
            self.erasures, connections.page_file, self.read_pooled, self.submit
        )
        self._writer = Writer(connections, self._scrub_task.start, self._health)
        self._probe: asyncio.Future[None] | None = None
        self._inline_connection = connections.read_connection
        self._idle_connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(_READER_COUNT, thread_name_prefix="antiphon-reader")
        self._close_task: asyncio.Task[None] | None = None

    def submit(
        self, job: Callable[..., Any], *arguments: Any, max_delay: float = 0.0
    ) -> asyncio.Future[Any]:
        """Have the writer do ``job(batch, *arguments)``; done when it is on disk."""
        return self._writer.submit(job, *arguments, max_delay=max_delay)

    async def read_pooled(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` finds, in a thread."""
        self._check_open()
        loop = asyncio.get_running_loop()
        try:
            reading = loop.run_in_executor(self._pool, self._with_reader, read)
        except RuntimeError as over:
            # An interpreter that ends takes no more work, whoever has not noticed yet.
            raise StoreError("The store is closed.") from over
        try:
            return await reading
        except DAMAGE as error:
            raise self._health.refuse_read(error) from error

    async def read_recovered(self, read: Callable[[sqlite3.Connection], tuple[T, set[int]]]) -> T:
        """What ``read`` finds, in a thread, once the turns of the dead have ended."""
        value, owners = await self.read_pooled(read)
        if owners and await self._fail_dead(owners):
            value, _ = await self.read_pooled(read)
        return value

    async def read_inline(self, read: Callable[[sqlite3.Connection], tuple[T, set[int]]]) -> T:
        """The same on the loop's own thread, for reads of a few rows."""
        self._check_open()
        try:
            value, owners = read(self._inline_connection)
        except DAMAGE as error:
            if not is_busy(error):
                raise self._health.refuse_read(error) from error
            # The log is being recovered or cut: that is waited for in another thread.
            return await self.read_recovered(read)
        if owners and await self._fail_dead(owners):
            return await self.read_recovered(read)
        return value

    async def fail_orphans(self) -> None:
        """End every turn whose store is dead, and clean in its place."""
        await self._fail_dead(await self.read_pooled(read_owners))
        if await self.read_pooled(lambda _: self._process_locks.take_over()):
            self.erasures.take_over()
        if self.erasures.left_by_dead:
            await self.submit(_scrub)

    def is_sweeper(self) -> bool:
        """Whether what expires is to be erased here: one of all open stores does it."""
        self._check_open()
        return self._process_locks.is_sweeper()

    @property
    def refusals(self) -> int:
        """How many reads and writes were refused."""
        return self._health.refusals

    async def check_writable(self) -> None:
        """Raise ``StoreError`` where nothing can be written: something is, and erased again.

        Not if turns are being written anyway; and many who ask share one answer.
        """
        self._check_open()
        health = self._health
        if health.write_error is None and health.is_fresh(_WRITABLE_SECONDS):
            return
        if health.write_error is not None and health.is_fresh(_REFUSED_SECONDS):
            raise StoreError(health.write_error.message)
        if self._probe is None or self._probe.done():
            self._probe = self.submit(_probe)
        await asyncio.shield(self._probe)

    async def close(self) -> None:
        if self._close_task is None:
            self._scrub_task.cancel()
            self._writer.stop()
            self._close_task = asyncio.create_task(self._close())
        await asyncio.shield(self._close_task)

    async def _fail_dead(self, owners: set[int]) -> bool:
        """End the turns of those owners that are dead; whether there were any."""
        dead = [owner for owner in owners if not self._process_locks.is_alive(owner)]
        for owner in dead:
            await self.submit(WriteTransaction.fail_orphans, owner, interrupted_end())
        return bool(dead)

    def _with_reader(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._idle_connections.pop()
        except IndexError:
            connection = self._connections.connect_reader()
        try:
            return read(connection)
        finally:
            self._idle_connections.append(connection)

    def _check_open(self) -> None:
        if self._close_task is not None:
            raise StoreError("The store is closed.")

    async def _close(self) -> None:
        await self._writer.wait_stopped()
        # Not in another thread: when the interpreter ends there is none to be had.
        self._pool.shutdown()
        for connection in (self._inline_connection, *self._idle_connections):
            connection.close()
        self._connections.page_file.close()
        self._process_locks.release()


def _scrub(batch: WriteTransaction) -> None:
    """Nothing of what was erased may stay in the write-ahead log."""
    batch.has_erased = True


def _probe(batch: WriteTransaction) -> None:
    """Write something and take it away again: both reach the disk."""
    batch.flush()
    batch.connection.execute(_ADD_PROBE, (_PROBE_BYTES,))
    batch.connection.execute(_DROP_PROBE)
