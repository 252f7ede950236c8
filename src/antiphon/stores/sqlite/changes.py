"""Changes of a SQLite file: the log that the feed reads, and its signal that there is more."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial

from antiphon.stores.change_feed import ChangeRow, LogBounds, LogChangeFeed
from antiphon.stores.sqlite.change_log import read_bounds, read_changes
from antiphon.stores.sqlite.database import SqliteDatabase


class SqliteChangeLog:
    """A ``ChangeLog`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._version = -1

    async def bounds(self) -> LogBounds:
        return await self._database.read_pooled(read_bounds)

    async def read(self, after: int, limit: int) -> Sequence[ChangeRow]:
        return await self._database.read_pooled(partial(read_changes, after=after, limit=limit))

    def has_changed(self) -> bool:
        try:
            version = self._database.data_version()
        except sqlite3.Error:
            # Another process truncates its log: it is looked at again in a moment.
            return False
        changed, self._version = version != self._version, version
        return changed


def open_change_feed(database: SqliteDatabase) -> LogChangeFeed:
    """The feed of a database, woken by the commits of this process."""
    feed = LogChangeFeed(SqliteChangeLog(database))
    database.on_written = feed.notify
    return feed
