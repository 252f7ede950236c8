"""Multi-row insert: many rows by few statements.

The module ``sqlite3`` releases the interpreter around each statement, and while others want it the
writer's thread has to wait to get it back. A statement that inserts many rows is one such wait.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

#: How many rows a statement inserts: few different numbers, so that each is compiled once.
_WIDTHS: Final = (64, 16, 4)


def insert_rows(
    connection: sqlite3.Connection, query: str, rows: Sequence[tuple[object, ...]]
) -> int:
    """Insert rows by a query that inserts one and ends with its ``VALUES (...)``.

    Returns the id of the last row. For tables without triggers: with one, SQLite copies the rows
    first.
    """
    done = 0
    cursor: sqlite3.Cursor | None = None
    for width in _WIDTHS:
        while len(rows) - done >= width:
            values = tuple(chain.from_iterable(rows[done : done + width]))
            cursor = connection.execute(_widen(query, width), values)
            done += width
    for row in rows[done:]:
        cursor = connection.execute(query, row)
    return (cursor.lastrowid if cursor else None) or 0


@lru_cache(maxsize=64)
def _widen(query: str, width: int) -> str:
    values = query[query.rindex("(") :]
    return query + f", {values}" * (width - 1)
