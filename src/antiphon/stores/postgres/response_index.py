"""Response index in PostgreSQL: a tenant's turns by time, in pages, fingerprints, and expiry."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.ids import response_id_of, response_key
from antiphon.core.turns import with_metadata
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.reader import NO_CUTOFF, latest_timestamp, read_head, read_turns
from antiphon.stores.postgres.retention_sweep import RetentionSweep
from antiphon.stores.postgres.rows import TurnKey, decode_end, decode_header, encode_json
from antiphon.stores.postgres.sql_files import TURN_SQL, read_queries
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import NO_FILTER, ResponseFilter, StoredTurn, unknown_cursor

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

_SQL: Final = read_queries("response_index.sql")
#: Seconds that a fingerprint may wait for the commit of its turn's end, which it follows.
_FINGERPRINT_DELAY: Final = 0.01
_LIST_STEP: Final = 100
_MAX_BIGINT: Final = (1 << 63) - 1
_MAX_INTEGER: Final = (1 << 31) - 1
_BEFORE_FIRST: Final = (-math.inf, 0, 0)
_AFTER_LAST: Final = (math.inf, _MAX_BIGINT, _MAX_INTEGER)


class PostgresResponseIndex:
    """A ``ResponseIndex`` in the database of a PostgreSQL store."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._sweep = RetentionSweep(database)

    async def list_responses(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        response_filter: ResponseFilter = NO_FILTER,
    ) -> list[StoredTurn]:
        async def read(connection: Connection) -> tuple[list[StoredTurn], set[int]]:
            start: tuple[float, int, int] = _AFTER_LAST if newest_first else _BEFORE_FIRST
            if after is not None:
                row = await connection.fetchrow(_SQL["sort_key"], tenant, response_key(after))
                if row is None:
                    raise unknown_cursor(after)
                start = (row[0], row[1], row[2])
            query = _SQL["backwards" if newest_first else "forwards"]
            keys, stamps = await self._page(
                connection, tenant, (query, start, limit), response_filter
            )
            turns, dead = await read_turns(connection, tenant, keys)
            expiry = self._database.expiry
            dated = [
                msgspec.structs.replace(turn, expires_at=expiry.expires_at(tenant, stamp))
                for turn, stamp in zip(turns, stamps, strict=True)
            ]
            return dated, dead

        return await self._database.read_recovered(read, snapshot=True)

    async def _page(
        self,
        connection: Connection,
        tenant: str,
        page: tuple[str, tuple[float, int, int], int],
        response_filter: ResponseFilter,
    ) -> tuple[list[TurnKey], list[float]]:
        """The turns of a page and their latest timestamps. A page: query, start and limit."""
        query, start, limit = page
        cutoff = self._database.expiry.cutoff(tenant)
        keys: list[TurnKey] = []
        stamps: list[float] = []
        step = min(_LIST_STEP, max(1, limit))
        while len(keys) < limit:
            rows = await connection.fetch(query, tenant, *start, step)
            for timestamp, tree, thread, seq in rows:
                start, key = (timestamp, thread, seq), TurnKey(tree, thread, seq)
                if len(keys) >= limit or not await _matches(connection, key, response_filter):
                    continue
                latest: float | None = timestamp
                if cutoff > NO_CUTOFF:
                    latest = await latest_timestamp(connection, key)
                if latest is not None and latest > cutoff:
                    keys.append(key)
                    stamps.append(latest)
            if len(rows) < step:
                break
        return keys, stamps

    def add_fingerprint(
        self, response_id: str, fingerprint: ChainFingerprint
    ) -> asyncio.Future[None]:
        return self._database.submit(
            WriteTransaction.add_fingerprint, response_id, fingerprint, max_delay=_FINGERPRINT_DELAY
        )

    async def find_chain(
        self, tenant: str, fingerprints: Sequence[bytes]
    ) -> tuple[int, str] | None:
        cutoff = self._database.expiry.cutoff(tenant)

        async def read(connection: Connection) -> tuple[int, str] | None:
            rows = await connection.fetch(_SQL["with_fingerprints"], tenant, list(fingerprints))
            for number, key in rows:
                name = response_id_of(key)
                head, _ = await read_head(connection, tenant, name, cutoff)
                if head is not None:
                    return number - 1, name
            return None

        return await self._database.read(read)

    async def update_metadata(
        self, tenant: str, response_id: str, metadata: dict[str, str]
    ) -> bool:
        updated: bool = await self._database.submit(
            _update_metadata, tenant, response_id, dict(metadata)
        )
        return updated

    async def delete_expired(self) -> int:
        return await self._sweep.run()


async def _matches(connection: Connection, key: TurnKey, response_filter: ResponseFilter) -> bool:
    """Whether a turn matches; reads its header and its end only."""
    if response_filter is NO_FILTER:
        return True
    row = await connection.fetchrow(_SQL["header_and_end"], *key)
    return row is not None and response_filter.matches(
        decode_header(row[0]), None if row[1] is None else decode_end(row[1])
    )


async def _update_metadata(
    transaction: WriteTransaction, tenant: str, response_id: str, metadata: dict[str, str]
) -> bool:
    await transaction.flush()
    connection = transaction.connection
    row = await connection.fetchrow(TURN_SQL["turn_key"], tenant, response_key(response_id))
    if row is None:
        return False
    await transaction.lock_tree(row["tree"])
    header = await connection.fetchval(_SQL["hold_header"], *row)
    if header is None:
        return False
    header = encode_json(with_metadata(decode_header(header), metadata))
    await transaction.execute(_SQL["set_header"], *row, header)
    transaction.erased.add("log")
    return True
