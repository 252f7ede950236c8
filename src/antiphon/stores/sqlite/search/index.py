"""Full-text search in SQLite: an inverted index in immutable segments, built in the background.

    a turn ends        a trigger records its row id as pending: all that the commit does here
    256 have ended     they are indexed in the background, while others run
    a search           indexes up to 256 pending turns of its tenant, then reads the segments and
                       up to 256 turns that are still pending                   (query.py)
    words are erased   triggers delete their segment, in the same statement

A plan is read and its text tokenized in a reader's thread; the writer only inserts it, if
nothing it was made from has changed. Small segments are merged into larger ones as in binary
counting: a turn is indexed again at most eight times, and a tenant has at most eight segments
that are not half full, however few turns come at a time.

Why not SQLite's FTS5: it holds the words themselves, and what is deleted from it stays in the file
or costs more to remove than here (ARCHITECTURE.md has the figures).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import msgspec

from antiphon.errors import StoreError
from antiphon.stores.search_tokenizer import parse_query
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.reader import PageRequest, snapshot
from antiphon.stores.sqlite.search.query import SEARCH_SQL, read_hits, read_indexed_turn, text_at
from antiphon.stores.sqlite.search.segment import (
    MAX_SEGMENT_TURNS,
    IndexedTurn,
    IndexSegment,
    build_segment,
    decode_turn_entries,
)
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import SearchHit


class IndexingPlan(msgspec.Struct, frozen=True):
    """The next segments, each with its tenant, and what they were made from.

    ``pending`` are row ids and revisions, ``merged_segments`` the ids and secrets of segments
    that the new ones replace. ``is_last``: no other turns are pending.
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
    """What to do for a tenant, or (None) for all; None: fewer than ``minimum`` turns are
    pending.
    """
    with snapshot(connection):
        # Asked most often, and mostly in vain.
        if connection.execute(SEARCH_SQL["count_pending"], (minimum,)).fetchall()[0][0] < minimum:
            return None
        rows = connection.execute(
            SEARCH_SQL["pending_turns"], {"tenant": tenant, "limit": MAX_SEGMENT_TURNS}
        ).fetchall()
        by_tenant: dict[str, _PendingTurns] = {}
        for row_id, _, owner, time in rows:
            if time is not None:
                pending = by_tenant.setdefault(owner, _PendingTurns([], []))
                pending.turns.append(read_indexed_turn(connection, row_id, time))
        for owner, pending in by_tenant.items():
            _merge_smaller_segments(connection, owner, pending)
    if not rows:
        return None
    segments = [(owner, build_segment(pending.turns)) for owner, pending in by_tenant.items()]
    return IndexingPlan(
        index_segments=tuple(
            [(owner, segment) for owner, segment in segments if segment is not None]
        ),
        pending=tuple([row[:2] for row in rows]),
        merged_segments=tuple(
            [one for pending in by_tenant.values() for one in pending.merged_segments]
        ),
        is_last=len(rows) < MAX_SEGMENT_TURNS,
    )


def apply_plan(transaction: WriteTransaction, plan: IndexingPlan) -> bool:
    """Put the plan's segments in the index. False: what it was made from has changed."""
    connection = transaction.connection
    if not _has_all_rows(connection, "is_pending", plan.pending):
        return False
    if not _has_all_rows(connection, "segment_exists", plan.merged_segments):
        return False
    for segment_id, _ in plan.merged_segments:
        # Its turns wait again, until the end of this.
        connection.execute(SEARCH_SQL["delete_segment"], (segment_id,))
    for tenant, segment in plan.index_segments:
        size = (len(segment.row_ids), segment.words)
        row = (tenant, *size, segment.secret, segment.bucket_count, segment.turn_entries)
        number = connection.execute(SEARCH_SQL["add_segment"], row).lastrowid
        buckets = [(number, bucket, body) for bucket, body in segment.bucket_bodies]
        connection.executemany(SEARCH_SQL["add_bucket"], buckets)
        row_ids = [(number, row_id) for row_id in segment.row_ids]
        connection.executemany(SEARCH_SQL["add_segment_turn"], row_ids)
        connection.executemany(
            SEARCH_SQL["delete_pending"], [(row_id,) for row_id in segment.row_ids]
        )
    connection.executemany(SEARCH_SQL["delete_pending"], [(row_id,) for row_id, _ in plan.pending])
    return True


