"""Retention: how long turns are stored, and when one expires. Pure but for the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

DAY_SECONDS: Final = 86_400.0


class RetentionPolicy(msgspec.Struct, frozen=True):
    """How long a turn outlives the last turn of its chain, in seconds. None: for ever.

    ``tenants`` says so for some tenants in place of ``default``.
    """

    default: float | None = 30 * DAY_SECONDS
    tenants: Mapping[str, float | None] = {}

    def seconds_for(self, tenant: str) -> float | None:
        return self.tenants.get(tenant, self.default)

    @property
    def shortest(self) -> float:
        """The shortest lifetime in seconds, inf: nothing ever expires."""
        lives = (self.default, *self.tenants.values())
        return min([life for life in lives if life is not None], default=math.inf)


#: Nothing ever expires.
RETAIN_FOREVER: Final = RetentionPolicy(None)


#: Tells the time in seconds since 1970 (UTC).
Clock = Callable[[], float]


class Expiry(msgspec.Struct, frozen=True):
    """A turn counts from its stamp: its own time, or an ancestor's that is later.

    So stamps never fall along a chain, even where the clock was set back between two turns,
    and the last turn of a thread has the latest.
    """

    retention: RetentionPolicy = RETAIN_FOREVER
    clock: Clock = time.time

    def cutoff(self, tenant: str) -> float:
        """The stamp of what expires right now: earlier ones have expired. -inf: none ever does."""
        life = self.retention.seconds_for(tenant)
        return -math.inf if life is None else self.clock() - life

    def expires_at(self, tenant: str, timestamp: float) -> float | None:
        """When what has this stamp expires. Infinity, which what is permanent has: never."""
        life = self.retention.seconds_for(tenant)
        return None if life is None or timestamp == math.inf else timestamp + life


#: Of a store that keeps everything.
NO_EXPIRY: Final = Expiry()
