"""A SQLite store's writer by itself, without the store around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from antiphon.stores.sqlite.connection import DatabaseConnections, open_database
from antiphon.stores.sqlite.writer import Writer


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[tuple[Writer, DatabaseConnections]]:
    database = open_database(path / "turns.db")
    writer = Writer(database)
    try:
        yield writer, database
    finally:
        writer.stop()
        await writer.wait_stopped()
        database.read_connection.close()
        database.page_file.close()
        database.process_locks.release()


def count(database: DatabaseConnections, table: str) -> int:
    number: int = database.read_connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    return number
