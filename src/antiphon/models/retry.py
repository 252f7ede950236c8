"""Retry and exponential backoff: when a failed attempt is repeated, and after what delay.

The policy is pure: no I/O, no clock. What is retried is the opening of a stream, up to its
first delta; each failure may bring its own delay (Retry-After), and all delays together have
a deadline. A general retry library would need each of these rules as a callback.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from antiphon.core.backoff import exponential_delay
from antiphon.errors import AntiphonError


class AttemptError(Exception):
    """A failed attempt: holds the error to raise if no attempt follows.

    ``transient``: the same request may succeed later. ``immediate``: the first retry
    needs no delay, because only the connection failed.
    ``retry_after`` is the delay that the upstream requests, in seconds.
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
    """Exponential backoff with jitter. Times are in seconds.

    ``max_retries`` retries, the nth after ``base * 2**(n-1)`` and at most ``cap``, of which
    the upper half is random. An upstream's own Retry-After replaces a shorter delay; above
    ``max_retry_after`` the error is raised at once instead. No retry begins later than
    ``deadline`` after the first attempt.
    """

    max_retries: int = 2
    base: float = 0.5
    cap: float = 8.0
    max_retry_after: float = 30.0
    deadline: float = 60.0

    def next_delay(
        self, failure: AttemptError, *, failures: int, elapsed: float, jitter: float
    ) -> float | None:
        """The delay before the next attempt, in seconds; None: raise the error.

        ``failures`` counts failed attempts from 1, ``elapsed`` is in seconds since the first
        began, ``jitter`` is a random number in [0, 1).
        """
        if not failure.transient or failures > self.max_retries:
            return None
        if failure.immediate and failures == 1:
            return 0.0
        delay = exponential_delay(failures, base=self.base, cap=self.cap, jitter=jitter)
        requested = failure.retry_after or 0.0
        if requested > self.max_retry_after:
            return None
        delay = max(delay, requested)
        return delay if elapsed + delay <= self.deadline else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The delay that a response's headers request, in seconds; None: none of them does.

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
    """The attempts of one call: counts failures and sleeps between them.

    Time runs from the first attempt, by ``clock``, in seconds.
    """

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
        """Sleep for the policy's delay, or raise the failure's error if there is no retry."""
        self._failures += 1
        elapsed, jitter = self._clock() - self._started_at, random.random()  # noqa: S311
        delay = self._policy.next_delay(
            failure, failures=self._failures, elapsed=elapsed, jitter=jitter
        )
        if delay is None:
            raise failure.error
        await self._sleep(delay)
