"""In-memory change log: the newest changes of one process."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from itertools import dropwhile, islice

from antiphon.stores.change_entries import MAX_ROWS
from antiphon.stores.change_feed import ChangeRow, LogBounds
from antiphon.turn.feed_protocols import Change


class MemoryChangeLog:
    """A ``ChangeLog`` in this process's memory; ``on_added`` is called with each change."""

    def __init__(self) -> None:
        self._rows: deque[ChangeRow] = deque(maxlen=MAX_ROWS)
        self._last = 0
        self.on_added: Callable[[], None] | None = None

    def add(self, tenant: str, change: Change) -> None:
        self._last += 1
        self._rows.append(ChangeRow(self._last, secrets.randbits(32), [(tenant, change)]))
        if self.on_added is not None:
            self.on_added()

    async def bounds(self) -> LogBounds:
        rows = self._rows
        return LogBounds(rows[0].id, rows[-1].id, rows[-1].mark) if rows else LogBounds()

    async def read(self, after: int, limit: int) -> Sequence[ChangeRow]:
        rows = dropwhile(lambda row: row.id <= after, list(self._rows))
        return list(islice(rows, limit))

    def has_changed(self) -> bool:
        """False: there is no other process."""
        return False
