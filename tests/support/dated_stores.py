"""Stores whose turns are dated by a manual clock, so that they expire when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from antiphon.core.retention import RetentionPolicy
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.postgres.store import PostgresStore, open_postgres
from antiphon.stores.sqlite.store import SqliteStore, open_sqlite
from antiphon.turn.store_protocols import NewTurn
from support.postgres_database import empty_database
from support.reference_model import RETENTION_SECONDS
from support.store_turns import ManualClock


class DatedMemory(MemoryStore):
    """Turns are as old as the clock says."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(RetentionPolicy(RETENTION_SECONDS), clock=clock)
        self._dates = clock

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        return super().begin(msgspec.structs.replace(turn, created_at=self._dates()))


async def in_memory(clock: ManualClock, folder: Path) -> DatedMemory:
    return DatedMemory(clock)


async def in_file(clock: ManualClock, folder: Path) -> SqliteStore:
    store = await open_sqlite(folder / "a.db", RetentionPolicy(RETENTION_SECONDS), clock=clock)
    _date_turns(store, clock)
    return store


async def in_database(clock: ManualClock, folder: Path) -> PostgresStore:
    uri = empty_database(folder)
    store = await open_postgres(uri, RetentionPolicy(RETENTION_SECONDS), clock=clock)
    _date_turns(store, clock)
    return store


def _date_turns(store: SqliteStore | PostgresStore, clock: ManualClock) -> None:
    begin = store.begin
    dated: Callable[[NewTurn], asyncio.Future[None]] = lambda turn: begin(  # noqa: E731
        msgspec.structs.replace(turn, created_at=clock())
    )
    store.begin = dated  # type: ignore[assignment, method-assign]
