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
from antiphon.stores.full_text import query_of
from antiphon.stores.sqlite.database import Ground
from antiphon.stores.sqlite.response_list import Page
from antiphon.stores.sqlite.search.indexing import Plan, carry_out, read_plan
from antiphon.stores.sqlite.search.query import read_hits
from antiphon.stores.sqlite.search.segment import FULL
from antiphon.turn.store_protocols import Hit

#: Seconds without a turn's end after which there is time for indexing: it costs about as much
#: as the turns themselves.
QUIET = 1.0
#: Seconds that a chunk's worth of turns waits for that. Under a load that never stops they are
#: indexed all the same: else all would be left to one search.
PATIENCE = 5.0


class SqliteSearch:
    """A ``SearchIndex`` in the file of a SQLite store. Used on one event loop."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        # Other processes may have left as many as need indexing: the first turn looks.
        self._ended = FULL - 1
        self._latest = 0.0
        #: When a chunk's worth of turns waits no longer for quiet; None: there is none.
        self._overdue_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._background: asyncio.Task[None] | None = None
        #: Only one indexes at a time: two would do the same.
        self._indexing = asyncio.Lock()

    def note_end(self) -> None:
        """A turn has ended, or is about to. Has a chunk's worth indexed once all is quiet."""
        self._ended += 1
        self._latest = time.monotonic()
        if self._ended >= FULL and self._timer is None and self._background is None:
            self._wait()

    def _wait(self) -> None:
        if self._overdue_at is None:
            self._overdue_at = time.monotonic() + PATIENCE
        self._timer = asyncio.get_running_loop().call_later(self._noise(), self._when_due)

    def _when_due(self) -> None:
        self._timer = None
        if self._noise() > 0:
            self._wait()
        else:
            self._ended = 0
            self._background = asyncio.create_task(self._catch_up())

    def _noise(self) -> float:
        """Seconds until it is time to index: turns under way come first, but not for ever."""
        now = time.monotonic()
        quiet_at = self._latest + QUIET
        return (quiet_at if self._overdue_at is None else min(quiet_at, self._overdue_at)) - now

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[Hit]:
        wanted = query_of(query)
        if not wanted.terms or limit < 1:
            return []
        while not await self._index(tenant, least=1):
            pass
        page, cutoff = Page(limit, after), self._ground.expiry.cutoff(tenant)
        return await self._ground.pooled(
            partial(read_hits, tenant=tenant, query=wanted, page=page, cutoff=cutoff)
        )

    async def close(self) -> None:
        """End what runs in the background. The store's ground is closed after this."""
        if self._timer is not None:
            self._timer.cancel()
        task, self._background = self._background, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _catch_up(self) -> None:
        try:
            # Whatever is in the way, the next search meets it too, and has someone to tell.
            with contextlib.suppress(StoreError):
                while not await self._index(None, least=FULL):
                    if self._noise() > 0:
                        self._ended = FULL
                        self._wait()
                        return
            self._overdue_at = None
            if self._ended >= FULL:
                # They ended in the meantime.
                self._wait()
        finally:
            self._background = None

    async def _index(self, tenant: str | None, least: int) -> bool:
        """Index up to 256 turns; whether all that waited have been."""
        async with self._indexing:
            plan: Plan | None = await self._ground.pooled(
                partial(read_plan, tenant=tenant, least=least)
            )
            if plan is None:
                return True
            carried_out: bool = await self._ground.put(carry_out, plan)
            return carried_out and plan.last
