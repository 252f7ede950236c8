"""Page scrubbing"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from antiphon.errors import StoreError
from antiphon.stores.sqlite.btree_pages import LeafPage, PageFile
from antiphon.stores.sqlite.sql_files import parse_queries, read_sql
from antiphon.stores.sqlite.write_transaction import WriteTransaction


class Erasures:
    """Those of one opened store. Used by the writing thread and by the event loop.

    ``mark`` is the file's path; where it is there already, something is to be cleaned.
    """

    def __init__(self, mark: Path) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._marked = self.left_by_dead = mark.exists()
        self._committing = False
        #: How often something was erased, up to which of these times it is gone from the pages.
        self.count = 1 if self._marked else 0
        self.cleaned = 0

    #: ``left_by_dead``: nothing has been erased here since a dead process's mark was found.

    @property
    def due(self) -> bool:
        """Whether there is something to clean."""
        return self.count > self.cleaned

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Around the commit of an erasure: it is marked before and counted after."""
        with self._lock:
            self._committing = True
            self._set_mark()
        try:
            yield
        finally:
            with self._lock:
                self._committing = False
                self.count += 1
                # Whoever commits after that empties the write-ahead log, too.
                self.left_by_dead = False

    def take_over(self) -> None:
        """What a dead process erased is to be cleaned here: its mark was made this store's."""
        with self._lock:
            self._marked = self.left_by_dead = True
            self.count += 1

    def set_cleaned(self, count: int) -> None:
        """All that had been erased when ``self.count`` was ``count`` is gone."""
        with self._lock:
            self.cleaned = max(self.cleaned, count)
            if self._marked and not self._committing and not self.due:
                # One that stays costs whoever finds it a look at the pages.
                with contextlib.suppress(OSError):
                    self._mark.unlink(missing_ok=True)
                self._marked = False

    def _set_mark(self) -> None:
        if self._marked:
            return
        # A disk that is full must not keep anyone from erasing: that makes room.
        with contextlib.suppress(OSError):
            os.close(os.open(self._mark, os.O_CREAT | os.O_WRONLY, 0o600))
            self._marked = True
            _sync(self._mark.parent)


def _sync(folder: Path) -> None:
    """Have a folder's entries reach the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SQL: Final = parse_queries(read_sql("page_scrubbing.sql"))


class _Table(msgspec.Struct, frozen=True):
    """The queries of a table with words in its rows."""

    rows: str
    body: str
    change: str


_TABLES: Final = {
    "log": _Table(_SQL["log_rows"], _SQL["log_body"], _SQL["log_update"]),
    "blobs": _Table(_SQL["blobs_rows"], _SQL["blobs_body"], _SQL["blobs_update"]),
    "conversations": _Table(
        _SQL["conversations_rows"], _SQL["conversations_body"], _SQL["conversations_update"]
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
