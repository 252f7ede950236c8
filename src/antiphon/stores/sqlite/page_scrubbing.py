"""Page scrubbing: overwrites erased words that SQLite left in the unused space of pages.

When SQLite moves rows from a page to its neighbour, their bytes may stay in the slack of the
first page: ``secure_delete`` overwrites what is deleted, but not what was moved. Were such a
row erased later, its copy would stay. Rows with words are only added at the end of their tables,
which moves none. Deleting moves some: those next to the deleted ones, where a page becomes too
empty. So after each erasure the slack of the pages near it is checked, and no copy is left
anywhere. Where slack is not empty, a row of the page is made to fill all of the page that is free,
and then restored: SQLite has to defragment the page for that, and overwrites what it frees.

Erasures that follow one another are scrubbed together, in the background, and the task rests after
each check for twenty times as long as it took: it never takes more than a twentieth of a core.

Pending erasures are marked by a file beside the database, one per open store. It outlives a
crash: the process that finds the mark of a dead one checks all pages in its place, so that no
process has to check them just to be sure.
"""

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
from antiphon.stores.sqlite.deletion import ErasedRows
from antiphon.stores.sqlite.sql_files import read_queries
from antiphon.stores.sqlite.write_transaction import WriteTransaction


class ErasureScope(msgspec.Struct, frozen=True):
    """What one check of pages covers: the erasures up to ``count``.

    ``rows`` are the deleted rows near which pages are checked; None: all pages.
    ``full_checks`` counts what made that necessary.
    """

    count: int
    rows: ErasedRows | None
    full_checks: int


class PendingErasures:
    """Erasures of one open store that may need scrubbing: counts them, and marks them on disk.

    Used by the writer thread and the event loop. ``mark`` is the file's path; where it exists
    already, something is to be scrubbed.
    """

    def __init__(self, mark: Path) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._marked = self.is_inherited = mark.exists()
        self._committing = False
        self._erased = ErasedRows()
        #: What a dead process erased may be anywhere: how often all pages have to be checked for
        #: that, and how often they were.
        self._full_checks, self._full_checks_done = int(self._marked), 0
        #: How often something was erased, and up to which of these the pages are scrubbed.
        self.count = 1 if self._marked else 0
        self.scrubbed = 0
        #: How many of them have left the write-ahead log, and how many deleted rows with them.
        self._checkpointed = (self.count, 0, 0)

    @property
    def is_pending(self) -> bool:
        """Whether there is something to scrub."""
        return self.count > self.scrubbed

    def set_checkpointed(self) -> None:
        """All that has been erased so far has left the write-ahead log."""
        with self._lock:
            erased = self._erased
            self._checkpointed = (self.count, len(erased.texts), len(erased.blobs))

    def scope(self) -> ErasureScope:
        """What the next check has to cover. What is in the log only is left for a later one."""
        with self._lock:
            count, texts, blobs = self._checkpointed
            is_full = self._full_checks > self._full_checks_done
            rows = None if is_full else self._erased.first(texts, blobs)
            return ErasureScope(count, rows, self._full_checks)

    @contextlib.contextmanager
    def committing(self, erased: ErasedRows) -> Iterator[None]:
        """Wraps the commit of an erasure: it is marked before and counted after."""
        with self._lock:
            self._committing = True
            self._write_mark()
        try:
            yield
        finally:
            with self._lock:
                self._committing = False
                self._erased.extend(erased)
                self.count += 1
                # A commit with an erasure truncates the write-ahead log, too.
                self.is_inherited = False

    def take_over(self) -> None:
        """Scrub for a dead process: its mark was made this store's."""
        with self._lock:
            self._marked = self.is_inherited = True
            self._full_checks += 1
            self.count += 1

    def set_scrubbed(self, scope: ErasureScope) -> None:
        """All that the check of this scope found is overwritten."""
        with self._lock:
            self.scrubbed = max(self.scrubbed, scope.count)
            if scope.rows is None:
                self._full_checks_done = scope.full_checks
            else:
                texts, blobs = len(scope.rows.texts), len(scope.rows.blobs)
                self._erased.remove_first(texts, blobs)
                count, more_texts, more_blobs = self._checkpointed
                self._checkpointed = (count, more_texts - texts, more_blobs - blobs)
            if self._marked and not self._committing and not self.is_pending:
                # A mark that stays costs the next process a check of the pages.
                with contextlib.suppress(OSError):
                    self._mark.unlink(missing_ok=True)
                self._marked = False

    def _write_mark(self) -> None:
        if self._marked:
            return
        # A full disk must not prevent erasures: they make room.
        with contextlib.suppress(OSError):
            os.close(os.open(self._mark, os.O_CREAT | os.O_WRONLY, 0o600))
            self._marked = True
            _sync(self._mark.parent)


