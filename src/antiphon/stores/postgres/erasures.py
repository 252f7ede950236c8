"""Erasures in PostgreSQL: the tables where words were erased are vacuumed soon afterwards.

A deleted row, and the old version of a changed one, stay in their page until a vacuum. A
transaction that erases says which tables it touched; half a minute later those are vacuumed,
without their indexes, which hold ids and hashes and no words. So it costs what was changed since
the last vacuum, and not what there is. While a snapshot that still sees the rows is open, by a
long query, a backup or a replica, nothing can be removed, and it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from antiphon.core.erase_report import EraseReport
from antiphon.errors import StoreError
from antiphon.stores.postgres.sql_files import read_queries

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection
    from antiphon.stores.postgres.database import PostgresDatabase

log = logging.getLogger("antiphon.store")

_SQL: Final = read_queries("erasures.sql")
#: Seconds from an erasure until its tables are vacuumed, so that others share it.
VACUUM_DELAY: Final = 30.0
#: Seconds that the vacuum of one table may take.
_VACUUM_SECONDS: Final = 3600.0
#: What a database says that has no such vacuum: CockroachDB, which does it by itself.
_NO_VACUUM: Final = (asyncpg.PostgresSyntaxError, asyncpg.FeatureNotSupportedError)


class VacuumTask:
    """Vacuums after erasures, of this process and of others that have ended since."""

    def __init__(self, database: PostgresDatabase, delay: float = VACUUM_DELAY) -> None:
        self._database = database
        self._delay = delay
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Have the tables vacuumed in a moment."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Leave the rest to other processes, and to the next one that opens the store."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def start_if_pending(self) -> None:
        """The same where something was erased in the past."""
        if (await self._database.read(read_erase_report)).pending:
            self.start()

    async def _run(self) -> None:
        is_pending = True
        while is_pending:
            await asyncio.sleep(self._delay)
            try:
                is_pending = await self._database.read(vacuum_erased)
            except StoreError as error:
                log.warning("the tables could not be vacuumed after an erasure: %s", error.message)


async def vacuum_erased(connection: Connection) -> bool:
    """Vacuum the tables of all erasures until now. True: some of their rows are still there."""
    rows = await connection.fetch(_SQL["pending"])
    if not rows:
        return False
    # What an open snapshot sees is left where it is.
    oldest: int = await connection.fetchval(_SQL["oldest_snapshot"])
    try:
        for table in sorted({table for row in rows for table in row["tables"]}):
            await connection.execute(
                f'VACUUM (INDEX_CLEANUP OFF, TRUNCATE OFF) "{table}"', timeout=_VACUUM_SECONDS
            )
    except _NO_VACUUM:
        await connection.execute(_SQL["forget"], [row["id"] for row in rows])
        return False
    gone = [row for row in rows if row["id"] < oldest]
    if gone:
        await _note_gone(connection, gone)
    return len(gone) < len(rows)


async def _note_gone(connection: Connection, rows: list[Any]) -> None:
    async with connection.transaction():
        await connection.execute(_SQL["forget"], [row["id"] for row in rows])
        await connection.execute(_SQL["note"], max(row["erased_at"] for row in rows))


async def read_erase_report(connection: Connection) -> EraseReport:
    """What is left of erasures."""
    row = await connection.fetchrow(_SQL["report"])
    return EraseReport(0) if row is None else EraseReport(*row)
