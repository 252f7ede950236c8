"""Database clock: the time by the clock of the database, which all processes of a store share.

What expires goes by it, and not by the clock of a machine, which may be wrong: a process a month
ahead of all others would erase what they store.
"""

from __future__ import annotations

import logging
import time
from typing import Final

log = logging.getLogger("antiphon.store")

#: How wrong a machine's clock may be, in seconds. A turn is planned in less.
MAX_SKEW: Final = 60.0


class DatabaseClock:
    """The time in seconds since 1970 when it was last read, and what has passed since.

    Until it is read for the first time it is this machine's.
    """

    def __init__(self) -> None:
        self._time = time.time()
        self._read_at = time.monotonic()
        self._is_wrong_here = False

    def __call__(self) -> float:
        return self._time + (time.monotonic() - self._read_at)

    def set(self, seconds: float) -> None:
        """Note what the database's clock says now."""
        self._time, self._read_at = seconds, time.monotonic()
        skew = time.time() - seconds
        is_wrong = abs(skew) > MAX_SKEW
        if is_wrong and not self._is_wrong_here:
            log.warning(
                "the clock of this machine is %+d seconds off the database's: times of new turns"
                " are wrong, their expiry goes by the database's",
                skew,
            )
        self._is_wrong_here = is_wrong

    def stored_at(self, created_at: float) -> float | None:
        """What the age of a turn counts from whose own time is that of a clock that is wrong.

        None: it may count from its own time.
        """
        now = self()
        return now if abs(created_at - now) > MAX_SKEW else None
