"""Erase report: whether erased words are still in the files of a store."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec


class EraseReport(msgspec.Struct, frozen=True):
    """What is left of erasures in a store's own files; times are in seconds since 1970.

    ``pending`` is how many erasures' rows have not left the tables, the oldest of them of
    ``pending_since``. All until ``erased_at`` have, at ``left_at``; None: that is not recorded.
    """

    pending: int
    pending_since: float | None = None
    erased_at: float | None = None
    left_at: float | None = None

    def describe(self) -> str:
        """The report in words."""
        lines = ["Nothing that was erased is left in the store."]
        if self.pending:
            since = f", the oldest of {_time(self.pending_since)}" if self.pending_since else ""
            lines = [f"Of {self.pending} erasures the words are still in the store's files{since}."]
        if self.erased_at and self.left_at:
            lines.append(f"Those until {_time(self.erased_at)} left them at {_time(self.left_at)}.")
        return "\n".join(lines)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
