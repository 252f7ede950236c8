"""Health of a store: counts and logs failed reads and writes, and knows whether it can write
now.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from antiphon.errors import StoreError
from antiphon.stores.sqlite.errors import read_error, store_error

log = logging.getLogger("antiphon.store")

#: Seconds between two lines of the log about the same kind of failure.
_QUIET_SECONDS: Final = 60.0


class Health:
    """The state of one opened store. Used on its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        #: How many reads and writes have failed.
        self.refusals = 0
        #: Why the last write failed; None: it did not.
        self.write_error: StoreError | None = None
        #: When the last write succeeded or failed.
        self.written_at: float | None = None
        self._clock = clock
        self._refused_writes = 0
        #: When a failed read, or write, was last logged.
        self._logged: dict[str, float] = {}

    def note_written(self) -> None:
        """Record a commit that reached the disk."""
        self.written_at = self._clock()
        if self.write_error is not None:
            log.warning("the store writes again, after %d refusals", self._refused_writes)
            self.write_error = None
            self._refused_writes = 0
            self._logged.pop("write", None)

    def refuse_write(self, error: BaseException) -> StoreError:
        """Record a write that failed; the error for its caller."""
        mapped = self._refuse("write", error, store_error(error))
        self.write_error = mapped
        self.written_at = self._clock()
        self._refused_writes += 1
        return mapped

    def refuse_read(self, error: BaseException) -> StoreError:
        """Record a read that failed; the error for its caller."""
        return self._refuse("read", error, read_error(error))

    def is_fresh(self, seconds: float) -> bool:
        """Whether a write succeeded or failed in the last ``seconds``."""
        return self.written_at is not None and self._clock() - self.written_at < seconds

    def _refuse(self, operation: str, error: BaseException, mapped: StoreError) -> StoreError:
        self.refusals += 1
        now, logged = self._clock(), self._logged.get(operation)
        if logged is None or now - logged >= _QUIET_SECONDS:
            self._logged[operation] = now
            # SQLite's own errors need no traceback; for others it shows where they come from.
            cause = None if isinstance(error, sqlite3.Error | StoreError) else error
            log.error("the store refused a %s: %s", operation, mapped.message, exc_info=cause)
        return mapped
