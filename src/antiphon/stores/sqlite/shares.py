"""Shared links in SQLite, by the SHA-256 of their secrets. The secrets themselves never come here.

Those that have expired are deleted whenever one is added.
"""

from __future__ import annotations

import math
import sqlite3
from functools import partial
from typing import Final, TypeAlias

from antiphon.core.ids import response_id_of, response_key
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.sql_files import read_queries
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import unknown_cursor
from antiphon.turn.transfer_protocols import ShareRecord

_SQL: Final = read_queries("shares.sql")
#: id, tenant, response id, created_at, expires_at
_Row: TypeAlias = tuple[str, str, bytes, float, float | None]
_BEFORE_FIRST: Final = (-math.inf, "")
_AFTER_LAST: Final = (math.inf, "")


class SqliteShareStore:
    """A ``ShareStore`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def add(self, share: ShareRecord, sha256: bytes) -> None:
        await self._database.submit(_add, share, sha256, self._now())

    async def find(self, sha256: bytes) -> ShareRecord | None:
        read = partial(_read_share, sha256=sha256, now=self._now())
        return await self._database.read_inline(read)

    async def list_shares(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ShareRecord]:
        read = partial(
            _read_shares,
            tenant=tenant,
            limit=limit,
            after=after,
            newest_first=newest_first,
            now=self._now(),
        )
        return await self._database.read_pooled(read)

    async def revoke(self, tenant: str, share_id: str) -> bool:
        revoked: bool = await self._database.submit(_revoke, tenant, share_id, self._now())
        return revoked

    def _now(self) -> float:
        return self._database.expiry.clock()


def _add(transaction: WriteTransaction, share: ShareRecord, sha256: bytes, now: float) -> None:
    transaction.connection.execute(_SQL["delete_expired"], (now,))
    key = response_key(share.response_id)
    row = (share.id, sha256, share.tenant, key, share.created_at, share.expires_at)
    transaction.connection.execute(_SQL["add"], row)


def _revoke(transaction: WriteTransaction, tenant: str, share_id: str, now: float) -> bool:
    values = (share_id, tenant, now)
    return transaction.connection.execute(_SQL["revoke"], values).rowcount > 0


def _read_share(
    connection: sqlite3.Connection, sha256: bytes, now: float
) -> tuple[ShareRecord | None, set[int]]:
    rows = connection.execute(_SQL["find"], (sha256, now)).fetchall()
    return _share_of(rows[0]) if rows else None, set()


def _read_shares(  # noqa: PLR0913, PLR0917
    connection: sqlite3.Connection,
    tenant: str,
    limit: int,
    after: str | None,
    newest_first: bool,
    now: float,
) -> list[ShareRecord]:
    start = _AFTER_LAST if newest_first else _BEFORE_FIRST
    if after is not None:
        found = connection.execute(_SQL["position"], (after, tenant, now)).fetchall()
        if not found:
            raise unknown_cursor(after)
        start = found[0]
    query = _SQL["backwards" if newest_first else "forwards"]
    rows = connection.execute(query, (tenant, *start, now, limit)).fetchall()
    return [_share_of(row) for row in rows]


def _share_of(row: _Row) -> ShareRecord:
    share_id, tenant, key, created_at, expires_at = row
    return ShareRecord(share_id, tenant, response_id_of(key), created_at, expires_at)
