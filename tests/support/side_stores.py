"""What the tests of ledgers share: stores with a clock that is set by hand."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from antiphon.core.retention import RETAIN_FOREVER, RetentionPolicy
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.stores.sqlite.deferred_changes import apply_deferred
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from support.postgres_database import empty_database

#: The command of the other process: a module, so that it finds what it imports.
CHILD_PROGRAM = (
    "env",
    f"PYTHONPATH={Path(__file__).parents[1]}",
    sys.executable,
    "-m",
    "support.side_stores_process",
)

AnyStore: TypeAlias = MemoryStore | SqliteStore | PostgresStore
#: Opens the same store again where there is a file or a database.
Opener: TypeAlias = Callable[..., AbstractAsyncContextManager[AnyStore]]


class ManualClock:
    """Stands still until it is set."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def openers(folder: Path) -> dict[str, Opener]:
    @asynccontextmanager
    async def memory(
        clock: ManualClock | None = None, lifetimes: RetentionPolicy = RETAIN_FOREVER
    ) -> AsyncIterator[AnyStore]:
        store = MemoryStore(lifetimes, clock=clock or ManualClock())
        yield store
        await store.close()

    @asynccontextmanager
    async def file(
        clock: ManualClock | None = None, lifetimes: RetentionPolicy = RETAIN_FOREVER
    ) -> AsyncIterator[AnyStore]:
        store = await open_sqlite(folder / "turns.db", lifetimes, clock=clock or ManualClock())
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def database(
        clock: ManualClock | None = None, lifetimes: RetentionPolicy = RETAIN_FOREVER
    ) -> AsyncIterator[AnyStore]:
        uri = empty_database(folder)
        store = await open_postgres(uri, lifetimes, clock=clock or ManualClock())
        try:
            yield store
        finally:
            await store.close()

    return {"memory": memory, "sqlite": file, "postgres": database}


def apply_deferred_in(path: Path) -> None:
    """Brings the tables up to date that commits write to later, for a test that looks at them."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        apply_deferred(connection)
        connection.execute("COMMIT")
    finally:
        connection.close()


def query_file(path: Path, sql: str, *values: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def all_bytes(folder: Path) -> bytes:
    """Everything that is in any file of a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return b"\0".join(file.read_bytes() for file in files)
