"""Full-text search in SQLite: an inverted index in immutable segments, built in the background.

    a turn ends        its row id is recorded as pending: all that commits do here
    256 have ended     they are indexed in the background, while others run    (indexing.py)
    64 segments        half of them get a group, which says what each has      (group.py)
    a search           indexes up to 256 pending turns of its tenant, then reads groups, segments
                       and up to 256 turns that are still pending, the newest  (query.py)
    words are erased   their segment and its group are copied without them (removal.py), or triggers
                       delete both

A plan is read and its text tokenized in a reader's thread; the writer only inserts it, if
nothing it was made from has changed.

Why not SQLite's FTS5: it holds the words themselves, and what is deleted from it stays in the file
or costs more to remove than here (ARCHITECTURE.md has the figures).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from antiphon.errors import StoreError
from antiphon.stores.search_tokenizer import parse_query
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.reader import PageRequest
from antiphon.stores.sqlite.search.indexing import (
    apply_group,
    apply_plan,
    read_group,
    read_plan,
)
from antiphon.stores.sqlite.search.pending import SEARCH_SQL
from antiphon.stores.sqlite.search.query import SearchRequest, read_hits
from antiphon.stores.sqlite.search.segment import MAX_SEGMENT_TURNS
from antiphon.turn.search_protocols import SearchHit

#: How many waiting turns are counted at most.
_MAX_COUNTED: Final = 10_000

T = TypeVar("T")


class SqliteSearchIndex:
    """A ``SearchIndex`` in the file of a SQLite store. Used on one event loop."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        # Other processes may have left as many as need indexing: the first turn looks.
        self._ended_count = MAX_SEGMENT_TURNS - 1
        self._background_task: asyncio.Task[None] | None = None
        #: Only one indexes at a time: two would do the same.
        self._indexing_lock = asyncio.Lock()
        #: The CPU time that plans have taken since the background task last rested.
        self._spent = 0.0
        #: Tenants with enough segments for a group.
        self._crowded: set[str] = set()

    def on_turn_end(self) -> None:
        """A turn has ended, or is about to. Has a segment's worth indexed in the background."""
        self._ended_count += 1
        if self._ended_count >= MAX_SEGMENT_TURNS:
            self._start_indexing()

    async def search(
        self,
        tenant: str,
        query: str,
        limit: int,
        *,
        after: str | None = None,
        chat_id: str | None = None,
    ) -> Sequence[SearchHit]:
        request = SearchRequest(tenant, parse_query(query), PageRequest(limit, after), chat_id)
        return await self._search(request)

    async def search_chats(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[SearchHit]:
        page = PageRequest(limit, after)
        return await self._search(
            SearchRequest(tenant, parse_query(query), page, each_chat_once=True)
        )

    async def _search(self, request: SearchRequest) -> Sequence[SearchHit]:
        if not request.query.terms or request.page.limit < 1:
            return []
        # One segment's worth is indexed here, as much again is searched as it is: a search
        # behind an import of a million turns answers at once.
        if not await self._index(request.tenant, minimum=1) or self._crowded:
            self._start_indexing()
        read = partial(read_hits, request=request, expiry=self._database.expiry)
        return await self._database.read_pooled(read)

    async def count_unsearched(self, tenant: str) -> int:
        await self._database.apply_deferred()
        if not await self._database.read_inline(_has_pending):
            return 0
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
                # Another process would index the same turns, and all but one in vain.
                if self._database.begin_indexing():
                    await self._index_all()
        finally:
            self._database.end_indexing()
            self._background_task = None

    async def _index_all(self) -> None:
        is_complete = False
        while not is_complete or self._crowded:
            self._spent = 0.0
            is_complete = await self._index(None, minimum=MAX_SEGMENT_TURNS)
            if self._crowded:
                await self._group(self._crowded.pop())
            # Turns under way get as much time. Its CPU time, as they grow slower, too,
            # where many threads want the processor: the backlog must not grow then.
            await asyncio.sleep(self._spent)

    async def _index(self, tenant: str | None, minimum: int) -> bool:
        """Index up to 256 turns; whether all that waited have been."""
        async with self._indexing_lock:
            await self._database.apply_deferred()
            if not await self._database.read_inline(_has_pending):
                # Nearly always where turns are not many: a change of threads takes longer.
                return True
            plan = await self._read(partial(read_plan, tenant=tenant, minimum=minimum))
            if plan is None:
                return True
            is_applied: bool = await self._database.submit(apply_plan, plan)
            self._crowded.update(plan.crowded)
            return is_applied and plan.is_last

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        value, seconds = await self._database.read_pooled(partial(_timed, read=read))
        self._spent += seconds
        return value

    async def _group(self, tenant: str) -> None:
        """Make a tenant's next group."""
        async with self._indexing_lock:
            group = await self._read(partial(read_group, tenant=tenant))
            if group is not None and await self._database.submit(apply_group, group):
                # There may be enough for another one.
                self._crowded.add(tenant)


def _has_pending(connection: sqlite3.Connection) -> tuple[bool, set[int]]:
    return bool(connection.execute(SEARCH_SQL["has_pending"], (0,)).fetchall()), set()


def _timed(
    connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]
) -> tuple[T, float]:
    """The result of ``read``, and the CPU time that it took."""
    began = time.thread_time()
    return read(connection), time.thread_time() - began


def _count_unsearched(connection: sqlite3.Connection, tenant: str) -> int:
    rows = connection.execute(SEARCH_SQL["count_pending_of"], (tenant, _MAX_COUNTED)).fetchall()
    return max(0, int(rows[0][0]) - MAX_SEGMENT_TURNS)
