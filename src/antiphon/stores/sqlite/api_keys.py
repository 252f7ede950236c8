"""API keys, by the SHA-256 of each. The keys themselves never come here.

``find`` is on the path of every request, and asks the database each time: one indexed read
on the loop's own thread, some 7 µs. Nothing is remembered, so a revocation holds from the
next request on, whichever process it came through.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final, TypeAlias

import msgspec

from antiphon.core.retention import Clock
from antiphon.errors import StoreError
from antiphon.stores.sqlite.database import Ground
from antiphon.stores.sqlite.sql_files import named, read_sql
from antiphon.stores.sqlite.write_transaction import Batch
from antiphon.turn.store_protocols import Key

_SQL: Final = named(read_sql("api_keys.sql"))
_FIND = _SQL["find"]

#: id, tenant, created_at, name, revoked_at
_Row: TypeAlias = tuple[str, str, float, str | None, float | None]


class SqliteKeys:
    """A ``KeyStore`` in the file of a SQLite store."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def add(self, key: Key, digest: bytes) -> None:
        await self._ground.put(_add, key, digest)

    async def find(self, digest: bytes) -> Key | None:
        return await self._ground.inline(partial(_read_key, digest=digest))

    async def all(self) -> list[Key]:
        return await self._ground.pooled(_read_all)

    async def revoke(self, key_id: str) -> bool:
        revoked: bool = await self._ground.put(_revoke, key_id, self._ground.expiry.clock())
        return revoked

    async def any(self) -> bool:
        return await self._ground.inline(_read_any)


class MemoryKeys:
    """A ``KeyStore`` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[bytes, Key] = {}

    async def add(self, key: Key, digest: bytes) -> None:
        if digest in self._keys or any(known.id == key.id for known in self._keys.values()):
            raise _taken(key)
        self._keys[digest] = key

    async def find(self, digest: bytes) -> Key | None:
        key = self._keys.get(digest)
        return None if key is None or key.revoked_at is not None else key

    async def all(self) -> list[Key]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    async def revoke(self, key_id: str) -> bool:
        for digest, key in self._keys.items():
            if key.id == key_id:
                if key.revoked_at is None:
                    revoked = msgspec.structs.replace(key, revoked_at=self._clock())
                    self._keys[digest] = revoked
                return True
        return False

    async def any(self) -> bool:
        return bool(self._keys)


def _taken(key: Key) -> StoreError:
    return StoreError(f"There is a key with the id {key.id!r} or the same hash already.")


def _key(row: _Row) -> Key:
    key_id, tenant, created_at, name, revoked_at = row
    return Key(key_id, tenant, created_at, name, revoked_at)


def _add(batch: Batch, key: Key, digest: bytes) -> None:
    row = (key.id, digest, key.tenant, key.created_at, key.name, key.revoked_at)
    if batch.connection.execute(_SQL["add"], row).rowcount == 0:
        raise _taken(key)


def _revoke(batch: Batch, key_id: str, now: float) -> bool:
    return batch.connection.execute(_SQL["revoke"], (now, key_id)).rowcount > 0


# Reads for ``Ground.inline``: no key meets a turn that a dead process left.


def _read_key(connection: sqlite3.Connection, digest: bytes) -> tuple[Key | None, set[int]]:
    rows = connection.execute(_FIND, (digest,)).fetchall()
    return _key(rows[0]) if rows else None, set()


def _read_any(connection: sqlite3.Connection) -> tuple[bool, set[int]]:
    return bool(connection.execute(_SQL["any"]).fetchall()[0][0]), set()


def _read_all(connection: sqlite3.Connection) -> list[Key]:
    return [_key(row) for row in connection.execute(_SQL["all"]).fetchall()]
