"""How long turns are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

DAY: Final = 86_400.0


class Lifetimes(msgspec.Struct, frozen=True):
    """How long a turn outlives the last turn of its chain, in seconds. None: for ever.

    ``tenants`` says so for some tenants in place of ``default``.
    """

    default: float | None = 30 * DAY
    tenants: Mapping[str, float | None] = {}

    def of(self, tenant: str) -> float | None:
        return self.tenants.get(tenant, self.default)

    @property
    def shortest(self) -> float:
        """The shortest lifetime in seconds, inf: nothing ever expires."""
        lives = (self.default, *self.tenants.values())
        return min([life for life in lives if life is not None], default=math.inf)


#: Nothing ever expires.
FOREVER: Final = Lifetimes(None)