def _merge_smaller_segments(
    connection: sqlite3.Connection, tenant: str, pending: _PendingTurns
) -> None:
    """Merge a tenant's newest segments while they are no larger than the new one."""
    newest = connection.execute(
        SEARCH_SQL["newest_segments"], (tenant, MAX_SEGMENT_TURNS)
    ).fetchall()
    for segment_id, turns, secret in newest:
        if turns > len(pending.turns) or turns + len(pending.turns) > MAX_SEGMENT_TURNS:
            break
        pending.merged_segments.append((segment_id, secret))
        ((entries,),) = connection.execute(SEARCH_SQL["turn_entries"], (segment_id,)).fetchall()
        pending.turns += [
            IndexedTurn(row_id, time, text_at(connection, row_id))
            for row_id, time, _ in decode_turn_entries(entries)
        ]


def _has_all_rows(
    connection: sqlite3.Connection, query: str, values: Iterable[tuple[object, ...]]
) -> bool:
    return all(connection.execute(SEARCH_SQL[query], row).fetchall() for row in values)


#: How many waiting turns are counted at most.
_MAX_COUNTED: Final = 100_000


class SqliteSearchIndex:
    """A ``SearchIndex`` in the file of a SQLite store. Used on one event loop."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        # Other processes may have left as many as need indexing: the first turn looks.
        self._ended_count = MAX_SEGMENT_TURNS - 1
        self._background_task: asyncio.Task[None] | None = None
        #: Only one indexes at a time: two would do the same.
        self._indexing_lock = asyncio.Lock()

    def on_turn_end(self) -> None:
        """A turn has ended, or is about to. Has a segment's worth indexed in the background."""
        self._ended_count += 1
        if self._ended_count >= MAX_SEGMENT_TURNS:
            self._start_indexing()

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[SearchHit]:
        parsed = parse_query(query)
        if not parsed.terms or limit < 1:
            return []
        # One segment's worth is indexed here, as much again is searched as it is: a search
        # behind an import of a million turns answers at once.
        if not await self._index(tenant, minimum=1):
            self._start_indexing()
        page, cutoff = PageRequest(limit, after), self._database.expiry.cutoff(tenant)
        return await self._database.read_pooled(
            partial(read_hits, tenant=tenant, query=parsed, page=page, cutoff=cutoff)
        )

    async def count_unsearched(self, tenant: str) -> int:
        count: int = await self._database.read_pooled(partial(_count_unsearched, tenant=tenant))
        return count

    async def close(self) -> None:
        """Cancel background indexing. The database is closed after this."""
        task, self._background_task = self._background_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _start_indexing(self) -> None:
        if self._background_task is None:
            self._ended_count = 0
            self._background_task = asyncio.create_task(self._index_backlog())

    async def _index_backlog(self) -> None:
        try:
            # The next search meets the same error, and reports it to its caller.
            with contextlib.suppress(StoreError):
                began = time.monotonic()
                while not await self._index(None, minimum=MAX_SEGMENT_TURNS):
                    # Turns under way get every other moment.
                    await asyncio.sleep(time.monotonic() - began)
                    began = time.monotonic()
        finally:
            self._background_task = None

    async def _index(self, tenant: str | None, minimum: int) -> bool:
        """Index up to 256 turns; whether all that waited have been."""
        async with self._indexing_lock:
            plan: IndexingPlan | None = await self._database.read_pooled(
                partial(read_plan, tenant=tenant, minimum=minimum)
            )
            if plan is None:
                return True
            is_applied: bool = await self._database.submit(apply_plan, plan)
            return is_applied and plan.is_last


def _count_unsearched(connection: sqlite3.Connection, tenant: str) -> int:
    rows = connection.execute(SEARCH_SQL["count_pending_of"], (tenant, _MAX_COUNTED)).fetchall()
    return max(0, int(rows[0][0]) - MAX_SEGMENT_TURNS)
