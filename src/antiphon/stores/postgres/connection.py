"""PostgreSQL connections: how one is made, a pool of those that read, and reads that share one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import asyncpg

from antiphon.errors import StoreError
from antiphon.stores.postgres.errors import CONNECTION_LOST

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    Connection: TypeAlias = asyncpg.Connection

K = TypeVar("K")
V = TypeVar("V")

#: Runs a function of a connection, and what it is run with to read each of several.
RunRead: TypeAlias = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]
_ReadEach: TypeAlias = Callable[[Connection, Sequence[K]], Awaitable[Sequence[V]]]

#: As many are read by one statement, whose rows all come before the first is looked at.
_MAX_GROUP: Final = 16
#: Seconds after which a statement is no longer waited for by those who have yet to ask.
_SLOW_SECONDS: Final = 0.1
#: Seconds that a connection, and a statement, may take.
_CONNECT_SECONDS: Final = 10.0
_STATEMENT_SECONDS: Final = 60.0
#: What each connection sets, as far as its server knows it. A process that stops within a
#: transaction must not hold its locks. Every query here finds its rows by an index, whatever the
#: planner knows of the tables, and planning one anew each time would take longer than doing it.
SESSION_SETTINGS: Final = (
    "SET idle_in_transaction_session_timeout = '5s'",
    "SET lock_timeout = '20s'",
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",
)


async def connect(uri: str) -> Connection:
    """A new connection. Raises what asyncpg does, or ``OSError``."""
    connection: Connection = await asyncpg.connect(
        uri,
        timeout=_CONNECT_SECONDS,
        command_timeout=_STATEMENT_SECONDS,
        server_settings={"application_name": "antiphon"},
    )
    try:
        try:
            await connection.execute(";".join(SESSION_SETTINGS))
        except asyncpg.PostgresError:
            await _set_each(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _set_each(connection: Connection) -> None:
    """What the server knows of it."""
    for statement in SESSION_SETTINGS:
        with contextlib.suppress(asyncpg.PostgresError):
            await connection.execute(statement)


class ReadPool:
    """Connections that read, at most ``size``; made as they are needed, and again when lost."""

    def __init__(self, uri: str, size: int) -> None:
        self._uri = uri
        self._idle: list[Connection] = []
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """One of them, for as long as the block runs."""
        await self._wait()
        connection: Connection | None = None
        try:
            connection = await self._take()
            yield connection
        except CONNECTION_LOST:
            if connection is not None:
                connection.terminate()
            # What took one of them has likely taken the others: the next attempt is on a new one.
            while self._idle:
                self._idle.pop().terminate()
            raise
        except asyncio.CancelledError:
            # Its transaction may have begun, which only the server knows: the next one to read
            # would read what was there then.
            if connection is not None:
                connection.terminate()
            raise
        finally:
            if connection is not None and not connection.is_closed():
                if self._closed:
                    connection.terminate()
                else:
                    self._idle.append(connection)
            self._release()

    def drop_idle(self) -> None:
        """Drop those that are idle: where one is lost the others are, too, and may not know yet."""
        for connection in self._idle:
            connection.terminate()
        self._idle = []

    async def close(self) -> None:
        """Close those that are idle; the others close when they are given back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await close_connection(connection)

    async def _wait(self) -> None:
        while self._free <= 0:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._wake_next()
                raise
        self._free -= 1

    def _release(self) -> None:
        self._free += 1
        self._wake_next()

    def _wake_next(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await connect(self._uri)


class GroupRead(Generic[K, V]):
    """Reads of one kind: those that are wanted while one is under way share the next statement.

    To send a statement and take its rows costs both sides more than to find a row. Behind one that
    takes long, as its connection may be lost, nobody has to wait. ``run`` gives a function its
    connection, and raises ``StoreError``.
    """

    def __init__(self, run: RunRead, read: _ReadEach[K, V]) -> None:
        self._run = run
        self._read = read
        self._loop = asyncio.get_running_loop()
        #: When the newest statement was begun; None: none is under way.
        self._begun_at: float | None = None
        #: None is given to those that are to be read alone.
        self._waiting: list[tuple[K, asyncio.Future[tuple[V] | None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, wanted: K) -> V:
        """What is read of one, by a statement that begins after the call. Raises ``StoreError``."""
        begun_at, now = self._begun_at, self._loop.time()
        if begun_at is not None and now - begun_at < _SLOW_SECONDS:
            future: asyncio.Future[tuple[V] | None] = self._loop.create_future()
            self._waiting.append((wanted, future))
            found = await future
            return await self._read_one(wanted) if found is None else found[0]
        self._begun_at = now
        try:
            return await self._read_one(wanted)
        finally:
            self._read_next()

    async def _read_one(self, wanted: K) -> V:
        (value,) = await self._read_all([wanted])
        return value

    async def _read_all(self, wanted: Sequence[K]) -> Sequence[V]:
        found: Sequence[V] = await self._run(lambda connection: self._read(connection, wanted))
        return found

    def _read_next(self) -> None:
        """Read what has come to be wanted meanwhile."""
        self._begun_at = None
        if self._waiting:
            self._begun_at = self._loop.time()
            waiting = self._waiting[:_MAX_GROUP]
            del self._waiting[:_MAX_GROUP]
            task = asyncio.create_task(self._read_waiting(waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read_waiting(
        self, waiting: Sequence[tuple[K, asyncio.Future[tuple[V] | None]]]
    ) -> None:
        found: Sequence[tuple[V] | None] = [None] * len(waiting)
        failure: str | None = None
        try:
            found = [(one,) for one in await self._read_all([wanted for wanted, _ in waiting])]
        except Exception as error:  # noqa: BLE001  it belongs to who wants one of them
            if isinstance(error, StoreError) and isinstance(error.__cause__, CONNECTION_LOST):
                failure = error.message
            # Else it may be the fault of one of them: each is read alone.
        finally:
            for (_, future), value in zip(waiting, found, strict=True):
                if future.done():
                    continue
                if failure is None:
                    future.set_result(value)
                else:
                    # One of its own, as callers write on it what they know.
                    future.set_exception(StoreError(failure))
            self._read_next()


async def close_connection(connection: Connection) -> None:
    """Close a connection; one that does not answer is dropped."""
    try:
        await connection.close(timeout=2.0)
    except (*CONNECTION_LOST, asyncpg.PostgresError):
        connection.terminate()
