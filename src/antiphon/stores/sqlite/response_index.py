"""All turns of a SQLite file: listed by time, and swept out when they have expired."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.response_list import PageRequest, read_responses
from antiphon.stores.sqlite.retention_sweep import (
    SCAN_START,
    ScanPosition,
    read_expired_conversations,
    read_expired_turns,
    read_next_expiry,
    read_tenants,
    sweep_conversations,
    sweep_turns,
)
from antiphon.turn.protocols import StoredTurn
from antiphon.turn.store_protocols import NO_FILTER, ResponseFilter

#: How long at most until a sweep looks again: other processes erase, too.
_LOOK_SECONDS: Final = 300.0


class SqliteResponseIndex:
    """An ``ResponseIndex``."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        #: When the last sweep looked at what has expired, and when the next one has to.
        self._looked_at = math.inf
        self._look_at = -math.inf
        #: How much had been erased here: what goes may have kept others alive.
        self._erasures = 0
        self._found = False

    async def list_responses(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        response_filter: ResponseFilter = NO_FILTER,
    ) -> list[StoredTurn]:
        page = PageRequest(limit, after, newest_first)
        expiry = self._database.expiry
        read = partial(
            read_responses, tenant=tenant, page=page, response_filter=response_filter, expiry=expiry
        )
        return await self._database.read_recovered(read)

    async def delete_expired(self) -> int:
        ground = self._database
        if not ground.is_sweeper():
            return 0
        await ground.fail_orphans()
        now, erasures = ground.expiry.clock(), ground.erasures.count
        if self._looked_at <= now < self._look_at and erasures == self._erasures:
            return 0
        # What is found and cannot go yet, as a turn that runs, is looked at again each time.
        self._found = False
        look_at = now + min(_LOOK_SECONDS, ground.expiry.retention.shortest)
        swept = 0
        for tenant in await ground.read_pooled(read_tenants):
            cutoff = ground.expiry.cutoff(tenant)
            if cutoff > -math.inf:
                swept += await self._delete_expired_of(tenant, cutoff)
                read = partial(read_next_expiry, tenant=tenant, cutoff=cutoff)
                look_at = min(look_at, now - cutoff + await ground.read_pooled(read))
        self._looked_at, self._look_at = now, now if self._found else look_at
        self._erasures = erasures
        return swept

    async def _delete_expired_of(self, tenant: str, cutoff: float) -> int:
        ground = self._database
        swept = 0
        start: ScanPosition | None = SCAN_START
        while start is not None:
            read = partial(read_expired_turns, tenant=tenant, cutoff=cutoff, after=start)
            left, start = await ground.read_pooled(read)
            self._found = self._found or bool(left)
            while left:
                done, left = await ground.submit(sweep_turns, left, cutoff)
                swept += done
        ids = await ground.read_pooled(
            partial(read_expired_conversations, tenant=tenant, cutoff=cutoff)
        )
        self._found = self._found or bool(ids)
        if ids:
            await ground.submit(sweep_conversations, tenant, ids, cutoff)
        return swept
