"""Indexing: turns that wait become chunks.

A plan is read and its words are split in a reader's thread; the writer only puts it in place,
if nothing that it was made from has changed since. Small chunks are taken into larger ones as
numbers are in binary counting: a turn is indexed again at most eight times, and a tenant has
at most eight chunks that are not half full, however few turns come at a time.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from antiphon.stores.full_text import searchable_text
from antiphon.stores.sqlite.reader import snapshot
from antiphon.stores.sqlite.search.segment import (
    MAX_SEGMENT_TURNS,
    IndexedTurn,
    IndexSegment,
    build_segment,
    decode_turn_entries,
)
from antiphon.stores.sqlite.sql_files import parse_queries, read_sql
from antiphon.stores.sqlite.write_transaction import WriteTransaction

SEARCH_SQL: Final = parse_queries(read_sql("search.sql"))
_TIME = struct.Struct(">d")


class IndexingPlan(msgspec.Struct, frozen=True):
    """The next chunks, each with its tenant, and what they were made from.

    ``waiting`` are places and marks, ``merge_events`` the ids and secrets of chunks that go up in
    the new ones. ``last``: no other turns waited.
    """

    index_segments: tuple[tuple[str, IndexSegment], ...]
    pending: tuple[tuple[int, int], ...]
    merged_segments: tuple[tuple[int, bytes], ...]
    is_last: bool


class _PendingTurns(msgspec.Struct):
    """A tenant's turns that are to be indexed, before their words are split."""

    turns: list[IndexedTurn]
    merged_segments: list[tuple[int, bytes]]


def read_plan(
    connection: sqlite3.Connection, tenant: str | None, minimum: int
) -> IndexingPlan | None:
    """What to do for a tenant, or (None) for all; None: fewer than ``least`` turns wait."""
    with snapshot(connection):
        # Asked most often, and mostly in vain.
        if connection.execute(SEARCH_SQL["some_wait"], (minimum,)).fetchall()[0][0] < minimum:
            return None
        rows = connection.execute(
            SEARCH_SQL["waiting"], {"tenant": tenant, "limit": MAX_SEGMENT_TURNS}
        ).fetchall()
        founds: dict[str, _PendingTurns] = {}
        for place, _, owner, time in rows:
            if time is not None:
                found = founds.setdefault(owner, _PendingTurns([], []))
                found.turns.append(_read_indexed_turn(connection, place, _TIME.unpack(time)[0]))
        for owner, found in founds.items():
            _merge_smaller_segments(connection, owner, found)
    if not rows:
        return None
    chunks = [(owner, build_segment(found.turns)) for owner, found in founds.items()]
    return IndexingPlan(
        index_segments=tuple([(owner, chunk) for owner, chunk in chunks if chunk is not None]),
        pending=tuple([row[:2] for row in rows]),
        merged_segments=tuple([one for found in founds.values() for one in found.merged_segments]),
        is_last=len(rows) < MAX_SEGMENT_TURNS,
    )


def apply_plan(transaction: WriteTransaction, plan: IndexingPlan) -> bool:
    """Put the plan's chunks in place. False: what it was made from is not so any more."""
    connection = transaction.connection
    if not _has_all_rows(connection, "still_waits", plan.pending):
        return False
    if not _has_all_rows(connection, "still_there", plan.merged_segments):
        return False
    for chunk_id, _ in plan.merged_segments:
        # Its turns wait again, until the end of this.
        connection.execute(SEARCH_SQL["dissolve"], (chunk_id,))
    for tenant, chunk in plan.index_segments:
        size = (len(chunk.row_ids), chunk.words)
        row = (tenant, *size, chunk.secret, chunk.bucket_count, chunk.turn_entries)
        number = connection.execute(SEARCH_SQL["add_chunk"], row).lastrowid
        drawers = [(number, drawer, body) for drawer, body in chunk.bucket_bodies]
        connection.executemany(SEARCH_SQL["add_drawer"], drawers)
        places = [(number, place) for place in chunk.row_ids]
        connection.executemany(SEARCH_SQL["add_place"], places)
        connection.executemany(SEARCH_SQL["served"], [(place,) for place in chunk.row_ids])
    connection.executemany(SEARCH_SQL["served"], [(place,) for place, _ in plan.pending])
    return True


def text_at(connection: sqlite3.Connection, row_id: int) -> str:
    """What was said in the turn that begins there."""
    return searchable_text(
        body for (body,) in connection.execute(SEARCH_SQL["items"], {"place": row_id})
    )


def _read_indexed_turn(
    connection: sqlite3.Connection, row_id: int, created_at: float
) -> IndexedTurn:
    return IndexedTurn(row_id, created_at, text_at(connection, row_id))


def _merge_smaller_segments(
    connection: sqlite3.Connection, tenant: str, pending: _PendingTurns
) -> None:
    """Take a tenant's newest chunks along, while they are no larger than what there is."""
    newest = connection.execute(SEARCH_SQL["newest_chunks"], (tenant, MAX_SEGMENT_TURNS)).fetchall()
    for chunk_id, turns, secret in newest:
        if turns > len(pending.turns) or turns + len(pending.turns) > MAX_SEGMENT_TURNS:
            break
        pending.merged_segments.append((chunk_id, secret))
        ((spots,),) = connection.execute(SEARCH_SQL["spots"], (chunk_id,)).fetchall()
        pending.turns += [
            _read_indexed_turn(connection, place, time)
            for place, time, _ in decode_turn_entries(spots)
        ]


def _has_all_rows(
    connection: sqlite3.Connection, query: str, values: Iterable[tuple[object, ...]]
) -> bool:
    return all(connection.execute(SEARCH_SQL[query], row).fetchall() for row in values)
