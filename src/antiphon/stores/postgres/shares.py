"""Shared links in PostgreSQL, by the SHA-256 of their secrets. The secrets themselves never come
here.

Those that have expired are deleted whenever one is added.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from antiphon.core.ids import response_id_of, response_key
from antiphon.stores.postgres.database import PostgresDatabase
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.stores.postgres.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import unknown_cursor
from antiphon.turn.transfer_protocols import ShareRecord

if TYPE_CHECKING:
    from antiphon.stores.postgres.connection import Connection

_SQL: Final = read_queries("shares.sql")
_BEFORE_FIRST: Final = (-math.inf, "")
_AFTER_LAST: Final = (math.inf, "")


class PostgresShareStore:
    """A ``ShareStore`` in a PostgreSQL database."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def add(self, share: ShareRecord, sha256: bytes) -> None:
        await self._database.submit(_add, share, sha256, self._now())

    async def find(self, sha256: bytes) -> ShareRecord | None:
        async def read(connection: Connection) -> Any:
            return await connection.fetchrow(_SQL["find"], sha256, self._now())

        row = await self._database.read(read)
        return None if row is None else _share_of(row)

    async def list_shares(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ShareRecord]:
        now = self._now()

        async def read(connection: Connection) -> list[Any]:
            start = _AFTER_LAST if newest_first else _BEFORE_FIRST
            if after is not None:
                found = await connection.fetchrow(_SQL["position"], after, tenant, now)
                if found is None:
                    raise unknown_cursor(after)
                start = (found[0], found[1])
            query = _SQL["backwards" if newest_first else "forwards"]
            return await connection.fetch(query, tenant, *start, now, max(0, limit))

        return [_share_of(row) for row in await self._database.read(read)]

    async def revoke(self, tenant: str, share_id: str) -> bool:
        revoked: bool = await self._database.submit(_revoke, tenant, share_id, self._now())
        return revoked

    def _now(self) -> float:
        return self._database.expiry.clock()


async def _add(
    transaction: WriteTransaction, share: ShareRecord, sha256: bytes, now: float
) -> None:
    await transaction.connection.execute(_SQL["delete_expired"], now)
    key = response_key(share.response_id)
    row = (share.id, sha256, share.tenant, key, share.created_at, share.expires_at)
    await transaction.connection.execute(_SQL["add"], *row)


async def _revoke(transaction: WriteTransaction, tenant: str, share_id: str, now: float) -> bool:
    values = (share_id, tenant, now)
    return await transaction.connection.fetchrow(_SQL["revoke"], *values) is not None


def _share_of(row: Any) -> ShareRecord:
    share_id, tenant, key, created_at, expires_at = row
    return ShareRecord(share_id, tenant, response_id_of(key), created_at, expires_at)
