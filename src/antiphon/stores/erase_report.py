"""Erase report: whether erased words are still in the files of a store."""

from __future__ import annotations

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
