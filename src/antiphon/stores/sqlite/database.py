"""SQLite database: one writer, a pool of readers, recovery of dead processes' turns, health
probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from antiphon.core.retention import Expiry
from antiphon.errors import StoreError
from antiphon.stores.clock_guard import ClockGuard
from antiphon.stores.health import Health
from antiphon.stores.interrupted_turns import NO_NODE, NODE_WAIT_SECONDS, interrupted_end
from antiphon.stores.sqlite.connection import DatabaseConnections
from antiphon.stores.sqlite.deferred_changes import has_deferred
from antiphon.stores.sqlite.errors import DAMAGE, is_busy, read_error
from antiphon.stores.sqlite.page_scrubbing import ScrubTask
from antiphon.stores.sqlite.reader import read_newest_time, read_owners
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.stores.sqlite.turn_recovery import NODE_SQL, end_orphans
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.stores.sqlite.writer import Writer
from antiphon.threads import LastingThreadPool

T = TypeVar("T")

_ADD_PROBE: Final = TURN_SQL["add_probe"]
_DROP_PROBE: Final = TURN_SQL["delete_probe"]

_READER_COUNT: Final = 4
#: How many seconds a successful write, and a failed one, answers ``check_writable``.
_WRITABLE_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 1.0

#: Size in bytes of the write that ``check_writable`` tries: about that of a turn.
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
        self._health = Health((sqlite3.Error,))
        self._scrub_task = ScrubTask(
            self.erasures, connections.page_file, self.read_pooled, self.submit
        )
        #: The number of this store among those that are open.
        self.owner = connections.process_locks.owner_id
        #: Whether this process is a node, and goes on with turns of others (``nodes.py``).
        self.is_node = False
        #: Whether what has expired may be erased now; None: whenever it has expired.
        self.clock_guard: ClockGuard | None = None
        #: What is called after each commit of this process.
        self.on_written: Callable[[], None] | None = None
        self._writer = Writer(
            connections, self._scrub_task.start, self._health, self._note_written, expiry.clock
        )
        self._probe: asyncio.Future[None] | None = None
        self._inline_connection = connections.read_connection
        self._idle_connections: list[sqlite3.Connection] = []
        self._pool = LastingThreadPool(_READER_COUNT, "antiphon-reader")
        self._close_task: asyncio.Task[None] | None = None

    def submit(
        self,
        job: Callable[..., Any],
        *arguments: Any,
        max_delay: float = 0.0,
        is_alone: bool = False,
        at_once: bool = False,
    ) -> asyncio.Future[Any]:
        """Have the writer do ``job(transaction, *arguments)``; done when it is on disk."""
        return self._writer.submit(
            job, *arguments, max_delay=max_delay, is_alone=is_alone, at_once=at_once
        )

    def hold(
        self, name: str, job: Callable[..., Any], *arguments: Any, is_alone: bool = False
    ) -> asyncio.Future[Any]:
        """The same, together with the job that ``release`` precedes, or a little later."""
        return self._writer.hold(name, job, *arguments, is_alone=is_alone)

    def release(self, name: str) -> None:
        """Have a held job done with the next one."""
        self._writer.release(name)

    async def read_pooled(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``read``, in a thread of the pool."""
        self._check_open()
        loop = asyncio.get_running_loop()
        try:
            reading = loop.run_in_executor(self._pool, self._with_reader, read)
        except RuntimeError as over:
            # At the end of the interpreter no thread can be started.
            raise StoreError("The store is closed.") from over
        try:
            return await reading
        except DAMAGE as error:
            raise self._health.refuse_read(read_error(error)) from error

    async def read_recovered(self, read: Callable[[sqlite3.Connection], tuple[T, set[int]]]) -> T:
        """The result of ``read``, in a thread, repeated once turns of dead owners were ended."""
        value, owners = await self.read_pooled(read)
        if owners and await self._end_dead(owners):
            value, _ = await self.read_pooled(read)
        return value

    async def read_inline(self, read: Callable[[sqlite3.Connection], tuple[T, set[int]]]) -> T:
        """The same on the event loop's own thread, for reads of a few rows."""
        self._check_open()
        try:
            value, owners = self._writer.read_if_idle(read) or read(self._inline_connection)
        except DAMAGE as error:
            if not is_busy(error):
                raise self._health.refuse_read(read_error(error)) from error
            # The write-ahead log is being recovered or truncated: wait for it in a thread.
            return await self.read_recovered(read)
        if owners and await self._end_dead(owners):
            return await self.read_recovered(read)
        return value

    async def apply_deferred(self) -> None:
        """Have chats, sums of usage and pending turns up to date, for a read of them."""
        if await self.read_inline(_read_has_deferred):
            # Where nothing can be written, they are read as they are.
            with contextlib.suppress(StoreError):
                await self.submit(WriteTransaction.flush, is_alone=True)

    async def guard_clock(self) -> None:
        """Erase nothing by a clock that was just set wrong."""
        self.clock_guard = ClockGuard(await self.read_pooled(read_newest_time))

    async def end_orphans(self) -> None:
        """End the turns of dead owners, and take over the scrubbing after their erasures.

        Those that can be run again are left for a node to claim.
        """
        dead = await self.find_dead(await self.read_pooled(read_owners))
        await self._end_orphans_of([owner for owner in dead if owner != NO_NODE])
        await self.take_over_erasures()

    async def take_over_erasures(self) -> None:
        """Scrub after the erasures of dead processes."""
        if await self.read_pooled(lambda _: self._process_locks.take_over()):
            self.erasures.take_over()
        if self.erasures.is_inherited:
            await self.submit(_scrub)

    async def find_dead(self, owners: Collection[int]) -> list[int]:
        """Those owners whose processes do not run any more."""
        others = [owner for owner in owners if owner != self.owner]
        if not others:
            return []
        return await self.read_pooled(lambda _: [one for one in others if not self.is_alive(one)])

    def is_alive(self, owner: int) -> bool:
        """Whether the process of an owner still runs."""
        return self._process_locks.is_alive(owner)

    def data_version(self) -> int:
        """A number that differs after any commit, in whatever process."""
        self._check_open()
        ((version,),) = self._inline_connection.execute("PRAGMA data_version").fetchall()
        number: int = version
        return number

    def is_sweeper(self) -> bool:
        """Whether this store runs the retention sweep: one of all open stores does."""
        self._check_open()
        return self._process_locks.is_sweeper()

    def begin_indexing(self) -> bool:
        """See ``ProcessLocks.begin_indexing``."""
        self._check_open()
        return self._process_locks.begin_indexing()

    def end_indexing(self) -> None:
        """See ``ProcessLocks.end_indexing``."""
        self._process_locks.end_indexing()

    @property
    def refusals(self) -> int:
        """How many reads and writes have failed."""
        return self._health.refusals

    async def check_writable(self) -> None:
        """Raise ``StoreError`` where nothing can be written: write a probe and delete it again.

        Skipped while turns are being written anyway; concurrent callers share one probe.
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

    async def _end_dead(self, owners: set[int]) -> bool:
        """End the turns of those owners that are dead; whether there were any.

        One that can be run again is left for a node to claim: where there is none, for a while.
        """
        dead = [owner for owner in owners if not self.is_alive(owner)]
        cutoff = -math.inf
        if NO_NODE in dead:
            since = await self.read_pooled(_read_first_given_up)
            cutoff = self.expiry.clock() - NODE_WAIT_SECONDS
            if since > cutoff or self.is_node or await self._has_nodes():
                dead.remove(NO_NODE)
        return await self._end_orphans_of(dead, cutoff)

    async def _end_orphans_of(self, dead: Collection[int], cutoff: float = -math.inf) -> bool:
        """``end_orphans`` of each; whether there were any."""
        now = self.expiry.clock()
        ended = [
            await self.submit(end_orphans, owner, interrupted_end(), now, cutoff) for owner in dead
        ]
        return any(ended)

    async def _has_nodes(self) -> bool:
        """Whether a node is alive."""
        rows = await self.read_pooled(
            lambda connection: connection.execute(NODE_SQL["ids"]).fetchall()
        )
        return any(self.is_alive(node) for (node,) in rows)

    def _with_reader(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._idle_connections.pop()
        except IndexError:
            connection = self._connections.connect_reader()
        try:
            return read(connection)
        finally:
            self._idle_connections.append(connection)

    def _note_written(self) -> None:
        if self.on_written is not None:
            self.on_written()

    def _check_open(self) -> None:
        if self._close_task is not None:
            raise StoreError("The store is closed.")

    async def _close(self) -> None:
        await self._writer.wait_stopped()
        # Not in another thread: at the end of the interpreter none can be started.
        self._pool.shutdown()
        for connection in (self._inline_connection, *self._idle_connections):
            connection.close()
        self._connections.page_file.close()
        self._process_locks.release()


def _read_first_given_up(connection: sqlite3.Connection) -> float:
    """Since when a turn waits for a node; infinity: none does."""
    rows = connection.execute(NODE_SQL["first_given_up"]).fetchall()
    return math.inf if rows[0][0] is None else float(rows[0][0])


def _read_has_deferred(connection: sqlite3.Connection) -> tuple[bool, set[int]]:
    return has_deferred(connection), set()


def _scrub(transaction: WriteTransaction) -> None:
    """Have the write-ahead log truncated, as after an erasure."""
    transaction.has_erased = True


def _probe(transaction: WriteTransaction) -> None:
    """Write something and delete it again: both reach the disk."""
    transaction.flush()
    transaction.connection.execute(_ADD_PROBE, (_PROBE_BYTES,))
    transaction.connection.execute(_DROP_PROBE)