def _sync(folder: Path) -> None:
    """Sync a folder's entries to the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SQL: Final = read_queries("page_scrubbing.sql")


class _Table(msgspec.Struct, frozen=True):
    """The queries of a table whose rows contain words."""

    rows: str
    body: str
    change: str


_TABLES: Final = {
    "texts": _Table(_SQL["texts_rows"], _SQL["texts_body"], _SQL["texts_update"]),
    "blobs": _Table(_SQL["blobs_rows"], _SQL["blobs_body"], _SQL["blobs_update"]),
}
#: How often a page is scrubbed that is never found clean, as others write to it meanwhile.
MAX_SCRUB_PASSES: Final = 8
#: How many seconds one transaction scrubs; other writes wait that long.
_MAX_TRANSACTION_SECONDS: Final = 0.02

#: Leaf pages with slack to overwrite, each with the name of its table.
DirtyPages: TypeAlias = list[tuple[str, LeafPage]]


def find_dirty_pages(
    connection: sqlite3.Connection,
    pages: PageFile,
    erased: ErasedRows | None = None,
    is_over: Callable[[], bool] | None = None,
) -> DirtyPages:
    """The pages to scrub, as they are in the file: not those in the write-ahead log only.

    ``erased``: near these rows; None: all pages. Raises ``StoreError`` as soon as ``is_over`` says
    that the store closes.
    """
    size = _page_size(connection)
    roots = dict(connection.execute(_SQL["roots"]).fetchall())
    dirty: DirtyPages = []
    for table in _TABLES:
        near = None if erased is None else getattr(erased, table)
        leaves = pages.dirty_leaves(roots[table], size, near)
        for leaf in leaves:
            if is_over is not None and is_over():
                raise StoreError("The store is closed.")
            if leaf is not None:
                dirty.append((table, leaf))
    return dirty


def scrub_pages(transaction: WriteTransaction, dirty: DirtyPages) -> DirtyPages:
    """Scrub pages for at most 20 ms; returns those that are left."""
    transaction.flush()
    deadline = time.monotonic() + _MAX_TRANSACTION_SECONDS
    size = _page_size(transaction.connection)
    left = dirty[::-1]
    while left:
        table, leaf = left.pop()
        _scrub_page(transaction.connection, _TABLES[table], leaf, size)
        # The next check looks whether the page is clean.
        getattr(transaction.erased, table).append(leaf.first)
        if time.monotonic() > deadline:
            break
    # The old pages leave the write-ahead log, too.
    transaction.has_erased = True
    return left[::-1]


def _scrub_page(connection: sqlite3.Connection, table: _Table, leaf: LeafPage, size: int) -> None:
    max_payload = size - 35
    rows = connection.execute(table.rows, (leaf.first, leaf.last)).fetchall()
    for row, length in rows:
        local = _local_payload_size(length, size)
        # A page's only row may not fit on it with more bytes.
        padding = leaf.free - 4 if len(rows) > 1 else min(leaf.free - 4, max_payload - local)
        if 0 < padding <= max_payload - local:
            ((body,),) = connection.execute(table.body, (row,)).fetchall()
            connection.execute(table.change, (body + bytes(padding), row))
            connection.execute(table.change, (body, row))
            return


def _local_payload_size(length: int, size: int) -> int:
    """How many bytes of a row are on its page; the rest is on overflow pages."""
    minimum = (size - 12) * 32 // 255 - 23
    if length <= size - 35:
        return length
    local = minimum + (length - minimum) % (size - 4)
    return local if local <= size - 35 else minimum


def _page_size(connection: sqlite3.Connection) -> int:
    ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    number: int = size
    return number


log = logging.getLogger("antiphon.store")

#: Seconds from an erasure to the check of the pages.
_SCRUB_DELAY: Final = 0.5
#: How long the task rests after a check, in multiples of the check's time.
_REST_FACTOR: Final = 20
#: Seconds until a failed pass is tried again: at first, and at most.
_RETRY_SECONDS: Final = 5.0
_MAX_RETRY_SECONDS: Final = 300.0


class ScrubTask:
    """Background task: scrubs pages while erasures are pending. Used on one event loop.

    ``read_pooled`` runs a read in a thread, ``submit`` runs a job in the writer.
    """

    def __init__(
        self,
        erasures: PendingErasures,
        pages: PageFile,
        read_pooled: Callable[[Callable[[sqlite3.Connection], DirtyPages]], Awaitable[DirtyPages]],
        submit: Callable[..., Awaitable[Any]],
    ) -> None:
        self._erasures = erasures
        self._pages = pages
        self._read_pooled = read_pooled
        self._submit = submit
        self._task: asyncio.Task[None] | None = None
        #: The latest erasure has left the write-ahead log.
        self._is_checkpointed = False
        self._closing = threading.Event()
        #: How often the pages that the last check found were scrubbed, and failures in a row.
        self._attempts: dict[tuple[str, int], int] = {}
        self._failures = 0
        self._rest_until = 0.0

    def start(self) -> None:
        """Scrub after a checkpoint that has removed an erasure from the write-ahead log."""
        self._is_checkpointed = True
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """End the task, and a check of pages that runs in a thread."""
        self._closing.set()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._is_checkpointed and self._erasures.is_pending:
                await asyncio.sleep(self._pause())
                self._is_checkpointed = False
                try:
                    await self._scrub()
                    self._failures = 0
                except (StoreError, OSError) as error:
                    self._note_failure(error)
                except Exception as error:
                    log.exception("pages could not be scrubbed after an erasure")
                    self._note_failure(error)
        finally:
            self._task = None

    def _pause(self) -> float:
        if self._failures:
            return min(_RETRY_SECONDS * self._failures, _MAX_RETRY_SECONDS)
        return max(_SCRUB_DELAY, self._rest_until - time.monotonic())

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        # The erasure stays pending and is tried again without another one.
        self._is_checkpointed = True
        if self._failures == 1:
            log.warning("scrubbing pages after an erasure will be tried again: %s", error)

    async def _scrub(self) -> None:
        """One check, and what it finds. Scrubbing counts as an erasure, so another one follows."""
        scope = self._erasures.scope()
        began = time.monotonic()
        find = partial(
            find_dirty_pages, pages=self._pages, erased=scope.rows, is_over=self._closing.is_set
        )
        dirty = await self._read_pooled(find)
        now = time.monotonic()
        self._rest_until = now + _REST_FACTOR * (now - began)
        attempts = self._attempts
        keys = [(table, leaf.first) for table, leaf in dirty]
        self._attempts = {key: attempts.get(key, 0) + 1 for key in keys}
        left = [
            page
            for key, page in zip(keys, dirty, strict=True)
            if self._attempts[key] <= MAX_SCRUB_PASSES
        ]
        while left:
            left = await self._submit(scrub_pages, left)
        self._erasures.set_scrubbed(scope)
