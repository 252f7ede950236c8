"""Response index: a tenant's turns by time, in pages, and the retention sweep's schedule."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.ids import response_id_of, response_key
from antiphon.core.retention import Expiry
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.reader import (
    PageRequest,
    latest_timestamp,
    owners_of,
    read_head,
    snapshot,
    turn_at,
)
from antiphon.stores.sqlite.retention_sweep import (
    MAX_SWEEP_SECONDS,
    SCAN_START,
    ScanPosition,
    read_expired_conversations,
    read_expired_turns,
    read_next_expiry,
    read_tenants,
    sweep_conversations,
    sweep_turns,
)
from antiphon.stores.sqlite.rows import (
    MAX_THREAD,
    THREAD_STRIDE,
    decode_end,
    decode_header,
    last_of_turn,
)
from antiphon.stores.sqlite.sql_files import TURN_SQL
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import NO_FILTER, ResponseFilter, StoredTurn, unknown_cursor

#: Seconds until a sweep scans again at the latest: other processes erase, too.
_MAX_SCAN_INTERVAL: Final = 300.0
#: Seconds that a fingerprint may wait for the commit of its turn's end, which it follows.
_FINGERPRINT_DELAY: Final = 0.01


class SqliteResponseIndex:
    """A ``ResponseIndex`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        #: When the last sweep scanned for expired turns, and when the next one has to.
        self._scanned_at = math.inf
        self._next_scan_at = -math.inf
        #: The count of erasures at the last scan: an erased turn may have kept others alive.
        self._erasure_count = 0
        self._has_unfinished = False

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

    def add_fingerprint(
        self, response_id: str, fingerprint: ChainFingerprint
    ) -> asyncio.Future[None]:
        return self._database.submit(
            add_fingerprint, response_id, fingerprint, max_delay=_FINGERPRINT_DELAY
        )

    async def find_chain(
        self, tenant: str, fingerprints: Sequence[bytes]
    ) -> tuple[int, str] | None:
        cutoff = self._database.expiry.cutoff(tenant)
        read = partial(
            find_fingerprint, tenant=tenant, fingerprints=tuple(fingerprints), cutoff=cutoff
        )
        return await self._database.read_pooled(read)

    async def update_metadata(
        self, tenant: str, response_id: str, metadata: dict[str, str]
    ) -> bool:
        updated: bool = await self._database.submit(
            WriteTransaction.update_metadata, tenant, response_id, dict(metadata)
        )
        return updated

    async def delete_expired(self) -> int:
        database = self._database
        if not database.is_sweeper():
            return 0
        await database.end_orphans()
        if database.clock_guard is not None and not database.clock_guard.is_believed():
            return 0
        now, erasures = database.expiry.clock(), database.erasures.count
        if self._scanned_at <= now < self._next_scan_at and erasures == self._erasure_count:
            return 0
        # An expired turn that cannot be erased yet, as it runs, is scanned again each time.
        self._has_unfinished = False
        next_scan_at = now + min(_MAX_SCAN_INTERVAL, database.expiry.retention.shortest)
        swept = 0
        for tenant in await database.read_pooled(read_tenants):
            cutoff = database.expiry.cutoff(tenant)
            if cutoff > -math.inf:
                swept += await self._delete_expired_of(tenant, cutoff)
                read = partial(read_next_expiry, tenant=tenant, cutoff=cutoff)
                next_scan_at = min(next_scan_at, now - cutoff + await database.read_pooled(read))
        self._scanned_at, self._next_scan_at = now, now if self._has_unfinished else next_scan_at
        self._erasure_count = erasures
        return swept

    async def _delete_expired_of(self, tenant: str, cutoff: float) -> int:
        database = self._database
        swept = 0
        start: ScanPosition | None = SCAN_START
        while start is not None:
            read = partial(read_expired_turns, tenant=tenant, cutoff=cutoff, after=start)
            left, start = await database.read_pooled(read)
            self._has_unfinished = self._has_unfinished or bool(left)
            while left:
                done, left = await database.submit(sweep_turns, left, cutoff)
                swept += done
                # Turns under way get as much time: what has expired is not shown any more.
                await asyncio.sleep(MAX_SWEEP_SECONDS)
        ids = await database.read_pooled(
            partial(read_expired_conversations, tenant=tenant, cutoff=cutoff)
        )
        self._has_unfinished = self._has_unfinished or bool(ids)
        if ids:
            await database.submit(sweep_conversations, tenant, ids, cutoff)
        return swept


_BEFORE_FIRST: Final = (-math.inf, -1)
_AFTER_LAST: Final = (math.inf, MAX_THREAD * THREAD_STRIDE)


def read_responses(
    connection: sqlite3.Connection,
    tenant: str,
    page: PageRequest,
    response_filter: ResponseFilter,
    expiry: Expiry,
) -> tuple[list[StoredTurn], set[int]]:
    """Turns by timestamp. Raises ``InvalidRequestError`` for an unknown ``page.after``."""
    with snapshot(connection):
        start = _AFTER_LAST if page.newest_first else _BEFORE_FIRST
        if page.after is not None:
            start = _sort_key_of(connection, tenant, page.after)
        cursor = connection.execute(
            TURN_SQL["backwards" if page.newest_first else "forwards"], (tenant, *start)
        )
        cutoff = expiry.cutoff(tenant)
        turns: list[StoredTurn] = []
        while len(turns) < page.limit and (row := cursor.fetchone()) is not None:
            timestamp, row_id = row
            if not _matches_filter(connection, row_id, response_filter):
                continue
            if cutoff > -math.inf:
                timestamp = latest_timestamp(connection, row_id) or -math.inf
                if timestamp <= cutoff:
                    continue
            turn = turn_at(connection, row_id)
            turns.append(
                msgspec.structs.replace(turn, expires_at=expiry.expires_at(tenant, timestamp))
            )
        cursor.close()
        return turns, owners_of(connection, turns)


def add_fingerprint(
    transaction: WriteTransaction, response_id: str, fingerprint: ChainFingerprint
) -> None:
    """Have a turn that has ended found by the fingerprint of its chain."""
    transaction.write_rows()
    values = {
        "key": response_key(response_id),
        "fingerprint": fingerprint.digest,
        "epoch": fingerprint.epoch,
    }
    transaction.connection.execute(TURN_SQL["add_fingerprint"], values)


def find_fingerprint(
    connection: sqlite3.Connection, tenant: str, fingerprints: Sequence[bytes], cutoff: float
) -> tuple[int, str] | None:
    """The first fingerprint that a living turn has: its position, and that turn."""
    with snapshot(connection):
        for position, fingerprint in enumerate(fingerprints):
            rows = connection.execute(TURN_SQL["with_fingerprint"], (fingerprint,)).fetchall()
            for (key,) in rows:
                name = response_id_of(key)
                head, _ = read_head(connection, tenant=tenant, response_id=name, cutoff=cutoff)
                if head is not None:
                    return position, name
    return None


def _sort_key_of(connection: sqlite3.Connection, tenant: str, after: str) -> tuple[float, int]:
    rows = connection.execute(TURN_SQL["sort_key"], (response_key(after), tenant)).fetchall()
    if not rows:
        raise unknown_cursor(after)
    timestamp, row_id = rows[0]
    return timestamp, row_id


def _matches_filter(
    connection: sqlite3.Connection, row_id: int, response_filter: ResponseFilter
) -> bool:
    """Whether a turn matches; reads its header and its end only."""
    if response_filter is NO_FILTER:
        return True
    (top,) = connection.execute(TURN_SQL["row"], (row_id,)).fetchall()
    end = connection.execute(TURN_SQL["row"], (last_of_turn(row_id),)).fetchall()
    return response_filter.matches(
        decode_header(*top).header, decode_end(end[0][1]) if end else None
    )
