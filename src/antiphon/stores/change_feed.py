"""Change feed: hands the changes of a log to those who follow them, each at its own pace.

The log is the store's own table, so that a reader who is away for a while, or slow, continues from
there. Who is up to date gets what was read once for all. A reader has a buffer of bounded size;
one that does not keep up loses it, and reads the log itself again.

A cursor is a row's number, how many of its changes were seen, and the row's mark, which is random.
Where an older copy of a store was put back, other rows get the same numbers: a cursor from what was
there before has another mark than they, and is answered with a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from antiphon.errors import StoreError
from antiphon.turn.feed_protocols import Change

#: Seconds between two looks for the commits of other processes.
POLL_INTERVAL: Final = 0.2
#: Changes that wait for one reader, and rows of the log in one read.
MAX_BUFFERED: Final = 1000
READ_ROWS: Final = 200

_CURSOR: Final = re.compile(r"(\d{1,18})\.(\d{1,9})\.([0-9a-f]{8})\Z")
#: So many that it is all changes of a row.
_ALL: Final = 999_999_999
#: A change with its tenant, None: it is nobody's any more. The cursor is not known yet.
TenantChange: TypeAlias = tuple[str | None, Change]


class ChangeRow(msgspec.Struct, frozen=True):
    """The changes of one commit. ``mark`` is a random number of 32 bits."""

    id: int
    mark: int
    changes: Sequence[TenantChange]


class LogBounds(msgspec.Struct, frozen=True):
    """The numbers of the first and the last row, 0: there is none; and the mark of the last."""

    first: int = 0
    last: int = 0
    mark: int = 0


class _Position(msgspec.Struct, frozen=True):
    """A row of the log, how many changes of it were seen, and its mark; row 0: before all rows."""

    row: int = 0
    seen: int = 0
    mark: int = 0

    @property
    def cursor(self) -> str:
        return f"{self.row}.{self.seen}.{self.mark:08x}"


class ChangeLog(Protocol):
    """Where the changes are, by growing numbers of rows."""

    async def bounds(self) -> LogBounds: ...

    async def read(self, after: int, limit: int) -> Sequence[ChangeRow]:
        """The rows behind one."""
        ...

    def has_changed(self) -> bool:
        """Whether anything was committed since the last call, in whatever process."""
        ...


class LogReader:
    """A ``ChangeReader`` of one tenant. Made by ``LogChangeFeed``."""

    def __init__(self, feed: LogChangeFeed, log: ChangeLog, tenant: str) -> None:
        self._feed = feed
        self._log = log
        self._tenant = tenant
        self._position = _Position()
        self._buffer: deque[Change] = deque()
        #: Whether rows are offered to it; else it reads the log.
        self._is_live = False
        self._needs_reset = False
        self._wake = asyncio.Event()
        self._is_closed = False

    @property
    def cursor(self) -> str:
        return self._position.cursor

    def begin(self, position: _Position, *, needs_reset: bool) -> None:
        """Set where it begins."""
        self._position, self._needs_reset = position, needs_reset

    def offer(self, row: ChangeRow) -> None:
        """A row that was just read, for a reader that is up to date."""
        if not self._is_live or row.id <= self._position.row:
            return
        changes = self._own_changes(row, 0)
        if len(self._buffer) + len(changes) > MAX_BUFFERED:
            # It reads the log again, from the last change that it was given on.
            self._buffer.clear()
            self._is_live = False
        elif changes:
            self._buffer.extend(changes)
        elif not self._buffer:
            self._position = _Position(row.id, len(row.changes), row.mark)
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Sequence[Change]]:
        while not self._is_closed:
            if self._needs_reset:
                self._needs_reset = False
                yield [Change(self.cursor, "feed.reset", 0.0)]
            elif self._buffer:
                batch = list(self._buffer)
                self._buffer.clear()
                self._move(batch)
                yield batch
            elif self._is_live:
                self._wake.clear()
                await self._wake.wait()
            elif batch := await self._read():
                yield batch

    def close(self) -> None:
        self._is_closed = True
        self._feed.remove(self)
        self._wake.set()

    async def _read(self) -> list[Change]:
        """Changes from the log; none of this tenant's may be among them."""
        at = self._position
        # The row at the position may hold more.
        rows = await self._log.read(at.row - 1, READ_ROWS)
        if not await self._is_continued_by(rows):
            bounds = await self._log.bounds()
            self._position, self._needs_reset = end_of(bounds), True
            return []
        batch = [
            change
            for row in rows
            for change in self._own_changes(row, at.seen if row.id == at.row else 0)
        ]
        if rows:
            self._position = _Position(rows[-1].id, len(rows[-1].changes), rows[-1].mark)
        if len(rows) < READ_ROWS and self._position.row >= self._feed.position:
            # Nothing is awaited between this and the next row that is offered.
            self._is_live = True
        return batch

    async def _is_continued_by(self, rows: Sequence[ChangeRow]) -> bool:
        """Whether nothing is missing between the position and these rows, the first behind it."""
        at = self._position
        if at.row == 0:
            return (await self._log.bounds()).first <= 1
        return bool(rows) and (rows[0].id, rows[0].mark) == (at.row, at.mark)

    def _own_changes(self, row: ChangeRow, seen: int) -> list[Change]:
        return [
            msgspec.structs.replace(change, cursor=_Position(row.id, number, row.mark).cursor)
            for number, (tenant, change) in enumerate(row.changes, 1)
            if tenant == self._tenant and number > seen
        ]

    def _move(self, batch: Sequence[Change]) -> None:
        self._position = _parse_cursor(batch[-1].cursor) or self._position


