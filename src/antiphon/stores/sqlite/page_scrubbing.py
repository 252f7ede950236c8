"""Cleaning the gaps of pages.

When SQLite moves rows from a page to its neighbour, it may leave their bytes in the unused
middle of the first page: ``secure_delete`` overwrites what is deleted, but not what was
moved. Were such a row erased later, its copy would stay. So after erasures all gaps are
looked at. Where one is not empty, a row of the page is made to fill all of the page that is
free, and then as long again as it was: SQLite has to put the page in order for that, and
overwrites what it frees.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from antiphon.errors import StoreError
from antiphon.stores.sqlite.btree_pages import LeafPage, PageFile
from antiphon.stores.sqlite.sql_files import parse_queries, read_sql
from antiphon.stores.sqlite.write_transaction import WriteTransaction

_SQL: Final = parse_queries(read_sql("page_scrubbing.sql"))


class _Table(msgspec.Struct, frozen=True):
    """The queries of a table with words in its rows."""

    rows: str
    body: str
    change: str


_TABLES: Final = {
    "log": _Table(_SQL["log_rows"], _SQL["log_body"], _SQL["log_change"]),
    "blobs": _Table(_SQL["blobs_rows"], _SQL["blobs_body"], _SQL["blobs_change"]),
    "conversations": _Table(
        _SQL["conversations_rows"], _SQL["conversations_body"], _SQL["conversations_change"]
    ),
}
#: How often it is tried again to clean what someone else was writing to.
MAX_SCRUB_PASSES: Final = 8
#: How long one transaction goes on filling; others wait that long to be written.
_MAX_TRANSACTION_SECONDS: Final = 0.02

#: Unclean leaves, each with the name of its table.
DirtyPages: TypeAlias = list[tuple[str, LeafPage]]


def find_dirty_pages(
    connection: sqlite3.Connection, pages: PageFile, is_over: Callable[[], bool] | None = None
) -> DirtyPages:
    """The gaps to clean, as the file is on the disk: what is in the log only is not seen.

    Looks at every page. Raises ``StoreError`` as soon as ``is_over`` says that nobody waits.
    """
    size = _page_size(connection)
    roots = dict(connection.execute(_SQL["roots"]).fetchall())
    gaps: DirtyPages = []
    for table in _TABLES:
        for leaf in pages.dirty_leaves(roots[table], size):
            if is_over is not None and is_over():
                raise StoreError("The store is closed.")
            if leaf is not None:
                gaps.append((table, leaf))
    return gaps


def scrub_pages(transaction: WriteTransaction, dirty: DirtyPages) -> DirtyPages:
    """Fill gaps for a moment; those that are left to do."""
    transaction.flush()
    deadline = time.monotonic() + _MAX_TRANSACTION_SECONDS
    size = _page_size(transaction.connection)
    left = dirty[::-1]
    while left:
        table, leaf = left.pop()
        _scrub_page(transaction.connection, _TABLES[table], leaf, size)
        if time.monotonic() > deadline:
            break
    # The old pages go from the write-ahead log, too.
    transaction.has_erased = True
    return left[::-1]


def _scrub_page(connection: sqlite3.Connection, table: _Table, leaf: LeafPage, size: int) -> None:
    most = size - 35
    rows = connection.execute(table.rows, (leaf.first, leaf.last)).fetchall()
    for row, length in rows:
        here = _local_payload_size(length, size)
        # Of a page's only row not all may fit on it.
        more = leaf.free - 4 if len(rows) > 1 else min(leaf.free - 4, most - here)
        if 0 < more <= most - here:
            ((body,),) = connection.execute(table.body, (row,)).fetchall()
            connection.execute(table.change, (body + bytes(more), row))
            connection.execute(table.change, (body, row))
            return


def _local_payload_size(length: int, size: int) -> int:
    """How much of a row of this length is on its page; the rest is on pages of its own."""
    least = (size - 12) * 32 // 255 - 23
    if length <= size - 35:
        return length
    here = least + (length - least) % (size - 4)
    return here if here <= size - 35 else least


def _page_size(connection: sqlite3.Connection) -> int:
    ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    number: int = size
    return number
