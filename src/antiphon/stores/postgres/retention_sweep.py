"""Retention sweep: erases expired turns, images and conversations, a chat at a time.

A chat and a conversation say when there may be something to do, so that a sweep finds those by an
index and nothing else. Timestamps never fall along a chain: a turn has expired once all ends of the
threads that descend from it have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from antiphon.core.ids import conversation_id_of
from antiphon.core.retention import DAY_SECONDS
from antiphon.stores.clock_guard import ClockGuard
from antiphon.stores.postgres.conversation_reader import CONVERSATION_SQL, resolve_conversation
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.database_clock import DatabaseClock
from antiphon.stores.postgres.deletion import (
    DELETION_SQL,
    END_OF_THREAD,
    delete_rows,
)
from antiphon.stores.postgres.idempotency import delete_old_records
from antiphon.stores.postgres.rows import time_of_thread
from antiphon.stores.postgres.write_transaction import WriteTransaction

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

#: Seconds until a conversation that has not expired is looked at again, at the latest.
_CHECK_SECONDS: Final = DAY_SECONDS
#: How many chats are found at once.
_STEP: Final = 100


class RetentionSweep:
    """The sweep of a database, which one of the processes that have it open does."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._clock_guard: ClockGuard | None = None

    async def run(self) -> int:
        """Erase what has expired; how many turns."""
        database = self._database
        if not await self._is_sweeper():
            return 0
        await database.end_orphans()
        if not await self._is_clock_believed():
            return 0
        await database.submit(delete_old_records, database.expiry.clock())
        swept = 0
        for cutoff, values, which in self._scopes():
            if cutoff > -math.inf:
                swept += await self._sweep_chats(f"due_chats{which}", values)
                await self._sweep_conversations(f"due_conversations{which}", values)
        return swept

    async def _is_sweeper(self) -> bool:
        async def read(connection: Connection) -> bool:
            node = self._database.lease.node
            return await connection.fetchval(DELETION_SQL["is_oldest_node"], node) is not False

        return await self._database.read(read)

    async def _is_clock_believed(self) -> bool:
        """Whether the database's clock may be gone by; a clock of the store's own always may."""
        clock = self._database.expiry.clock
        if not isinstance(clock, DatabaseClock):
            return True
        if self._clock_guard is None:
            newest = await self._database.read(lambda it: it.fetchval(DELETION_SQL["newest_tree"]))
            begun = None if newest is None else time_of_thread(newest)
            self._clock_guard = ClockGuard(begun, clock, whose="the database server")
        return self._clock_guard.is_believed()

    def _scopes(self) -> Iterator[tuple[float, tuple[Any, ...], str]]:
        """For all tenants of one lifetime: the cutoff, and the values and name of its queries."""
        expiry = self._database.expiry
        special = list(expiry.retention.tenants)
        life = expiry.retention.default
        cutoff = -math.inf if life is None else expiry.clock() - life
        yield cutoff, (cutoff, special), ""
        for tenant in special:
            cutoff = expiry.cutoff(tenant)
            yield cutoff, (tenant, cutoff), "_of"

    async def _sweep_chats(self, query: str, values: tuple[Any, ...]) -> int:
        swept = 0
        seen: set[int] = set()
        while rows := [row for row in await self._due(query, values) if row["tree"] not in seen]:
            for tree, tenant, key in rows:
                # One that cannot be erased yet, as it runs, is found again.
                seen.add(tree)
                cutoff = self._database.expiry.cutoff(tenant)
                swept += await self._database.submit(sweep_chat, tree, tenant, key, cutoff)
        return swept

    async def _sweep_conversations(self, query: str, values: tuple[Any, ...]) -> None:
        seen: set[bytes] = set()
        while rows := [row for row in await self._due(query, values) if row["id"] not in seen]:
            for tenant, key in rows:
                seen.add(key)
                cutoff = self._database.expiry.cutoff(tenant)
                await self._database.submit(sweep_conversation, tenant, key, cutoff)

    async def _due(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        async def read(connection: Connection) -> list[Any]:
            return await connection.fetch(DELETION_SQL[query], *values, _STEP)

        return await self._database.read(read)


async def sweep_chat(
    transaction: WriteTransaction, tree: int, tenant: str, key: bytes, cutoff: float
) -> int:
    """Erase the expired turns of a chat: how many."""
    await transaction.lock_tree(tree)
    connection = transaction.connection
    leaves = await connection.fetch(DELETION_SQL["leaves"], tree)
    threads = {
        thread: (parent, seq)
        for thread, parent, seq in await connection.fetch(DELETION_SQL["threads"], tree)
    }
    needed: dict[int, int] = {}
    for thread, seq in await connection.fetch(DELETION_SQL["running_in_tree"], tree):
        mark_needed(needed, threads, thread, seq)
    for thread, seq, timestamp in leaves:
        if timestamp > cutoff:
            mark_needed(needed, threads, thread, seq)
    ranges = await _unneeded_ranges(connection, tree, threads, needed)
    erased = await delete_rows(transaction, tenant, tree, ranges)
    await transaction.flush()
    if ranges:
        for _ in erased[:1]:
            transaction.changes.add_erasure(tenant, tree, key, cascade=True)
        await transaction.execute(DELETION_SQL["delete_empty_threads"], tree)
        await transaction.execute(DELETION_SQL["delete_empty_chat"], tree)
    left = [timestamp for thread, seq, timestamp in leaves if needed.get(thread, -1) >= seq]
    await transaction.execute(DELETION_SQL["set_check"], tree, min(left, default=None))
    return len(erased)


async def _unneeded_ranges(
    connection: Connection,
    tree: int,
    threads: dict[int, tuple[int | None, int | None]],
    needed: dict[int, int],
) -> list[tuple[int, int, int]]:
    """The turns that have expired, with what of erased ones descends from them."""
    first: dict[int, int] = {}
    # A thread's id is greater than that of the one it branches off.
    for thread in sorted(threads):
        parent, seq = threads[thread]
        if parent in first and seq is not None and seq >= first[parent]:
            first[thread] = 0
            continue
        values = (tree, thread, needed.get(thread, -1))
        found = await connection.fetchval(DELETION_SQL["first_living"], *values)
        if found is not None:
            first[thread] = found
    return [(thread, seq, END_OF_THREAD) for thread, seq in first.items()]


def mark_needed(
    needed: dict[int, int],
    threads: dict[int, tuple[int | None, int | None]],
    thread: int | None,
    seq: int | None,
) -> None:
    """Mark a turn and all its ancestors as needed: by thread, the last depth that is."""
    while thread is not None and seq is not None and needed.get(thread, -1) < seq:
        needed[thread] = seq
        thread, seq = threads.get(thread, (None, None))


async def sweep_conversation(
    transaction: WriteTransaction, tenant: str, key: bytes, cutoff: float
) -> None:
    """Erase a conversation if it has expired; otherwise it is looked at again later."""
    await transaction.flush()
    connection = transaction.connection
    await connection.fetch(CONVERSATION_SQL["hold"], tenant, key)
    name = conversation_id_of(key)
    found, _ = await resolve_conversation(connection, tenant, name, cutoff)
    if found is None:
        if await transaction.execute(CONVERSATION_SQL["delete"], tenant, key) == "DELETE 1":
            transaction.changes.add_conversation("conversation.erased", tenant, name)
            transaction.erased.add("conversations")
        return
    latest = await connection.fetchval(CONVERSATION_SQL["latest"], tenant, key)
    if latest is not None and latest > cutoff:
        # One in a permanent chat may not be in one when it is looked at again.
        latest = min(latest, cutoff + _CHECK_SECONDS)
        await transaction.execute(DELETION_SQL["set_conversation_check"], tenant, key, latest)
