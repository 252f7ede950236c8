"""API keys, by the SHA-256 of each. The keys themselves never come here.

``find`` is on the path of every request, and asks the database each time: one indexed read
on the loop's own thread, some 7 µs. Nothing is remembered, so a revocation holds from the
next request on, whichever process it came through.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final, TypeAlias

from antiphon.stores.conflict_errors import duplicate_key
from antiphon.stores.sqlite.database import SqliteDatabase
from antiphon.stores.sqlite.sql_files import read_queries
from antiphon.stores.sqlite.write_transaction import WriteTransaction
from antiphon.turn.store_protocols import ApiKey

_SQL: Final = read_queries("api_keys.sql")
_FIND = _SQL["find"]

#: id, tenant, created_at, name, revoked_at
_Row: TypeAlias = tuple[str, str, float, str | None, float | None]


class SqliteApiKeyStore:
    """A ``ApiKeyStore`` in the file of a SQLite store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def add(self, key: ApiKey, sha256: bytes) -> None:
        await self._database.submit(_add, key, sha256)

    async def find(self, sha256: bytes) -> ApiKey | None:
        return await self._database.read_inline(partial(_read_key, sha256=sha256))

    async def list_keys(self, tenant: str | None = None) -> list[ApiKey]:
        return await self._database.read_pooled(partial(_read_keys, tenant=tenant))

    async def revoke(self, key_id: str) -> bool:
        revoked: bool = await self._database.submit(_revoke, key_id, self._database.expiry.clock())
        return revoked

    async def has_keys(self) -> bool:
        return await self._database.read_inline(_read_has_keys)


def _decode_key(row: _Row) -> ApiKey:
    key_id, tenant, created_at, name, revoked_at = row
    return ApiKey(key_id, tenant, created_at, name, revoked_at)


def _add(transaction: WriteTransaction, key: ApiKey, sha256: bytes) -> None:
    row = (key.id, sha256, key.tenant, key.created_at, key.name, key.revoked_at)
    if transaction.connection.execute(_SQL["add"], row).rowcount == 0:
        raise duplicate_key(key)


def _revoke(transaction: WriteTransaction, key_id: str, now: float) -> bool:
    return transaction.connection.execute(_SQL["revoke"], (now, key_id)).rowcount > 0


# Reads for ``SqliteDatabase.read_inline``: no key meets a turn that a dead process left.


def _read_key(connection: sqlite3.Connection, sha256: bytes) -> tuple[ApiKey | None, set[int]]:
    rows = connection.execute(_FIND, (sha256,)).fetchall()
    return _decode_key(rows[0]) if rows else None, set()


def _read_has_keys(connection: sqlite3.Connection) -> tuple[bool, set[int]]:
    return bool(connection.execute(_SQL["any"]).fetchall()[0][0]), set()


def _read_keys(connection: sqlite3.Connection, tenant: str | None) -> list[ApiKey]:
    rows = connection.execute(_SQL["list"], {"tenant": tenant}).fetchall()
    return [_decode_key(row) for row in rows]
