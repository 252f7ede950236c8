"""Whether a store works: counts and logs what it refuses, and knows if it can write now."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from antiphon.errors import StoreError
from antiphon.stores.sqlite.errors import read_error, store_error

log = logging.getLogger("antiphon.store")

#: Seconds between two lines of the log about the same trouble.
_QUIET_SECONDS: Final = 60.0


class Health:
    """The state of one opened store. Used on its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        #: How many reads and writes were refused.
        self.refusals = 0
        #: Why the last write was refused; None: it was not.
        self.write_error: StoreError | None = None
        #: When the last write was kept or refused.
        self.written_at: float | None = None
        self._clock = clock
        self._refused_writes = 0
        #: When the log last told of a refused read, or write.
        self._logged: dict[str, float] = {}

    def note_written(self) -> None:
        """Something has reached the disk."""
        self.written_at = self._clock()
        if self.write_error is not None:
            log.warning("the store writes again, after %d refusals", self._refused_writes)
            self.write_error = None
            self._refused_writes = 0
            self._logged.pop("write", None)

    def refuse_write(self, error: BaseException) -> StoreError:
        """Note a write that failed; what its caller is told."""
        fault = self._refuse("write", error, store_error(error))
        self.write_error = fault
        self.written_at = self._clock()
        self._refused_writes += 1
        return fault

    def refuse_read(self, error: BaseException) -> StoreError:
        """Note a read that failed; what its caller is told."""
        return self._refuse("read", error, read_error(error))

    def is_fresh(self, seconds: float) -> bool:
        """Whether something was written, or not, in the last ``seconds``."""
        return self.written_at is not None and self._clock() - self.written_at < seconds

    def _refuse(self, operation: str, error: BaseException, fault: StoreError) -> StoreError:
        self.refusals += 1
        now, logged = self._clock(), self._logged.get(operation)
        if logged is None or now - logged >= _QUIET_SECONDS:
            self._logged[operation] = now
            # Of what SQLite does not say itself, where it came up is what helps.
            cause = None if isinstance(error, sqlite3.Error | StoreError) else error
            log.error("the store refused a %s: %s", operation, fault.message, exc_info=cause)
        return fault
