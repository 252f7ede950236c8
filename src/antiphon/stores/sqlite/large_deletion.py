"""Large deletion: erases most of many turns in short transactions, before the deletion itself.

A deletion is one transaction, and all other turns wait for it. Of what has hundreds of turns the
newest are erased first, a few milliseconds at a time, while other turns go on in between. The
deletion follows and finds little left. Until then it is not confirmed, and its first turn is there:
after a crash in between, the same request erases the rest.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.deletion import (
    bump_epochs,
    delete_unused_blobs,
    descendant_ranges,
    tombstone,
)
from antiphon.stores.sqlite.rows import TURN_STRIDE, RowRange, last_of_turn
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.stores.sqlite.write_transaction import WriteTransaction

#: So many turns are erased in one transaction.
_MAX_SMALL: Final = 256
#: How many seconds one transaction erases; other writes wait that long.
_MAX_TRANSACTION_SECONDS: Final = 0.02
#: Turns erased between two looks at the clock.
_TURNS_PER_STEP: Final = 32


async def erase_most(
    database: SqliteDatabase, read_ranges: Callable[[sqlite3.Connection], list[RowRange]]
) -> None:
    """Erase the turns of the ranges that ``read_ranges`` finds; none where they are few."""

    def read(connection: sqlite3.Connection) -> list[RowRange]:
        row_ranges = read_ranges(connection)
        return row_ranges if _count_turns(connection, row_ranges) > _MAX_SMALL else []

    row_ranges = await database.read_pooled(read)
    while row_ranges:
        row_ranges = await database.submit(_erase_newest, row_ranges)


def ranges_after(connection: sqlite3.Connection, row_id: int) -> list[RowRange]:
    """The ranges of all descendants of a turn, without the turn."""
    (first, last), *others = descendant_ranges(connection, row_id)
    return [(first + TURN_STRIDE, last), *others]


def _count_turns(connection: sqlite3.Connection, row_ranges: list[RowRange]) -> int:
    return sum(
        connection.execute(TURN_SQL["turns_in"], row_range).fetchall()[0][0]
        for row_range in row_ranges
    )


def _erase_newest(transaction: WriteTransaction, row_ranges: list[RowRange]) -> list[RowRange]:
    """Erase from the end of the last range on; the ranges that remain."""
    transaction.flush()
    connection = transaction.connection
    deadline = time.monotonic() + _MAX_TRANSACTION_SECONDS
    remaining, erased = list(row_ranges), []
    while remaining and time.monotonic() < deadline:
        first, last = remaining.pop()
        rows = connection.execute(TURN_SQL["last_turn"], (first, last)).fetchall()
        if not rows:
            continue
        newest: int = rows[0][0]
        start = max(first, newest - (_TURNS_PER_STEP - 1) * TURN_STRIDE)
        uses = tombstone(connection, (start, last_of_turn(newest)), transaction.erased)
        delete_unused_blobs(connection, uses, transaction.erased)
        erased.append(newest)
        if start > first:
            remaining.append((first, start - 1))
    bump_epochs(connection, erased)
    transaction.has_erased = transaction.has_erased or bool(erased)
    return remaining
