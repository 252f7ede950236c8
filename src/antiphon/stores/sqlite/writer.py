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
from antiphon.errors import AntiphonError, Interrupted, StoreError
from antiphon.stores.health import Health
from antiphon.stores.sqlite.connection import BUSY_MS, Database
from antiphon.stores.sqlite.errors import is_busy
from antiphon.stores.sqlite.page_scrubbing import CLEANINGS, fill_gaps, find_gaps
from antiphon.stores.sqlite.write_transaction import Batch, Open
from antiphon.thread_priority import in_background

log = logging.getLogger("antiphon.store")

#: What to do, with which arguments, and whom to tell.
Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]
_Outcome: TypeAlias = tuple["asyncio.Future[Any]", Any, BaseException | None]

_NOTHING: Final = contextlib.nullcontext()
_PATIENCE_WITH_READERS_MS: Final = 50
#: How soon erased words that readers keep in the write-ahead log are looked after again.
_RETRY_SECONDS: Final = 0.1
#: From this size on, the write-ahead log is emptied by force: readers have to step aside.
WAL_BYTES: Final = 32 << 20


def interrupted() -> End:
    """The end of a turn whose process is no more."""
    message = (
        "The process that ran this turn ended before the turn did. "
        "What was said and what was finished are kept."
    )
    return End("failed", time.time(), error=TurnError(Interrupted.default_code, message))


class Writer:
    """Runs jobs on the database in the order they come, in a thread of its own.

    Everything but the thread's own work is called on the event loop it was made on, and so
    is ``on_scrubbed``, when what was erased has left the write-ahead log.
    """

    def __init__(
        self,
        database: Database,
        on_scrubbed: Callable[[], None] | None = None,
        health: Health | None = None,
    ) -> None:
        self._connection = database.writing
        self._pages = database.pages
        self._erasures = database.erasures
        self._wal = database.wal
        self._health = health or Health()
        self._owner = database.owners.me
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        #: Jobs that wait for company, and what ends their wait, and when.
        self._idle: list[Job] = []
        self._leaving: asyncio.Handle | None = None
        self._due = 0.0
        self._open_turns: dict[str, Open] = {}
        self._closed = False
        #: Erased words are in the write-ahead log still.
        self._scrub = False
        self._on_scrubbed = on_scrubbed
        #: When that is tried again.
        self._scrub_at = 0.0
        #: Whether something was written since the loop was last told.
        self._written = False
        self._stopped = self._loop.create_future()
        # A daemon, so that a program that forgets to close the store can still end: what
        # was confirmed is on disk, and what was not is for the next to open it to end.
        self._thread = threading.Thread(target=self._run, name="antiphon-writer", daemon=True)
        with in_background():
            self._thread.start()

    def put(
        self, action: Callable[..., Any], *arguments: Any, within: float = 0.0
    ) -> asyncio.Future[Any]:
        """Queue ``action(batch, *arguments)``; the future has its result once it is on disk.

        All that the loop asks for in one round goes to the thread together. A job may
        wait ``within`` so many seconds for others to share its commit.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreError("The store is closed."))
            return future
        self._idle.append((action, arguments, future))
        due = self._loop.time() + within
        if self._leaving is None or due < self._due:
            if self._leaving is not None:
                self._leaving.cancel()
            call = self._loop.call_later
            self._leaving = call(within, self._go) if within else self._loop.call_soon(self._go)
            self._due = due
        return future

    def stop(self) -> None:
        """Take no more jobs: do what is queued, then end the turns still running here."""
        if not self._closed:
            self._closed = True
            self._go()
            self._queue.put(None)

    def _go(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._idle:
            self._queue.put(self._idle)
            self._idle = []

    async def stopped(self) -> None:
        """Returns when ``stop`` is done and the connection closed."""
        await self._stopped
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            lots = self._next()
            lots += [self._queue.get() for _ in range(self._queue.qsize())]
            last = bool(lots) and lots[-1] is None
            self._work([job for jobs in lots if jobs for job in jobs])
        # Should this fail, whoever opens the database next finds the turns of the dead.
        with _upkeep("end what still ran"):
            self._commit([(Batch.reap, (self._owner, interrupted()), self._stopped)])
        with _upkeep("be cleaned after an erasure"):
            self._leave_clean()
        with _upkeep("be closed"):
            self._connection.close()
        self._tell([(self._stopped, None, None)])

    def _next(self) -> list[list[Job] | None]:
        """What is to be done next; nothing, where it is time for upkeep again."""
        try:
            return [self._queue.get(timeout=_RETRY_SECONDS if self._scrub else None)]
        except queue.Empty:
            return []

    def _work(self, jobs: list[Job]) -> None:
        try:
            outcomes = self._outcomes(jobs) if jobs else []
        except Exception as error:  # noqa: BLE001  a thread that dies would leave futures hanging
            outcomes = [(future, None, error) for _, _, future in jobs]
        if jobs:
            self._tell(outcomes)
        # Upkeep comes after the answer. Busy or failing, it is tried again later.
        with _upkeep("be rid of its write-ahead log"):
            self._tidy()

    def _outcomes(self, jobs: list[Job]) -> list[_Outcome]:
        try:
            return self._commit(jobs)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to these futures
            self._roll_back()
            if len(jobs) == 1 or is_busy(error):
                return [(future, None, error) for _, _, future in jobs]
        # One of them is to blame; the others must not pay for it.
        return [outcome for job in jobs for outcome in self._outcomes([job])]

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            # After some errors, a full disk for one, SQLite has done it itself.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _commit(self, jobs: list[Job]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        batch = Batch(self._connection, self._owner, self._open_turns)
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
        with self._erasures.committing() if batch.erased else _NOTHING:
            self._connection.execute("COMMIT")
        self._written = self._written or self._connection.total_changes != changes
        for response_id, turn in batch.changed.items():
            if turn is None:
                self._open_turns.pop(response_id, None)
            else:
                self._open_turns[response_id] = turn
        if batch.erased:
            self._scrub = True
        return outcomes

    def _tidy(self) -> None:
        if self._scrub:
            # Erased words leave the write-ahead log as well. Not every turn is to wait for
            # a reader that is in the way for long.
            if time.monotonic() < self._scrub_at:
                return
            self._scrub = not self._checkpoint()
            self._scrub_at = time.monotonic() + _RETRY_SECONDS if self._scrub else 0.0
            if not self._scrub and self._on_scrubbed is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._on_scrubbed)
        elif os.stat(self._wal).st_size > WAL_BYTES:
            # SQLite's own checkpoints never start the log over while readers overlap.
            self._checkpoint()

    def _leave_clean(self) -> None:
        """Nothing of what was erased here stays behind, if no reader is in the way for long."""
        self._checkpoint()
        for _ in range(CLEANINGS if self._erasures.due else 0):
            count = self._erasures.count
            if not (gaps := find_gaps(self._connection, self._pages)):
                self._erasures.set_cleaned(count)
                break
            while gaps:
                self._connection.execute("BEGIN IMMEDIATE")
                gaps = fill_gaps(Batch(self._connection, self._owner, {}), gaps)
                self._connection.execute("COMMIT")
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """Empty the write-ahead log into the database; False: readers are in the way."""
        execute = self._connection.execute
        # Turns are waiting to be written: better to try again than to wait for a slow reader.
        execute(f"PRAGMA busy_timeout = {_PATIENCE_WITH_READERS_MS}")
        try:
            busy: int = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        return not busy

    def _tell(self, outcomes: list[_Outcome]) -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._resolve, outcomes, self._written)
        self._written = False

    def _resolve(self, outcomes: list[_Outcome], written: bool) -> None:
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
