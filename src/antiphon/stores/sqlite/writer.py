"""Writer thread: the one that writes to a SQLite database, with group commit.

Jobs wait in a queue while a commit is under way, and all that wait share the next transaction:
with many concurrent turns the cost of an fsync is divided among them.

A turn that runs alone has nobody to share with: its jobs are committed on the event loop's own
thread, which saves two changes of threads. Whatever may take long is left to the thread:
checkpoints, erasures, and waiting for another process that writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

from antiphon.core.retention import Clock
from antiphon.errors import AntiphonError, StoreError
from antiphon.stores.health import Health
from antiphon.stores.interrupted_turns import interrupted_end
from antiphon.stores.sqlite.connection import (
    AUTOCHECKPOINT_PAGES,
    BUSY_TIMEOUT_MS,
    DatabaseConnections,
)
from antiphon.stores.sqlite.errors import is_busy, store_error
from antiphon.stores.sqlite.inline_pause import InlinePause
from antiphon.stores.sqlite.page_scrubbing import MAX_SCRUB_PASSES, find_dirty_pages, scrub_pages
from antiphon.stores.sqlite.turn_recovery import end_own_turns
from antiphon.stores.sqlite.write_transaction import OpenTurn, WriteTransaction
from antiphon.threads import background_priority

log = logging.getLogger("antiphon.store")

T = TypeVar("T")

#: A function of a ``WriteTransaction``, its arguments, and the future of its result.
Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]
_JobResult: TypeAlias = tuple["asyncio.Future[Any]", Any, BaseException | None]

_NOTHING: Final = contextlib.nullcontext()
_CHECKPOINT_TIMEOUT_MS: Final = 50
#: How soon a checkpoint that readers blocked is tried again after an erasure.
_CHECKPOINT_RETRY_SECONDS: Final = 0.1
#: How long the checkpoint waits at most where more is erased soon, in seconds.
_MAX_CHECKPOINT_DELAY: Final = 0.2
#: Commits on the loop's thread until the writer's thread does a checkpoint. Each writes some
#: twelve pages.
_COMMITS_PER_CHECKPOINT: Final = 300
#: How long a job is held back for another one, and how much less may do. Then it waits a little
#: for others to share its commit.
HOLD_SECONDS: Final = 0.03
_HOLD_STEP: Final = 0.001
_HELD_JOBS_DELAY: Final = 0.002
#: A commit on the loop's thread that takes longer than this, in seconds, is slow.
_MAX_INLINE_SECONDS: Final = 0.005
#: From this size on, the write-ahead log is truncated, which waits for readers.
MAX_WAL_BYTES: Final = 32 << 20


class Writer:
    """Runs jobs on the database in the order they come, in a thread of its own.

    Its methods are called on the event loop it was made on, and so is ``on_checkpointed``,
    after a checkpoint has removed erased words from the write-ahead log. ``on_written`` is called
    there after each commit that changed something.
    """

    def __init__(
        self,
        connections: DatabaseConnections,
        on_checkpointed: Callable[[], None] | None = None,
        health: Health | None = None,
        on_written: Callable[[], None] | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._on_written = on_written
        self._clock = clock
        self._connection = connections.write_connection
        self._page_file = connections.page_file
        self._erasures = connections.erasures
        self._wal_path = connections.wal_path
        self._health = health or Health((sqlite3.Error,))
        self._owner_id = connections.process_locks.owner_id
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        #: Jobs that wait to share a commit, the timer that ends their wait, and when it does.
        self._pending_jobs: list[Job] = []
        self._flush_timer: asyncio.Handle | None = None
        self._flush_at = 0.0
        #: Jobs that wait for another by name, the first the one that is due first; with whether
        #: each may be committed on the loop's thread, and when it is due.
        self._held_jobs: dict[str, tuple[Job, bool, float]] = {}
        self._hold_timer: asyncio.TimerHandle | None = None
        self._open_turns: dict[str, OpenTurn] = {}
        self._closed = False
        #: Held by whoever uses the connection: the thread, or the loop for a commit of its own.
        self._lock = threading.Lock()
        #: How many batches the thread has not finished.
        self._waiting_batches = 0
        #: Whether all pending jobs may be committed on the loop's thread.
        self._may_commit_inline = True
        #: How many there were since the last checkpoint, and the pause after slow ones.
        self._inline_commits = 0
        self._inline_pause = InlinePause()
        #: Whether the connection's settings are those for the loop's thread.
        self._is_inline = False
        #: Erased words are still in the write-ahead log.
        self._needs_checkpoint = False
        self._on_checkpointed = on_checkpointed
        #: When the checkpoint is due, and when one that readers blocked is tried again.
        self._checkpoint_due = 0.0
        self._retry_at = 0.0
        #: Whether something was written since results last went to the loop.
        self._written = False
        self._stop_future = self._loop.create_future()
        # A daemon, so that a program that forgets to close the store can still end: what
        # was confirmed is on disk; other turns end when the database is next opened.
        self._thread = threading.Thread(target=self._run, name="antiphon-writer", daemon=True)
        with background_priority():
            self._thread.start()

    def submit(
        self,
        action: Callable[..., Any],
        *arguments: Any,
        max_delay: float = 0.0,
        is_alone: bool = False,
        at_once: bool = False,
    ) -> asyncio.Future[Any]:
        """Queue ``action(transaction, *arguments)``; the future has its result once it is on disk.

        All jobs of one iteration of the loop are committed together. A job may wait up to
        ``max_delay`` seconds for others to share its commit. ``is_alone``: it is short, no other
        turn runs, and it may be committed on the loop's thread. ``at_once``: if so, within this
        call, and not in the next iteration.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreError("The store is closed."))
            return future
        self._pending_jobs.append((action, arguments, future))
        self._may_commit_inline = self._may_commit_inline and is_alone
        if at_once and self._may_commit_inline:
            self._flush_queue()
        else:
            self._flush_within(max_delay)
        return future

    def hold(
        self, name: str, action: Callable[..., Any], *arguments: Any, is_alone: bool = False
    ) -> asyncio.Future[Any]:
        """As ``submit``, but the job waits for one that ``release`` of this name precedes, or for
        ``HOLD_SECONDS``.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreError("The store is closed."))
            return future
        due = self._loop.time() + HOLD_SECONDS
        self._held_jobs[name] = ((action, arguments, future), is_alone, due)
        if self._hold_timer is None:
            self._hold_timer = self._loop.call_later(HOLD_SECONDS, self._release_due)
        return future

    def release(self, name: str) -> None:
        """Have a held job committed together with the next that is submitted."""
        held = self._held_jobs.pop(name, None)
        if held is not None:
            job, is_alone, _ = held
            self._pending_jobs.append(job)
            self._may_commit_inline = self._may_commit_inline and is_alone

    def read_if_idle(self, read: Callable[[sqlite3.Connection], T]) -> T | None:
        """The result of a read of a few rows, by the writer's connection on the loop's thread.

        Its page cache outlives its own commits: where turns run alone, it has what they read.
        None: it is not free, or has the thread's settings, by which it waits for other processes.
        """
        if not self._is_inline or self._closed or not self._lock.acquire(blocking=False):
            return None
        try:
            return read(self._connection) if self._is_inline else None
        finally:
            self._lock.release()

    def stop(self) -> None:
        """Take no more jobs: do what is queued, then end the turns still running here."""
        if not self._closed:
            self._closed = True
            for name in list(self._held_jobs):
                self.release(name)
            if self._hold_timer is not None:
                self._hold_timer.cancel()
            self._flush_queue()
            self._queue.put(None)

    def _release_due(self) -> None:
        """Commit held jobs that have waited long enough: the first ones, as all wait as long."""
        self._hold_timer = None
        now = self._loop.time()
        for name, (_, _, due) in list(self._held_jobs.items()):
            if due > now + _HOLD_STEP:
                self._hold_timer = self._loop.call_later(due - now, self._release_due)
                break
            self.release(name)
        if self._pending_jobs:
            self._flush_within(_HELD_JOBS_DELAY)

    def _flush_within(self, seconds: float) -> None:
        """Have what waits committed after so many seconds, or before if that is due already."""
        due = self._loop.time() + seconds
        if self._flush_timer is None or due < self._flush_at:
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            self._flush_timer = (
                self._loop.call_later(seconds, self._flush_queue)
                if seconds
                else self._loop.call_soon(self._flush_queue)
            )
            self._flush_at = due

    def _flush_queue(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        jobs, self._pending_jobs = self._pending_jobs, []
        is_inline, self._may_commit_inline = self._may_commit_inline, True
        if jobs and not (is_inline and self._commit_inline(jobs)):
            self._put(jobs)

    def _commit_inline(self, jobs: list[Job]) -> bool:
        """Commit on the loop's thread. False: the jobs are for the writer's thread."""
        began = time.monotonic()
        if self._closed or self._waiting_batches or began < self._inline_pause.ends_at:
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._needs_checkpoint:
                return False
            self._set_inline(True)
            results = self._commit(jobs)
            written, self._written = self._written, False
        except BaseException as error:
            self._roll_back()
            if isinstance(error, Exception):
                # Another process writes, or a job fails: the thread waits, or runs each alone.
                return False
            self._put(jobs)
            raise
        finally:
            self._lock.release()
        now = time.monotonic()
        self._inline_pause.note(now, now - began, limit=_MAX_INLINE_SECONDS)
        self._inline_commits += 1
        if self._inline_commits >= _COMMITS_PER_CHECKPOINT:
            self._inline_commits = 0
            # No jobs: the thread only does a checkpoint.
            self._put([])
        self._resolve(results, written, 0)
        return True

    def _put(self, jobs: list[Job]) -> None:
        """Give a batch to the thread."""
        self._waiting_batches += 1
        self._queue.put(jobs)

    def _set_inline(self, is_inline: bool) -> None:
        """On the loop's thread nothing waits for other processes, and no commit checkpoints."""
        if self._is_inline != is_inline:
            self._is_inline = is_inline
            timeout, pages = (0, 0) if is_inline else (BUSY_TIMEOUT_MS, AUTOCHECKPOINT_PAGES)
            self._connection.execute(f"PRAGMA busy_timeout = {timeout}")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    async def wait_stopped(self) -> None:
        """Returns when ``stop`` is done and the connection closed."""
        await self._stop_future
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            batches = self._next_jobs()
            batches += [self._queue.get() for _ in range(self._queue.qsize())]
            last = bool(batches) and batches[-1] is None
            taken = [jobs for jobs in batches if jobs is not None]
            with self._lock:
                self._run_jobs([job for jobs in taken for job in jobs], len(taken))
        # Should this fail, the next process that opens the database ends these turns.
        with _upkeep("end what still ran"):
            self._commit(
                [
                    (
                        end_own_turns,
                        (interrupted_end(), self._clock()),
                        self._stop_future,
                    )
                ]
            )
        with _upkeep("be cleaned after an erasure"):
            self._scrub_before_close()
        with _upkeep("be closed"):
            self._connection.close()
        self._resolve_futures([(self._stop_future, None, None)], 0)

    def _next_jobs(self) -> list[list[Job] | None]:
        """The next jobs; none when a checkpoint is to be tried again."""
        try:
            return [
                self._queue.get(
                    timeout=_CHECKPOINT_RETRY_SECONDS if self._needs_checkpoint else None
                )
            ]
        except queue.Empty:
            return []

    def _run_jobs(self, jobs: list[Job], batches: int) -> None:
        was_inline = self._is_inline
        try:
            self._set_inline(False)
            results = self._commit_or_split(jobs) if jobs else []
        except Exception as error:  # noqa: BLE001  a thread that dies would leave futures hanging
            results = [(future, None, error) for _, _, future in jobs]
        if batches:
            self._resolve_futures(results, batches)
        # After the results: a checkpoint that is busy or fails is tried again later.
        with _upkeep("be rid of its write-ahead log"):
            if was_inline:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._maintain()

    def _commit_or_split(self, jobs: list[Job]) -> list[_JobResult]:
        try:
            return self._commit(jobs)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to these futures
            self._roll_back()
            if len(jobs) == 1 or is_busy(error):
                return [(future, None, error) for _, _, future in jobs]
        # One job has failed: run each alone, so that the others succeed.
        return [result for job in jobs for result in self._commit_or_split([job])]

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            # After some errors, a full disk for one, SQLite has done it itself.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _commit(self, jobs: list[Job]) -> list[_JobResult]:
        results: list[_JobResult] = []
        transaction = WriteTransaction(self._connection, self._owner_id, self._open_turns)
        changes = self._connection.total_changes
        self._connection.execute("BEGIN IMMEDIATE")
        for action, arguments, future in jobs:
            progress = transaction.progress
            try:
                results.append((future, action(transaction, *arguments), None))
            except AntiphonError as error:
                if transaction.progress != progress:
                    # Half a job must not be committed: roll back, and run each job alone.
                    raise
                results.append((future, None, error))
        transaction.finish()
        has_erased = transaction.has_erased or transaction.erases_more
        commit = self._erasures.committing(transaction.erased)
        with commit if has_erased else _NOTHING:
            self._connection.execute("COMMIT")
        self._written = self._written or self._connection.total_changes != changes
        for response_id, turn in transaction.changed_turns.items():
            if turn is None:
                self._open_turns.pop(response_id, None)
            else:
                self._open_turns[response_id] = turn
        if transaction.has_erased:
            self._checkpoint_due = 0.0
        elif has_erased and not self._needs_checkpoint:
            self._checkpoint_due = time.monotonic() + _MAX_CHECKPOINT_DELAY
        self._needs_checkpoint = self._needs_checkpoint or has_erased
        return results

    def _maintain(self) -> None:
        if self._needs_checkpoint:
            # Erased words have to leave the write-ahead log, too. A slow reader must not
            # delay every turn, so it is not tried each time.
            if time.monotonic() < max(self._checkpoint_due, self._retry_at):
                return
            self._needs_checkpoint = not self._checkpoint()
            self._retry_at = (
                time.monotonic() + _CHECKPOINT_RETRY_SECONDS if self._needs_checkpoint else 0.0
            )
            if not self._needs_checkpoint and self._on_checkpointed is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._on_checkpointed)
        elif os.stat(self._wal_path).st_size > MAX_WAL_BYTES:
            # SQLite's own checkpoints never truncate the log while readers overlap.
            self._checkpoint()

    def _scrub_before_close(self) -> None:
        """Scrub what was erased here before the file is closed, unless readers block it."""
        self._checkpoint()
        for _ in range(MAX_SCRUB_PASSES if self._erasures.is_pending else 0):
            scope = self._erasures.scope()
            if not (dirty := find_dirty_pages(self._connection, self._page_file, scope.rows)):
                self._erasures.set_scrubbed(scope)
                break
            while dirty:
                self._connection.execute("BEGIN IMMEDIATE")
                dirty = scrub_pages(WriteTransaction(self._connection, self._owner_id, {}), dirty)
                self._connection.execute("COMMIT")
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """Checkpoint and truncate the write-ahead log; False: readers block it."""
        execute = self._connection.execute
        # Turns wait to be written: rather try again than wait for a slow reader.
        execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT_MS}")
        try:
            busy: int = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if not busy:
            self._erasures.set_checkpointed()
        return not busy

    def _resolve_futures(self, results: list[_JobResult], batches: int) -> None:
        # On a closed loop nothing waits for a result.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, results, self._written, batches)
        self._written = False

    def _resolve(self, results: list[_JobResult], written: bool, batches: int) -> None:
        self._waiting_batches -= batches
        if written:
            self._health.note_written()
            if self._on_written is not None:
                self._on_written()
        for future, result, error in results:
            failure = error
            if error is not None and not isinstance(error, AntiphonError):
                failure = self._health.refuse_write(store_error(error))
            if future.done():
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)


@contextlib.contextmanager
def _upkeep(what: str) -> Iterator[None]:
    """Suppress and log errors: one that ended the thread would leave its callers waiting."""
    try:
        yield
    except (sqlite3.Error, OSError):
        # A full disk or another process's lock: it is tried again later.
        return
    except Exception:
        log.exception("the database could not %s", what)
