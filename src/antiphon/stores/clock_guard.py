"""Clock guard: has nothing erased as expired by a clock that was set wrong a moment ago.

What has expired is hidden at once, which the right time undoes. Nothing undoes an erasure: so that
waits where the clock is far ahead of what is expected, by the newest turn at the start,
and by a clock that cannot be set from then on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("antiphon.store")

#: How far ahead the clock may be of what is expected, in seconds, and for how long what is further
#: ahead has to last.
MAX_LEAP: Final = 3600.0
WAIT_SECONDS: Final = 3600.0
#: How long ago the newest turn may be when a store is opened, in seconds.
MAX_GAP: Final = 7 * 86_400.0


def steady_time() -> float:
    """Seconds of a clock that nobody sets; where there is one, also while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ClockGuard:
    """Compares ``clock``, which may be set, with ``steady``. ``newest`` is when the newest turn was
    stored, by that clock; None: there is none. ``whose`` it is, the log says.
    """

    def __init__(
        self,
        newest: float | None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_time,
        whose: str = "this machine",
    ) -> None:
        self._whose = whose
        self._clock = clock
        self._steady = steady
        now = clock()
        expected = now if newest is None else min(now, newest + MAX_GAP)
        #: What the clock is believed to be ahead of the steady one.
        self._ahead = expected - steady()
        #: Since when it has been too far ahead, by the steady clock; None: it is not.
        self._doubted_since: float | None = None

    def is_believed(self) -> bool:
        """Whether what has expired by the clock may be erased now."""
        steady = self._steady()
        ahead = self._clock() - steady
        leap = ahead - self._ahead
        if leap <= MAX_LEAP:
            self._ahead, self._doubted_since = ahead, None
            return True
        if self._doubted_since is None:
            self._doubted_since = steady
            log.warning(
                "the clock of %s is %d hours ahead of what was expected: nothing that has"
                " expired by it is erased for an hour, until then it can be set right",
                self._whose,
                leap // 3600,
            )
        if steady - self._doubted_since < WAIT_SECONDS:
            return False
        self._ahead, self._doubted_since = ahead, None
        return True
