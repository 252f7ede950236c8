"""The tries of one call, and the waiting between them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from antiphon.models.retry import Failure, RetryPolicy


class Attempts:
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
        self._began = clock()
        self._failed = 0

    async def again(self, failure: Failure) -> None:
        """Wait as long as the policy says, or raise the failure's error: that was the last."""
        self._failed += 1
        elapsed, luck = self._clock() - self._began, random.random()  # noqa: S311
        wait = self._policy.wait(failure, failed=self._failed, elapsed=elapsed, luck=luck)
        if wait is None:
            raise failure.error
        await self._sleep(wait)
