"""PostgreSQL database: one writer, a pool of readers, and the lease of this process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg

from antiphon.core.retention import Clock, Expiry, RetentionPolicy
from antiphon.errors import AntiphonError, StoreError
from antiphon.stores.health import Health
from antiphon.stores.interrupted_turns import NO_NODE, NODE_WAIT_SECONDS
from antiphon.stores.postgres.connection import Connection, ReadPool, connect
from antiphon.stores.postgres.database_clock import DatabaseClock
from antiphon.stores.postgres.errors import (
    CONNECTION_LOST,
    DATABASE_ERRORS,
    READ_ERRORS,
    store_error,
)
from antiphon.stores.postgres.leases import NODE_SQL, NodeLease
from antiphon.stores.postgres.sql_files import TURN_SQL
from antiphon.stores.postgres.turn_recovery import end_orphans, leave
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.stores.postgres.writer import Writer

T = TypeVar("T")

_READER_COUNT: Final = 8
#: How many seconds a successful write, and a failed one, answers ``check_writable``.
_WRITABLE_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 1.0


class PostgresDatabase:
    """A database, for use on the running event loop.

    Reads are functions of a connection, writes are jobs of a ``WriteTransaction``. A read that
    may meet turns without an end also returns the dead nodes that ran them: their turns are
    ended and the read is done again.
    """

    def __init__(self, uri: str, retention: RetentionPolicy, clock: Clock | None) -> None:
        self._clock = DatabaseClock()
        self._goes_by_own_clock = clock is not None
        self.expiry = Expiry(retention, clock or self._clock)
        self._uri = uri
        self._health = Health(DATABASE_ERRORS)
        #: What is called after each commit of this process, and after one that erased words.
        self.on_written: Callable[[], None] | None = None
        self.on_erased: Callable[[], None] | None = None
        self._pool = ReadPool(uri, _READER_COUNT)
        self.lease = NodeLease(self.read, self._clock)
        self._writer = Writer(uri, lambda: self.lease.node, self._health, self._note_written)
        self._probe: asyncio.Future[None] | None = None
        self._close_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Be alive for others, and end the turns that dead processes left."""
        await self.lease.start()
        await self.end_orphans()

    def stored_at(self, created_at: float) -> float | None:
        """See ``DatabaseClock.stored_at``."""
        return None if self._goes_by_own_clock else self._clock.stored_at(created_at)

    def submit(
        self, job: Callable[..., Any], *arguments: Any, max_delay: float = 0.0
    ) -> asyncio.Future[Any]:
        """Have the writer do ``job(transaction, *arguments)``; done when it is committed."""
        return self._writer.submit(job, *arguments, max_delay=max_delay)

    def hold(self, name: str, job: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """The same, together with the job that ``release`` precedes, or a little later."""
        return self._writer.hold(name, job, *arguments)

    def release(self, name: str) -> None:
        """Have a held job done right before the next one."""
        self._writer.release(name)

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of ``work`` on a connection. Each statement sees what is committed by then.

        It is done again where the connection turns out to be lost.
        """
        self._check_open()
        try:
            for _ in range(2):
                try:
                    async with self._pool.acquire() as connection:
                        return await work(connection)
                except CONNECTION_LOST as error:
                    lost = error
                    self._pool.drop_idle()
            raise lost
        except AntiphonError:
            raise
        except READ_ERRORS as error:
            raise self._health.refuse_read(store_error(error)) from error

    async def read_snapshot(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The same, with all statements seeing the database at one moment."""

        async def within(connection: Connection) -> T:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await work(connection)

        return await self.read(within)

    async def read_recovered(
        self, work: Callable[[Connection], Awaitable[tuple[T, set[int]]]], *, snapshot: bool = False
    ) -> T:
        """The result of ``work``, repeated once the turns of dead nodes were ended."""
        read = self.read_snapshot if snapshot else self.read
        value, dead = await read(work)
        if dead and await self.settle_dead(dead):
            value, _ = await read(work)
        return value

    async def settle_dead(self, nodes: set[int]) -> bool:
        """End the turns of those nodes that are dead, as a reader met them; whether there were any.

        One that can be run again is left for a node to claim: where there is none, for a while.
        """
        dead = nodes - {self.lease.node}
        cutoff = -math.inf
        if NO_NODE in dead:
            since = await self.read(lambda it: it.fetchval(NODE_SQL["first_given_up"]))
            cutoff = self.expiry.clock() - NODE_WAIT_SECONDS
            waits = since is None or since > cutoff
            if waits or self.lease.is_node or await self._has_nodes():
                dead.remove(NO_NODE)
        return await self._end_orphans_of(dead, cutoff)

    async def _end_orphans_of(self, nodes: set[int], cutoff: float = -math.inf) -> bool:
        """``end_orphans`` of each; whether there were any."""
        now = self.expiry.clock()
        return any([await self.submit(end_orphans, node, now, cutoff) for node in nodes])

    async def _has_nodes(self) -> bool:
        """Whether a node is alive."""
        return bool(await self.read(lambda connection: connection.fetchval(NODE_SQL["has_nodes"])))

    async def end_orphans(self) -> None:
        """End the turns of all dead nodes, but for those that can be run again.

        These are left for a node to claim, which this process may be about to become.
        """
        rows = await self.read(lambda connection: connection.fetch(TURN_SQL["dead_nodes"]))
        await self._end_orphans_of({node for (node,) in rows} - {self.lease.node, NO_NODE})

    async def listen(self, channel: str, callback: Callable[[], None]) -> None:
        """Call ``callback`` with each notification, until the connection is lost."""
        self._check_open()
        lost = asyncio.Event()
        try:
            connection = await connect(self._uri)
        except (asyncpg.PostgresError, *CONNECTION_LOST) as error:
            raise store_error(error) from error
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(channel, lambda *_: callback())
            await lost.wait()
        except (asyncpg.PostgresError, *CONNECTION_LOST) as error:
            raise store_error(error) from error
        finally:
            connection.terminate()

    @property
    def refusals(self) -> int:
        """How many reads and writes have failed."""
        return self._health.refusals

    async def check_writable(self) -> None:
        """Raise ``StoreError`` where nothing can be written.

        Skipped while turns are being written anyway; concurrent callers share one probe.
        """
        self._check_open()
        health = self._health
        if not self.lease.is_valid:
            raise StoreError("The database server cannot be reached now.")
        if health.write_error is None and health.is_fresh(_WRITABLE_SECONDS):
            return
        if health.write_error is not None and health.is_fresh(_REFUSED_SECONDS):
            raise StoreError(health.write_error.message)
        if self._probe is None or self._probe.done():
            self._probe = self.submit(_probe)
        await asyncio.shield(self._probe)

    async def close(self) -> None:
        if self._close_task is None:
            self._close_task = asyncio.create_task(self._close())
        await asyncio.shield(self._close_task)

    async def _close(self) -> None:
        await self.lease.stop()
        left = self._writer.submit(leave, self.expiry.clock())
        await self._writer.stop()
        # Should it have failed, others end these turns when the lease is over.
        await asyncio.wait([left])
        left.exception()
        await self._pool.close()

    def _note_written(self, has_erased: bool) -> None:
        if self.on_written is not None:
            self.on_written()
        if has_erased and self.on_erased is not None:
            self.on_erased()

    def _check_open(self) -> None:
        if self._close_task is not None:
            raise StoreError("The store is closed.")


async def _probe(transaction: WriteTransaction) -> None:
    """Write something that reaches the disk."""
    await transaction.execute(NODE_SQL["probe"], transaction.node)
