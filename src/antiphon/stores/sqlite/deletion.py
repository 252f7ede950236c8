"""Deletion: erases turns, leaves tombstones where descendants need them, deletes unused blobs.

All of it within a transaction of the writer. A range has a first and a last row id. The uses of
blobs that were in erased ranges are returned, and the blobs deleted at the end: turns that are
erased together may share one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TypeAlias

from antiphon.core.items import COMPACTION_PREFIX, ERASED_SUMMARY_ITEM, is_summary
from antiphon.stores.sqlite.rows import decode_blob_use, last_of_thread, row_id_of, thread_of
from antiphon.stores.sqlite.sql_files import TURN_SQL

RowRange: TypeAlias = tuple[int, int]


def tombstone(connection: sqlite3.Connection, row_range: RowRange) -> set[bytes]:
    """Erase turns but for their tombstones; returns their uses of blobs."""
    uses = _blob_uses(connection, row_range)
    for step in (
        "tombstone_responses",
        "delete_running",
        "delete_fingerprints",
        "delete_items",
        "tombstone_headers",
    ):
        connection.execute(TURN_SQL[step], row_range)
    return uses


def delete_rows(connection: sqlite3.Connection, row_range: RowRange) -> set[bytes]:
    """Delete turns without descendants; returns their uses of blobs."""
    uses = _blob_uses(connection, row_range)
    for step in ("delete_responses", "delete_running", "delete_fingerprints", "delete_rows"):
        connection.execute(TURN_SQL[step], row_range)
    return uses


def erase_derived_words(connection: sqlite3.Connection, row_id: int) -> None:
    """Erase what the turn at ``row_id`` and its descendants hold of its words.

    That is the fingerprints of their chains, and the text of all summaries that may contain it:
    one that keeps the turn in view counts turns that are not there any more.
    """
    for row_range in descendant_ranges(connection, row_id):
        connection.execute(TURN_SQL["delete_fingerprints"], row_range)
        values = {"first": row_range[0], "last": row_range[1], "start": COMPACTION_PREFIX}
        for item_row_id, body in connection.execute(TURN_SQL["summaries"], values).fetchall():
            if is_summary(body):
                connection.execute(TURN_SQL["replace_body"], (ERASED_SUMMARY_ITEM, item_row_id))


def delete_unused_blobs(connection: sqlite3.Connection, uses: Iterable[bytes]) -> None:
    """Erase those blobs that no turn uses any more."""
    connection.executemany(
        TURN_SQL["delete_unused_blob"], [(decode_blob_use(use), use) for use in uses]
    )


def bump_epochs(connection: sqlite3.Connection, row_ids: Iterable[int]) -> None:
    """Invalidate caches of the trees of these turns, after an erasure."""
    trees = set()
    for thread in set(map(thread_of, row_ids)):
        trees.update(connection.execute(TURN_SQL["tree_of"], (thread,)).fetchall())
    connection.executemany(TURN_SQL["bump_epoch"], trees)


def descendant_ranges(connection: sqlite3.Connection, row_id: int) -> list[RowRange]:
    """The ranges of a turn and all its descendants: a branch after its origin."""
    row_ranges = [(row_id, last_of_thread(row_id))]
    # Grows as it is walked.
    for row_range in row_ranges:
        for (thread,) in connection.execute(TURN_SQL["branches"], row_range).fetchall():
            first = row_id_of(thread, 0)
            row_ranges.append((first, last_of_thread(first)))
    return row_ranges


def _blob_uses(connection: sqlite3.Connection, row_range: RowRange) -> set[bytes]:
    return {use for (use,) in connection.execute(TURN_SQL["blob_uses"], row_range)}
