"""Erasing: what was said goes, and what others still hang on stays.

All of it within a transaction of the writer. A span is a first and a last place. Who erases
spans gets the uses of blobs that went with them, and lets go of those blobs at the end: turns
that go together may share one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TypeAlias

from antiphon.core.items import COMPACTION, ERASED_SUMMARY, sums_up
from antiphon.stores.sqlite.rows import decode_use, last_of_thread, place_of, thread_of
from antiphon.stores.sqlite.sql_files import SQL

Span: TypeAlias = tuple[int, int]


def erase(connection: sqlite3.Connection, span: Span) -> set[bytes]:
    """Leave nothing of these turns but tombstones; the blobs they used."""
    uses = _uses(connection, span)
    for step in ("forget_responses", "forget_running", "forget_items", "forget_headers"):
        connection.execute(SQL[step], span)
    return uses


def remove(connection: sqlite3.Connection, span: Span) -> set[bytes]:
    """Leave nothing at all of these turns, which nothing may hang on; the blobs they used."""
    uses = _uses(connection, span)
    for step in ("drop_responses", "forget_running", "drop_rows"):
        connection.execute(SQL[step], span)
    return uses


def forget_summaries(connection: sqlite3.Connection, place: int) -> None:
    """Leave no words of those summaries that may tell of the turn at ``place``.

    They are among its descendants, and all of these go: one that keeps the turn in view
    counts turns that are not there any more.
    """
    for span in family(connection, place):
        values = {"first": span[0], "last": span[1], "start": COMPACTION}
        for spot, body in connection.execute(SQL["summaries"], values).fetchall():
            if sums_up(body):
                connection.execute(SQL["replace_body"], (ERASED_SUMMARY, spot))


def let_go(connection: sqlite3.Connection, uses: Iterable[bytes]) -> None:
    """Erase those blobs that no turn uses any more."""
    connection.executemany(SQL["forget_blob"], [(decode_use(use), use) for use in uses])


def raise_epochs(connection: sqlite3.Connection, places: Iterable[int]) -> None:
    """Something went from the trees that these lie in: what was cached of them is stale."""
    trees = set()
    for thread in set(map(thread_of, places)):
        trees.update(connection.execute(SQL["tree"], (thread,)).fetchall())
    connection.executemany(SQL["bump_epoch"], trees)


def family(connection: sqlite3.Connection, place: int) -> list[Span]:
    """A turn and all its descendants: a branch comes behind what it branches off."""
    spans = [(place, last_of_thread(place))]
    # Grows as it is walked.
    for span in spans:
        for (thread,) in connection.execute(SQL["branches"], span).fetchall():
            first = place_of(thread, 0)
            spans.append((first, last_of_thread(first)))
    return spans


def _uses(connection: sqlite3.Connection, span: Span) -> set[bytes]:
    return {use for (use,) in connection.execute(SQL["uses"], span)}
