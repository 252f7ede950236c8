"""Health of a store: counts and logs failed reads and writes, and knows whether it can write
now.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from antiphon.errors import StoreError

log = logging.getLogger("antiphon.store")

#: Seconds between two lines of the log about the same kind of failure.
_QUIET_SECONDS: Final = 60.0


class Health:
    """The state of one opened store. Used on its event loop.

    ``expected`` are the database's own errors, which are logged without a traceback: for any other
    one it shows where it comes from.
    """

    def __init__(
        self,
        expected: tuple[type[BaseException], ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = expected
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

    def refuse_write(self, error: StoreError) -> StoreError:
        """Record a write that failed; returns the error, for its caller."""
        self.write_error = self._refuse("write", error)
        self.written_at = self._clock()
        self._refused_writes += 1
        return error

    def refuse_read(self, error: StoreError) -> StoreError:
        """Record a read that failed; returns the error, for its caller."""
        return self._refuse("read", error)

    def is_fresh(self, seconds: float) -> bool:
        """Whether a write succeeded or failed in the last ``seconds``."""
        return self.written_at is not None and self._clock() - self.written_at < seconds

    def _refuse(self, operation: str, error: StoreError) -> StoreError:
        self.refusals += 1
        now, logged = self._clock(), self._logged.get(operation)
        if logged is None or now - logged >= _QUIET_SECONDS:
            self._logged[operation] = now
            cause = None if isinstance(error.__cause__, self._expected) else error.__cause__
            log.error("the store refused a %s: %s", operation, error.message, exc_info=cause)
        return error
