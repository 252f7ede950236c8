"""Change feed: hands the changes of a log to those who follow them, each at its own pace.

The log is the store's own table, so that a reader who is away for a while, or slow, continues from
there. Who is up to date gets what was read once for all. A reader has a buffer of bounded size;
one that does not keep up loses it, and reads the log itself again.
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

_CURSOR: Final = re.compile(r"(\d{1,18})\.(\d{1,9})\Z")
#: So many that it is all changes of a row.
_ALL: Final = 999_999_999
#: A row of the log and how many changes of it were seen.
_Position: TypeAlias = tuple[int, int]
#: A change with its tenant, None: it is nobody's any more. The cursor is not known yet.
TenantChange: TypeAlias = tuple[str | None, Change]


class ChangeRow(msgspec.Struct, frozen=True):
    """The changes of one commit."""

    id: int
    changes: Sequence[TenantChange]


class ChangeLog(Protocol):
    """Where the changes are, by growing numbers of rows."""

    async def bounds(self) -> tuple[int, int]:
        """The first and the last row; (0, 0): there is none."""
        ...

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
        self._position: _Position = (0, 0)
        self._buffer: deque[Change] = deque()
        #: Whether rows are offered to it; else it reads the log.
        self._is_live = False
        self._needs_reset = False
        self._wake = asyncio.Event()
        self._is_closed = False

    @property
    def cursor(self) -> str:
        return f"{self._position[0]}.{self._position[1]}"

    def begin(self, position: _Position, *, needs_reset: bool) -> None:
        """Set where it begins."""
        self._position, self._needs_reset = position, needs_reset

    def offer(self, row: ChangeRow) -> None:
        """A row that was just read, for a reader that is up to date."""
        if not self._is_live or row.id <= self._position[0]:
            return
        changes = self._own_changes(row, 0)
        if len(self._buffer) + len(changes) > MAX_BUFFERED:
            # It reads the log again, from the last change that it was given on.
            self._buffer.clear()
            self._is_live = False
        elif changes:
            self._buffer.extend(changes)
        elif not self._buffer:
            self._position = (row.id, len(row.changes))
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
        row_id, seen = self._position
        first, last = await self._log.bounds()
        if row_id + 1 < first or row_id > last:
            self._position, self._needs_reset = (last, _ALL), True
            return []
        # The row at the position may hold more.
        rows = await self._log.read(row_id - 1, READ_ROWS)
        batch = [
            change
            for row in rows
            for change in self._own_changes(row, seen if row.id == row_id else 0)
        ]
        if rows:
            self._position = (rows[-1].id, len(rows[-1].changes))
        if len(rows) < READ_ROWS and self._position[0] >= self._feed.position:
            # Nothing is awaited between this and the next row that is offered.
            self._is_live = True
        return batch

    def _own_changes(self, row: ChangeRow, seen: int) -> list[Change]:
        return [
            msgspec.structs.replace(change, cursor=f"{row.id}.{number}")
            for number, (tenant, change) in enumerate(row.changes, 1)
            if tenant == self._tenant and number > seen
        ]

    def _move(self, batch: Sequence[Change]) -> None:
        row_id, _, seen = batch[-1].cursor.partition(".")
        self._position = (int(row_id), int(seen))


class LogChangeFeed:
    """A ``ChangeFeed`` over a log. Used on one event loop; idle while nobody subscribes."""

    def __init__(self, log: ChangeLog) -> None:
        self._log = log
        self._readers: set[LogReader] = set()
        #: The last row that was offered.
        self.position = 0
        self._poll_task: asyncio.Task[None] | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._is_stale = False

    async def subscribe(self, tenant: str, after: str | None = None) -> LogReader:
        first, last = await self._log.bounds()
        reader = LogReader(self, self._log, tenant)
        position = (last, _ALL) if after is None else _parse_cursor(after)
        if position is None or position[0] + 1 < first or position[0] > last:
            reader.begin((last, _ALL), needs_reset=True)
        else:
            reader.begin(position, needs_reset=False)
        if not self._readers:
            self.position = last
        self._readers.add(reader)
        if self._poll_task is None:
            self._poll_task = asyncio.create_task(self._poll())
        return reader

    def close_readers(self) -> None:
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


def _parse_cursor(cursor: str) -> _Position | None:
    match = _CURSOR.match(cursor)
    return (int(match[1]), int(match[2])) if match else None
