"""All turns of a SQLite file: listed by time, and swept out when they have expired."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from antiphon.stores.sqlite.database import Ground
from antiphon.stores.sqlite.response_list import Page, read_listing
from antiphon.stores.sqlite.retention_sweep import (
    START,
    Spot,
    read_expired,
    read_expired_conversations,
    read_next_expiry,
    read_tenants,
    sweep_conversations,
    sweep_turns,
)
from antiphon.turn.protocols import StoredTurn
from antiphon.turn.store_protocols import ANYTHING, Wanted

#: How long at most until a sweep looks again: other processes erase, too.
_LOOK_SECONDS: Final = 300.0


class SqliteArchive:
    """An ``Archive``."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        #: When the last sweep looked at what has expired, and when the next one has to.
        self._looked_at = math.inf
        self._look_at = -math.inf
        #: How much had been erased here: what goes may have kept others alive.
        self._erasures = 0
        self._found = False

    async def listing(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        wanted: Wanted = ANYTHING,
    ) -> list[StoredTurn]:
        page = Page(limit, after, newest_first)
        expiry = self._ground.expiry
        read = partial(read_listing, tenant=tenant, page=page, wanted=wanted, expiry=expiry)
        return await self._ground.settled(read)

    async def sweep(self) -> int:
        ground = self._ground
        if not ground.is_sweeper():
            return 0
        await ground.end_orphans()
        now, erasures = ground.expiry.clock(), ground.erasures.count
        if self._looked_at <= now < self._look_at and erasures == self._erasures:
            return 0
        # What is found and cannot go yet, as a turn that runs, is looked at again each time.
        self._found = False
        look_at = now + min(_LOOK_SECONDS, ground.expiry.lifetimes.shortest)
        swept = 0
        for tenant in await ground.pooled(read_tenants):
            cutoff = ground.expiry.cutoff(tenant)
            if cutoff > -math.inf:
                swept += await self._sweep(tenant, cutoff)
                read = partial(read_next_expiry, tenant=tenant, cutoff=cutoff)
                look_at = min(look_at, now - cutoff + await ground.pooled(read))
        self._looked_at, self._look_at = now, now if self._found else look_at
        self._erasures = erasures
        return swept

    async def _sweep(self, tenant: str, cutoff: float) -> int:
        ground = self._ground
        swept = 0
        start: Spot | None = START
        while start is not None:
            read = partial(read_expired, tenant=tenant, cutoff=cutoff, after=start)
            left, start = await ground.pooled(read)
            self._found = self._found or bool(left)
            while left:
                done, left = await ground.put(sweep_turns, left, cutoff)
                swept += done
        ids = await ground.pooled(partial(read_expired_conversations, tenant=tenant, cutoff=cutoff))
        self._found = self._found or bool(ids)
        if ids:
            await ground.put(sweep_conversations, tenant, ids, cutoff)
        return swept
