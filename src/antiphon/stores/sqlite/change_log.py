"""Change log in SQLite: one row a commit, with the ids of what it changed.

The table only grows at its end. It is trimmed in passing, to its newest rows.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Final

from antiphon.core.ids import chat_id_of
from antiphon.stores.change_entries import MAX_ROWS, ChangeEntries, decode_changes
from antiphon.stores.change_feed import ChangeRow, LogBounds
from antiphon.stores.sqlite.sql_files import read_queries

CHANGE_SQL: Final = read_queries("changes.sql")
#: How many rows are deleted at once.
_TRIM_STEP: Final = 256


def write_changes(
    connection: sqlite3.Connection, entries: ChangeEntries, deferred: bytes | None = None
) -> int:
    """Write the changes of a transaction as a row, with those that are deferred; the row's id.

    0: there were no entries.
    """
    body = entries.encode()
    if body is None:
        return 0
    row_id = connection.execute(CHANGE_SQL["add"], (body, deferred)).lastrowid or 0
    if row_id % _TRIM_STEP == 0 and row_id > MAX_ROWS:
        connection.execute(CHANGE_SQL["trim"], (row_id - MAX_ROWS,))
    return row_id


def read_bounds(connection: sqlite3.Connection) -> LogBounds:
    """The first and the last row."""
    rows = connection.execute(CHANGE_SQL["bounds"]).fetchall()
    return LogBounds(*rows[0]) if rows else LogBounds()


def read_changes(connection: sqlite3.Connection, after: int, limit: int) -> list[ChangeRow]:
    """The rows behind one."""

    @cache
    def chat_id(tree: int) -> str | None:
        keys = connection.execute(CHANGE_SQL["chat_key"], (tree,)).fetchall()
        return chat_id_of(keys[0][0]) if keys else None

    rows = connection.execute(CHANGE_SQL["read"], (after, limit)).fetchall()
    return [decode_changes(number, mark, body, chat_id) for number, mark, body in rows]
