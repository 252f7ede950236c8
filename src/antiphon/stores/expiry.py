"""When turns expire, by the clock that a store was given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import msgspec

from antiphon.core.retention import FOREVER, Lifetimes

#: Tells the time in seconds since 1970 (UTC).
Clock = Callable[[], float]


class Expiry(msgspec.Struct, frozen=True):
    """A turn counts from its stamp: its own time, or an ancestor's that is later.

    So stamps never fall along a chain, even where the clock was set back between two turns,
    and the last turn of a thread has the latest.
    """

    lifetimes: Lifetimes = FOREVER
    clock: Clock = time.time

    def cutoff(self, tenant: str) -> float:
        """The stamp of what expires right now: earlier ones have expired. -inf: none ever does."""
        life = self.lifetimes.of(tenant)
        return -math.inf if life is None else self.clock() - life

    def at(self, tenant: str, stamp: float) -> float | None:
        """When what has this stamp expires."""
        life = self.lifetimes.of(tenant)
        return None if life is None else stamp + life


#: Of a store that keeps everything.
NEVER: Final = Expiry()
