"""When a failed try is worth another, and how long to wait before it. No I/O, no clock.

What is tried again is not one call but the opening of a stream, up to its first
delta; each failure may bring its own waiting time, and the waiting as a whole has an
end. A general retry library would need all of these rules as callbacks anyway.

The tries of one call, and the waiting between them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from antiphon.errors import AntiphonError


class AttemptError(Exception):
    """A try that failed: the error to raise if it was the last one.

    ``transient``: the same request may succeed later. ``at_once``: the first retry
    needs no waiting, because nothing was wrong but the connection.
    ``retry_after`` is what the upstream asked for, in seconds.
    """

    def __init__(
        self,
        error: AntiphonError,
        *,
        transient: bool = False,
        immediate: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.transient = transient
        self.immediate = immediate
        self.retry_after = retry_after


class RetryPolicy(msgspec.Struct, frozen=True):
    """Times are in seconds.

    ``retries`` further tries, the nth after ``base * 2**(n-1)`` and at most ``cap``,
    of which the upper half is left to chance. An upstream's own Retry-After is kept
    to if it is longer; above ``timeout`` it is not worth the user's waiting and the
    error is raised at once. No retry begins later than ``deadline`` after the first try.
    """

    max_retries: int = 2
    base: float = 0.5
    cap: float = 8.0
    max_retry_after: float = 30.0
    deadline: float = 60.0

    def next_delay(
        self, failure: AttemptError, *, failures: int, elapsed: float, jitter: float
    ) -> float | None:
        """How long to wait before the next try; None: give up.

        ``failed`` tries so far (from 1), ``elapsed`` seconds since the first began,
        ``luck`` a random number in [0, 1).
        """
        if not failure.transient or failures > self.max_retries:
            return None
        if failure.immediate and failures == 1:
            return 0.0
        delay = min(self.cap, self.base * 2.0 ** (failures - 1)) * (0.5 + jitter / 2)
        requested = failure.retry_after or 0.0
        if requested > self.max_retry_after:
            return None
        delay = max(delay, requested)
        return delay if elapsed + delay <= self.deadline else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that an answer's headers ask us to wait; None if they do not say.

    Reads ``Retry-After`` as seconds or as an HTTP date (``now`` is in seconds since
    1970), and ``retry-after-ms``, which is finer and goes first.
    """
    for name, unit in (("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        seconds = _parse_seconds(value, unit, now)
        if seconds is not None:
            return max(0.0, seconds)
    return None


def _parse_seconds(value: str, unit: float, now: float) -> float | None:
    try:
        number = float(value)
    except ValueError:
        pass
    else:
        return number * unit if math.isfinite(number) else None
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return date.timestamp() - now
    except (ValueError, OverflowError):
        return None


class RetryAttempts:
    """Counts from the first try, by ``clock``, in seconds."""

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._started_at = clock()
        self._failures = 0

    async def wait_or_raise(self, failure: AttemptError) -> None:
        """Wait as long as the policy says, or raise the failure's error: that was the last."""
        self._failures += 1
        elapsed, jitter = self._clock() - self._started_at, random.random()  # noqa: S311
        delay = self._policy.next_delay(
            failure, failures=self._failures, elapsed=elapsed, jitter=jitter
        )
        if delay is None:
            raise failure.error
        await self._sleep(delay)
