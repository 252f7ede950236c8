"""Writer: group commit. All jobs that wait share one transaction, on a connection of its own.

While a commit is under way, and for a moment behind one that many jobs shared, the next jobs
gather, so that with many turns at once the cost of a commit, and of each statement, is divided
among them. Nothing is confirmed before PostgreSQL has confirmed the commit.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from antiphon.errors import AntiphonError, StoreError
from antiphon.stores.health import Health
from antiphon.stores.interrupted_turns import interrupted_end
from antiphon.stores.postgres.connection import Connection, close_connection, connect
from antiphon.stores.postgres.errors import CONNECTION_LOST, RETRYABLE, store_error
from antiphon.stores.postgres.leases import NODE_SQL
from antiphon.stores.postgres.rows import ThreadIds
from antiphon.stores.postgres.single_statement import (
    NotAsReadError,
    SingleStatementTransaction,
    can_be_one_statement,
)
from antiphon.stores.postgres.sql_files import TURN_SQL
from antiphon.stores.postgres.write_transaction import OpenTurn, WriteTransaction

#: An async function of a ``WriteTransaction``, its arguments, and the future of its result.
Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]
_JobResult: TypeAlias = tuple["asyncio.Future[Any]", Any, BaseException | None]

#: How often a transaction is tried that others are in the way of, or whose connection was lost
#: before its commit.
_MAX_ATTEMPTS: Final = 8
#: How many jobs share a transaction.
_MAX_BATCH: Final = 1000
#: How many turns that have ended are remembered: late writes to them are dropped.
_MAX_ENDED: Final = 10_000
#: How long a job is held back for another one, in seconds, and how much less may do.
_HOLD_SECONDS: Final = 0.005
_HOLD_STEP: Final = 0.001
#: Behind a transaction of so many jobs the next one waits so many seconds for more of them.
_MANY_JOBS: Final = 4
_GATHER_SECONDS: Final = 0.002
#: Seconds without a commit after which the connection may have been lost silently. What a
#: transaction finds lost at its beginning is done again; of a lost commit nobody knows.
_FRESH_SECONDS: Final = 5.0


class CommitUnknownError(StoreError):
    """The connection was lost during a commit: whether it took place is not known."""


class Writer:
    """Runs jobs on the database in the order they come. Used on the event loop it was made on.

    ``node`` gives the id that this process has now. ``on_written`` is called after each commit.
    """

    def __init__(
        self,
        uri: str,
        node: Callable[[], int],
        health: Health,
        on_written: Callable[[bool], None],
    ) -> None:
        self._uri = uri
        self._node = node
        self._health = health
        self._on_written = on_written
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._jobs: list[Job] = []
        self._has_jobs = asyncio.Event()
        #: Jobs that wait for another by name, the first the one that is due first; with the time.
        self._held_jobs: dict[str, tuple[Job, float]] = {}
        self._hold_timer: asyncio.TimerHandle | None = None
        self._used_at = self._gather_until = -math.inf
        #: False: the server refuses statements that write a table twice.
        self._takes_single_statements = True
        self._closed = False
        self._thread_ids = ThreadIds()
        self._turns: OrderedDict[str, OpenTurn] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._task = asyncio.create_task(self._run())

    def submit(
        self, job: Callable[..., Any], *arguments: Any, max_delay: float = 0.0
    ) -> asyncio.Future[Any]:
        """Queue ``job(transaction, *arguments)``; the future has its result once it is committed.

        A job may wait up to ``max_delay`` seconds for others to share its commit.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreError("The store is closed."))
            return future
        if job not in _TURN_JOBS:
            # It may look at any turn.
            self._release_all()
        self._jobs.append((job, arguments, future))
        if max_delay:
            self._loop.call_later(max_delay, self._has_jobs.set)
        else:
            self._has_jobs.set()
        return future

    def hold(self, name: str, job: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """As ``submit``, but the job waits for one that ``release`` of this name precedes, or for
        ``_HOLD_SECONDS``.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreError("The store is closed."))
            return future
        self._held_jobs[name] = ((job, arguments, future), self._loop.time() + _HOLD_SECONDS)
        if self._hold_timer is None:
            self._hold_timer = self._loop.call_later(_HOLD_SECONDS, self._release_due)
        return future

    def release(self, name: str) -> None:
        """Have a held job done right before the next that is submitted."""
        held = self._held_jobs.pop(name, None)
        if held is not None:
            self._jobs.append(held[0])

    def _release_due(self) -> None:
        """Do held jobs that have waited long enough: the first ones, as all wait as long."""
        self._hold_timer = None
        now = self._loop.time()
        for name, (_, due) in list(self._held_jobs.items()):
            if due > now + _HOLD_STEP:
                self._hold_timer = self._loop.call_later(due - now, self._release_due)
                break
            self.release(name)
        if self._jobs:
            self._has_jobs.set()

    def _release_all(self) -> None:
        for name in list(self._held_jobs):
            self.release(name)

    async def stop(self) -> None:
        """Take no more jobs, and do what is queued."""
        self._closed = True
        self._release_all()
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        self._has_jobs.set()
        await self._task
        if self._connection is not None:
            await close_connection(self._connection)

    async def _run(self) -> None:
        while True:
            await self._has_jobs.wait()
            self._has_jobs.clear()
            while self._jobs:
                if (wait := self._gather_until - self._loop.time()) > 0 and not self._closed:
                    await asyncio.sleep(wait)
                jobs, self._jobs = self._jobs[:_MAX_BATCH], self._jobs[_MAX_BATCH:]
                try:
                    results = await self._commit_or_split(jobs)
                except Exception as error:  # noqa: BLE001  a task that ends would leave futures hanging
                    results = [(future, None, error) for _, _, future in jobs]
                self._resolve(results)
                if len(jobs) >= _MANY_JOBS:
                    self._gather_until = self._loop.time() + _GATHER_SECONDS
            if self._closed:
                return

    async def _commit_or_split(self, jobs: list[Job]) -> list[_JobResult]:
        try:
            return await self._commit_with_retries(jobs)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to these futures
            if len(jobs) == 1 or isinstance(error, (*CONNECTION_LOST, CommitUnknownError)):
                return [(future, None, error) for _, _, future in jobs]
        # One job has failed: run each alone, so that the others succeed.
        return [result for job in jobs for result in await self._commit_or_split([job])]

    async def _commit_with_retries(self, jobs: list[Job]) -> list[_JobResult]:
        for attempt in range(_MAX_ATTEMPTS):
            try:
                return await self._commit(jobs)
            except RETRYABLE:
                if attempt == _MAX_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.005 * attempt)
            except CONNECTION_LOST:
                # Nothing was committed. One attempt more, on a new connection.
                if attempt:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _commit(self, jobs: list[Job]) -> list[_JobResult]:
        connection = await self._connected()
        is_fresh = self._loop.time() - self._used_at < _FRESH_SECONDS
        self._used_at = self._loop.time()
        if is_fresh and self._takes_single_statements and all(map(_is_simple, jobs)):
            try:
                return await self._commit_statement(connection, jobs)
            except (NotAsReadError, asyncpg.UniqueViolationError, *RETRYABLE):
                # Nothing was written: what is in the way is for a transaction to say.
                pass
            except asyncpg.FeatureNotSupportedError:
                self._takes_single_statements = False
        return await self._commit_transaction(connection, jobs)

    async def _commit_statement(self, connection: Connection, jobs: list[Job]) -> list[_JobResult]:
        """Commit jobs of turns in one round trip. Raises ``NotAsReadError``."""
        transaction = SingleStatementTransaction(
            connection, self._node(), self._turns, self._thread_ids
        )
        results = await _run_jobs(transaction, jobs)
        try:
            await transaction.finish()
        except CONNECTION_LOST as error:
            raise self._unknown(transaction, error) from error
        self._note_committed(transaction)
        return results

    async def _commit_transaction(
        self, connection: Connection, jobs: list[Job]
    ) -> list[_JobResult]:
        node = self._node()
        transaction = WriteTransaction(connection, node, self._turns, self._thread_ids)
        is_committing = False
        try:
            # While its row is held nobody takes this process for dead.
            status = await connection.execute(TURN_SQL["begin"].format(node=node))
            transaction.is_node_alive = status != "SELECT 0"
            results = await _run_jobs(transaction, jobs)
            await transaction.finish()
            is_committing = True
            await connection.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, CONNECTION_LOST) or connection.is_closed():
                connection.terminate()
                if is_committing:
                    raise self._unknown(transaction, error) from error
            else:
                await self._roll_back(connection)
            raise
        self._note_committed(transaction)
        return results

    def _unknown(self, transaction: WriteTransaction, error: BaseException) -> CommitUnknownError:
        """The error of a commit that got no answer."""
        transaction.connection.terminate()
        self._note_unknown(transaction)
        return CommitUnknownError(store_error(error).message)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._uri)
        return self._connection

    async def _roll_back(self, connection: Connection) -> None:
        try:
            await connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001  another connection is made
            connection.terminate()

    def _note_committed(self, transaction: WriteTransaction) -> None:
        for response_id, turn in transaction.changed_turns.items():
            self._turns[response_id] = turn
            if turn.is_ended:
                self._ended[response_id] = None
        while len(self._ended) > _MAX_ENDED:
            oldest, _ = self._ended.popitem(last=False)
            del self._turns[oldest]
        if transaction.progress:
            self._health.note_written()
            self._on_written(bool(transaction.erased))

    def _note_unknown(self, transaction: WriteTransaction) -> None:
        """What a transaction may have written: its parts are not written again."""
        for response_id, turn in transaction.changed_turns.items():
            known = self._turns.get(response_id)
            if known is not None:
                self._turns[response_id] = _after(known, turn)
            else:
                # Its caller was refused: should it be there, nobody runs it.
                self.submit(_abandon, turn)

    def _resolve(self, results: Sequence[_JobResult]) -> None:
        for future, result, error in results:
            failure = error
            if error is not None and not _is_answer(error):
                failure = self._health.refuse_write(store_error(error))
            if future.done():
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)


def _is_answer(error: BaseException) -> bool:
    """Whether it says something of what was asked for, and nothing of the database."""
    return isinstance(error, AntiphonError) and not isinstance(error, CommitUnknownError)


def _after(known: OpenTurn, maybe: OpenTurn) -> OpenTurn:
    """A turn, with the parts left out that may have been written."""
    return msgspec.structs.replace(known, next_part=maybe.next_part + 1, items=maybe.items)


async def _abandon(transaction: WriteTransaction, turn: OpenTurn) -> None:
    """End a turn if it is there, runs, and nobody knows; one that was claimed is given up."""
    await transaction.flush()
    if turn.is_claimed:
        columns = [[value] for value in turn.key]
        await transaction.execute(NODE_SQL["release"], *columns, transaction.node, 0, None)
        return
    rows = await transaction.connection.fetch(TURN_SQL["own_turn"], *turn.key, transaction.node)
    await transaction.end_unfinished(rows, interrupted_end())


async def _run_jobs(transaction: WriteTransaction, jobs: list[Job]) -> list[_JobResult]:
    """Run jobs in their order. What several of them depend on is looked at in one go."""
    results: list[_JobResult] = []
    position = 0
    while position < len(jobs):
        end = position
        while end < len(jobs) and jobs[end][0] in _TURN_JOBS:
            end += 1
        if end > position:
            await _look_at(transaction, jobs[position:end])
        for job in jobs[position : max(end, position + 1)]:
            results.append(await _run_job(transaction, job))
        position = max(end, position + 1)
    return results


async def _look_at(transaction: WriteTransaction, jobs: list[Job]) -> None:
    await transaction.look_at(
        [arguments[0] for action, arguments, _ in jobs if action is WriteTransaction.begin],
        [
            (arguments[0], arguments[2] is not None)
            for action, arguments, _ in jobs
            if action is WriteTransaction.write
        ],
        [
            (arguments[0], arguments[1])
            for action, arguments, _ in jobs
            if action is WriteTransaction.add_fingerprint
        ],
    )


def _is_simple(job: Job) -> bool:
    """Whether it can be a part of a transaction of a single statement."""
    action, arguments, _ = job
    if action is WriteTransaction.begin:
        return can_be_one_statement(arguments[0])
    return action in _TURN_JOBS


async def _run_job(transaction: WriteTransaction, job: Job) -> _JobResult:
    action, arguments, future = job
    progress = transaction.progress
    try:
        return future, await action(transaction, *arguments), None
    except AntiphonError as error:
        if transaction.progress != progress:
            # Half a job must not be committed: roll back, and run each job alone.
            raise
        return future, None, error


#: Jobs of single turns, which say themselves what they depend on.
_TURN_JOBS: Final = (
    WriteTransaction.begin,
    WriteTransaction.write,
    WriteTransaction.add_fingerprint,
)
