"""The one thread that writes to a SQLite database, many jobs a commit.

Jobs wait in a queue while a commit is under way, and all that wait go into the next
one: with many turns at once the cost of making data safe is shared among them.
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
from typing import Any, Final, TypeAlias

from antiphon.core.turns import End, TurnError
from antiphon.errors import AntiphonError, StoreError, TurnInterruptedError
from antiphon.stores.health import Health
from antiphon.stores.sqlite.connection import BUSY_TIMEOUT_MS, DatabaseConnections
from antiphon.stores.sqlite.errors import is_busy
from antiphon.stores.sqlite.page_scrubbing import MAX_SCRUB_PASSES, find_dirty_pages, scrub_pages
from antiphon.stores.sqlite.write_transaction import OpenTurn, WriteTransaction
from antiphon.thread_priority import background_priority

log = logging.getLogger("antiphon.store")

#: What to do, with which arguments, and whom to tell.
Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]
_JobResult: TypeAlias = tuple["asyncio.Future[Any]", Any, BaseException | None]

_NOTHING: Final = contextlib.nullcontext()
_CHECKPOINT_TIMEOUT_MS: Final = 50
#: How soon erased words that readers keep in the write-ahead log are looked after again.
_CHECKPOINT_RETRY_SECONDS: Final = 0.1
#: From this size on, the write-ahead log is emptied by force: readers have to step aside.
MAX_WAL_BYTES: Final = 32 << 20


def interrupted_end() -> End:
    """The end of a turn whose process is no more."""
    message = (
        "The process that ran this turn ended before the turn did. "
        "What was said and what was finished are kept."
    )
    return End("failed", time.time(), error=TurnError(TurnInterruptedError.default_code, message))


class Writer:
    """Runs jobs on the database in the order they come, in a thread of its own.

    Everything but the thread's own work is called on the event loop it was made on, and so
    is ``on_checkpointed``, when what was erased has left the write-ahead log.
    """

    def __init__(
        self,
        connections: DatabaseConnections,
        on_checkpointed: Callable[[], None] | None = None,
        health: Health | None = None,
    ) -> None:
        self._connection = connections.write_connection
        self._page_file = connections.page_file
        self._erasures = connections.erasures
        self._wal_path = connections.wal_path
        self._health = health or Health()
        self._owner_id = connections.process_locks.owner_id
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        #: Jobs that wait for company, and what ends their wait, and when.
        self._pending_jobs: list[Job] = []
        self._flush_timer: asyncio.Handle | None = None
        self._flush_at = 0.0
        self._open_turns: dict[str, OpenTurn] = {}
        self._closed = False
        #: Erased words are in the write-ahead log still.
        self._needs_checkpoint = False
        self._on_checkpointed = on_checkpointed
        #: When that is tried again.
        self._scrub_at = 0.0
        #: Whether something was written since the loop was last told.
        self._written = False
        self._stop_future = self._loop.create_future()
        # A daemon, so that a program that forgets to close the store can still end: what
        # was confirmed is on disk, and what was not is for the next to open it to end.
        self._thread = threading.Thread(target=self._run, name="antiphon-writer", daemon=True)
        with background_priority():
            self._thread.start()

    def submit(
        self, action: Callable[..., Any], *arguments: Any, max_delay: float = 0.0
    ) -> asyncio.Future[Any]:
        """Queue ``action(batch, *arguments)``; the future has its result once it is on disk.

        All that the loop asks for in one round goes to the thread together. A job may
        wait ``within`` so many seconds for others to share its commit.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreError("The store is closed."))
            return future
        self._pending_jobs.append((action, arguments, future))
        due = self._loop.time() + max_delay
        if self._flush_timer is None or due < self._flush_at:
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            call = self._loop.call_later
            self._flush_timer = (
                call(max_delay, self._flush_queue)
                if max_delay
                else self._loop.call_soon(self._flush_queue)
            )
            self._flush_at = due
        return future

    def stop(self) -> None:
        """Take no more jobs: do what is queued, then end the turns still running here."""
        if not self._closed:
            self._closed = True
            self._flush_queue()
            self._queue.put(None)

    def _flush_queue(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._pending_jobs:
            self._queue.put(self._pending_jobs)
            self._pending_jobs = []

    async def wait_stopped(self) -> None:
        """Returns when ``stop`` is done and the connection closed."""
        await self._stop_future
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            lots = self._next_jobs()
            lots += [self._queue.get() for _ in range(self._queue.qsize())]
            last = bool(lots) and lots[-1] is None
            self._run_jobs([job for jobs in lots if jobs for job in jobs])
        # Should this fail, whoever opens the database next finds the turns of the dead.
        with _upkeep("end what still ran"):
            self._commit(
                [
                    (
                        WriteTransaction.fail_orphans,
                        (self._owner_id, interrupted_end()),
                        self._stop_future,
                    )
                ]
            )
        with _upkeep("be cleaned after an erasure"):
            self._scrub_before_close()
        with _upkeep("be closed"):
            self._connection.close()
        self._resolve_futures([(self._stop_future, None, None)])

    def _next_jobs(self) -> list[list[Job] | None]:
        """What is to be done next; nothing, where it is time for upkeep again."""
        try:
            return [
                self._queue.get(
                    timeout=_CHECKPOINT_RETRY_SECONDS if self._needs_checkpoint else None
                )
            ]
        except queue.Empty:
            return []

    def _run_jobs(self, jobs: list[Job]) -> None:
        try:
            outcomes = self._commit_or_split(jobs) if jobs else []
        except Exception as error:  # noqa: BLE001  a thread that dies would leave futures hanging
            outcomes = [(future, None, error) for _, _, future in jobs]
        if jobs:
            self._resolve_futures(outcomes)
        # Upkeep comes after the answer. Busy or failing, it is tried again later.
        with _upkeep("be rid of its write-ahead log"):
            self._maintain()

    def _commit_or_split(self, jobs: list[Job]) -> list[_JobResult]:
        try:
            return self._commit(jobs)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to these futures
            self._roll_back()
            if len(jobs) == 1 or is_busy(error):
                return [(future, None, error) for _, _, future in jobs]
        # One of them is to blame; the others must not pay for it.
        return [outcome for job in jobs for outcome in self._commit_or_split([job])]

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            # After some errors, a full disk for one, SQLite has done it itself.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _commit(self, jobs: list[Job]) -> list[_JobResult]:
        outcomes: list[_JobResult] = []
        batch = WriteTransaction(self._connection, self._owner_id, self._open_turns)
        changes = self._connection.total_changes
        self._connection.execute("BEGIN IMMEDIATE")
        for action, arguments, future in jobs:
            progress = batch.progress
            try:
                outcomes.append((future, action(batch, *arguments), None))
            except AntiphonError as error:
                if batch.progress != progress:
                    # Half of a job must not be kept, nor the others be lost with it.
                    raise
                outcomes.append((future, None, error))
        batch.flush()
        with self._erasures.committing() if batch.has_erased else _NOTHING:
            self._connection.execute("COMMIT")
        self._written = self._written or self._connection.total_changes != changes
        for response_id, turn in batch.changed_turns.items():
            if turn is None:
                self._open_turns.pop(response_id, None)
            else:
                self._open_turns[response_id] = turn
        if batch.has_erased:
            self._needs_checkpoint = True
        return outcomes

    def _maintain(self) -> None:
        if self._needs_checkpoint:
            # Erased words leave the write-ahead log as well. Not every turn is to wait for
            # a reader that is in the way for long.
            if time.monotonic() < self._scrub_at:
                return
            self._needs_checkpoint = not self._checkpoint()
            self._scrub_at = (
                time.monotonic() + _CHECKPOINT_RETRY_SECONDS if self._needs_checkpoint else 0.0
            )
            if not self._needs_checkpoint and self._on_checkpointed is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._on_checkpointed)
        elif os.stat(self._wal_path).st_size > MAX_WAL_BYTES:
            # SQLite's own checkpoints never start the log over while readers overlap.
            self._checkpoint()

    def _scrub_before_close(self) -> None:
        """Nothing of what was erased here stays behind, if no reader is in the way for long."""
        self._checkpoint()
        for _ in range(MAX_SCRUB_PASSES if self._erasures.due else 0):
            count = self._erasures.count
            if not (gaps := find_dirty_pages(self._connection, self._page_file)):
                self._erasures.set_cleaned(count)
                break
            while gaps:
                self._connection.execute("BEGIN IMMEDIATE")
                gaps = scrub_pages(WriteTransaction(self._connection, self._owner_id, {}), gaps)
                self._connection.execute("COMMIT")
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """Empty the write-ahead log into the database; False: readers are in the way."""
        execute = self._connection.execute
        # Turns are waiting to be written: better to try again than to wait for a slow reader.
        execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT_MS}")
        try:
            busy: int = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        return not busy

    def _resolve_futures(self, outcomes: list[_JobResult]) -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, outcomes, self._written)
        self._written = False

    def _resolve(self, outcomes: list[_JobResult], written: bool) -> None:
        if written:
            self._health.note_written()
        for future, result, error in outcomes:
            told = error
            if error is not None and not isinstance(error, AntiphonError):
                told = self._health.refuse_write(error)
            if future.done():
                continue
            if told is None:
                future.set_result(result)
            else:
                future.set_exception(told)


@contextlib.contextmanager
def _upkeep(what: str) -> Iterator[None]:
    """Nothing that goes wrong within may end the thread: whoever waits for it would for ever."""
    try:
        yield
    except (sqlite3.Error, OSError):
        # A full disk or another process's lock: the next one finds the work still to be done.
        return
    except Exception:
        log.exception("the database could not %s", what)
