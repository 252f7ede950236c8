"""The task that cleans a file after erasures, in the background and seldom.

A look at all pages takes time that grows with the file. So erasures that come one after
another are cleaned up after together, and the task rests after each look for twenty times as
long as it took: it never takes more than a twentieth of a core.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from antiphon.errors import StoreError
from antiphon.stores.sqlite.btree_pages import PageFile
from antiphon.stores.sqlite.page_scrubbing import (
    MAX_SCRUB_PASSES,
    DirtyPages,
    find_dirty_pages,
    scrub_pages,
)
from antiphon.stores.sqlite.pending_erasures import Erasures

log = logging.getLogger("antiphon.store")

#: How soon the file is cleaned after an erasure.
_CLEAN_SECONDS: Final = 0.5
#: How long the task rests after a look, in times that the look took.
_REST: Final = 20
#: How soon it is tried again where something went wrong: at first, and at most.
_RETRY_SECONDS: Final = 5.0
_MOST_RETRY_SECONDS: Final = 300.0


class CleaningTask:
    """Runs while there is something to clean. Used on one event loop.

    ``pooled`` has a reader's thread read, ``put`` has the writer do a job.
    """

    def __init__(
        self,
        erasures: Erasures,
        pages: PageFile,
        pooled: Callable[[Callable[[sqlite3.Connection], DirtyPages]], Awaitable[DirtyPages]],
        put: Callable[..., Awaitable[Any]],
    ) -> None:
        self._erasures = erasures
        self._pages = pages
        self._pooled = pooled
        self._put = put
        self._task: asyncio.Task[None] | None = None
        #: The words that were erased last are out of the write-ahead log.
        self._scrubbed = False
        self._closing = threading.Event()
        #: How often it was cleaned in a row, and how often that failed.
        self._rounds = 0
        self._failures = 0
        self._rest_until = 0.0

    def start(self) -> None:
        """Something was erased, and is out of the write-ahead log: pages can be looked at."""
        self._scrubbed = True
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """End the task, and a look at pages that is under way in a thread."""
        self._closing.set()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._scrubbed and self._erasures.due:
                await asyncio.sleep(self._pause())
                self._scrubbed = False
                try:
                    await self._clean()
                    self._failures = 0
                except (StoreError, OSError) as error:
                    self._note_failure(error)
                except Exception as error:
                    log.exception("the database could not be cleaned after an erasure")
                    self._note_failure(error)
        finally:
            self._task = None

    def _pause(self) -> float:
        if self._failures:
            return min(_RETRY_SECONDS * self._failures, _MOST_RETRY_SECONDS)
        return max(_CLEAN_SECONDS, self._rest_until - time.monotonic())

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        # It stays due: nothing else need happen for it to be tried again.
        self._scrubbed = True
        if self._failures == 1:
            log.warning("cleaning after an erasure is to be tried again: %s", error)

    async def _clean(self) -> None:
        """Clean what erasures left in the file. Filling erases, so it is looked at again."""
        count = self._erasures.count
        began = time.monotonic()
        look = partial(find_dirty_pages, pages=self._pages, is_over=self._closing.is_set)
        gaps = await self._pooled(look)
        now = time.monotonic()
        self._rest_until = now + _REST * (now - began)
        if not gaps or self._rounds == MAX_SCRUB_PASSES:
            self._erasures.set_cleaned(count)
            self._rounds = 0
            return
        self._rounds += 1
        while gaps:
            gaps = await self._put(scrub_pages, gaps)