class LogChangeFeed:
    """A ``ChangeFeed`` over a log. Used on one event loop; idle without subscribers."""

    def __init__(self, log: ChangeLog) -> None:
        self._log = log
        self._readers: set[LogReader] = set()
        #: The last row that was offered.
        self.position = 0
        self._poll_task: asyncio.Task[None] | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._is_stale = False
        self._is_closed = False

    async def cursor(self) -> str:
        return end_of(await self._log.bounds()).cursor

    async def subscribe(self, tenant: str, after: str | None = None) -> LogReader:
        bounds = await self._log.bounds()
        reader = LogReader(self, self._log, tenant)
        position = end_of(bounds) if after is None else _parse_cursor(after)
        if position is None:
            reader.begin(end_of(bounds), needs_reset=True)
        else:
            reader.begin(position, needs_reset=False)
        if self._is_closed:
            reader.close()
            return reader
        if not self._readers:
            self.position = bounds.last
        self._readers.add(reader)
        if self._poll_task is None:
            self._poll_task = asyncio.create_task(self._poll())
        return reader

    def close_readers(self) -> None:
        self._is_closed = True
        for reader in list(self._readers):
            reader.close()

    def remove(self, reader: LogReader) -> None:
        """Forget a reader; the last one ends the looking for changes."""
        self._readers.discard(reader)
        if not self._readers and self._poll_task is not None:
            self._poll_task.cancel()
            self._poll_task = None

    def notify(self) -> None:
        """Something was committed."""
        if not self._readers:
            return
        self._is_stale = True
        if self._pump_task is None or self._pump_task.done():
            self._pump_task = asyncio.create_task(self._pump())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if self._log.has_changed():
                self.notify()

    async def _pump(self) -> None:
        """Read what is new once, for all readers."""
        # A store that fails is read again with its next commit.
        with contextlib.suppress(StoreError):
            while self._is_stale and self._readers:
                self._is_stale = False
                while rows := await self._log.read(self.position, READ_ROWS):
                    for row in rows:
                        self.position = row.id
                        for reader in list(self._readers):
                            reader.offer(row)


def end_of(bounds: LogBounds) -> _Position:
    """The position behind all rows."""
    return _Position(bounds.last, _ALL, bounds.mark)


def _parse_cursor(cursor: str) -> _Position | None:
    match = _CURSOR.match(cursor)
    return _Position(int(match[1]), int(match[2]), int(match[3], 16)) if match else None
