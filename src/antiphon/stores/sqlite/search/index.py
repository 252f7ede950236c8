"""Full text search in a SQLite store.

    a turn ends        a trigger notes its place: all that the turn's own commit does here
    256 have ended     they are indexed in the background, in quiet if
                       that comes soon                                 (search_indexing.py)
    a search           indexes what waits, then asks the chunks        (search_finding.py)
    words are erased   triggers dissolve their chunk, in the same statement

SQLite's own FTS5 is not used. What is deleted from it stays in its segments until they happen
to be merged (what would prevent that came with 3.42, and Python is built with older ones), and
rewriting all of an index after each deletion takes longer the more is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial

from antiphon.errors import StoreError
from antiphon.stores.full_text import parse_query
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.response_list import PageRequest
from antiphon.stores.sqlite.search.indexing import IndexingPlan, apply_plan, read_plan
from antiphon.stores.sqlite.search.query import read_hits
from antiphon.stores.sqlite.search.segment import MAX_SEGMENT_TURNS
from antiphon.turn.store_protocols import SearchHit

#: Seconds without a turn's end after which there is time for indexing: it costs about as much
#: as the turns themselves.
QUIET_SECONDS = 1.0
#: Seconds that a chunk's worth of turns waits for that. Under a load that never stops they are
#: indexed all the same: else all would be left to one search.
PATIENCE = 5.0


class SqliteSearchIndex:
    """A ``SearchIndex`` in the file of a SQLite store. Used on one event loop."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        # Other processes may have left as many as need indexing: the first turn looks.
        self._ended_count = MAX_SEGMENT_TURNS - 1
        self._last_end = 0.0
        #: When a chunk's worth of turns waits no longer for quiet; None: there is none.
        self._overdue_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._background_task: asyncio.Task[None] | None = None
        #: Only one indexes at a time: two would do the same.
        self._indexing_lock = asyncio.Lock()

    def on_turn_end(self) -> None:
        """A turn has ended, or is about to. Has a chunk's worth indexed once all is quiet."""
        self._ended_count += 1
        self._last_end = time.monotonic()
        if (
            self._ended_count >= MAX_SEGMENT_TURNS
            and self._timer is None
            and self._background_task is None
        ):
            self._schedule()

    def _schedule(self) -> None:
        if self._overdue_at is None:
            self._overdue_at = time.monotonic() + PATIENCE
        self._timer = asyncio.get_running_loop().call_later(
            self._seconds_until_quiet(), self._when_due
        )

    def _when_due(self) -> None:
        self._timer = None
        if self._seconds_until_quiet() > 0:
            self._schedule()
        else:
            self._ended_count = 0
            self._background_task = asyncio.create_task(self._index_backlog())

    def _seconds_until_quiet(self) -> float:
        """Seconds until it is time to index: turns under way come first, but not for ever."""
        now = time.monotonic()
        quiet_at = self._last_end + QUIET_SECONDS
        return (quiet_at if self._overdue_at is None else min(quiet_at, self._overdue_at)) - now

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[SearchHit]:
        wanted = parse_query(query)
        if not wanted.terms or limit < 1:
            return []
        while not await self._index(tenant, minimum=1):
            pass
        page, cutoff = PageRequest(limit, after), self._database.expiry.cutoff(tenant)
        return await self._database.read_pooled(
            partial(read_hits, tenant=tenant, query=wanted, page=page, cutoff=cutoff)
        )

    async def close(self) -> None:
        """End what runs in the background. The store's ground is closed after this."""
        if self._timer is not None:
            self._timer.cancel()
        task, self._background_task = self._background_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _index_backlog(self) -> None:
        try:
            # Whatever is in the way, the next search meets it too, and has someone to tell.
            with contextlib.suppress(StoreError):
                while not await self._index(None, minimum=MAX_SEGMENT_TURNS):
                    if self._seconds_until_quiet() > 0:
                        self._ended_count = MAX_SEGMENT_TURNS
                        self._schedule()
                        return
            self._overdue_at = None
            if self._ended_count >= MAX_SEGMENT_TURNS:
                # They ended in the meantime.
                self._schedule()
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
            carried_out: bool = await self._database.submit(apply_plan, plan)
            return carried_out and plan.is_last
