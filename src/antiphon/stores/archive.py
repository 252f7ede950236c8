"""All turns of a SQLite file: listed by time, and swept out when they have expired."""

from __future__ import annotations

import math
from functools import partial

from antiphon.stores.ground import Ground
from antiphon.stores.listing import Page, read_listing
from antiphon.stores.sweeping import (
    START,
    Spot,
    read_expired,
    read_expired_conversations,
    read_tenants,
    scrub,
    sweep_conversations,
    sweep_turns,
)
from antiphon.turn.ledgers import ANYTHING, Wanted
from antiphon.turn.ports import StoredTurn


class SqliteArchive:
    """An ``Archive``."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

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
        await ground.end_orphans()
        swept = 0
        for tenant in await ground.pooled(read_tenants):
            cutoff = ground.expiry.cutoff(tenant)
            if cutoff > -math.inf:
                swept += await self._sweep(tenant, cutoff)
        await ground.put(scrub)
        return swept

    async def _sweep(self, tenant: str, cutoff: float) -> int:
        ground = self._ground
        swept = 0
        start: Spot | None = START
        while start is not None:
            read = partial(read_expired, tenant=tenant, cutoff=cutoff, after=start)
            left, start = await ground.pooled(read)
            while left:
                done, left = await ground.put(sweep_turns, left, cutoff)
                swept += done
        ids = await ground.pooled(partial(read_expired_conversations, tenant=tenant, cutoff=cutoff))
        if ids:
            await ground.put(sweep_conversations, tenant, ids, cutoff)
        return swept
