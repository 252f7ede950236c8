"""API keys in PostgreSQL, by the SHA-256 of each. The keys themselves never come here.

``find`` asks the database each time, so a revocation holds from the next request on, whichever
process it came through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from antiphon.stores.conflict_errors import duplicate_key
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.turn.store_protocols import ApiKey

if TYPE_CHECKING:
    from antiphon.stores.postgres.database import PostgresDatabase
    from antiphon.stores.postgres.write_transaction import WriteTransaction

_SQL: Final = read_queries("api_keys.sql")


class PostgresApiKeyStore:
    """An ``ApiKeyStore`` in the database of a PostgreSQL store."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def add(self, key: ApiKey, sha256: bytes) -> None:
        await self._database.submit(_add, key, sha256)

    async def find(self, sha256: bytes) -> ApiKey | None:
        row = await self._database.read(
            lambda connection: connection.fetchrow(_SQL["find"], sha256)
        )
        return None if row is None else ApiKey(*row)

    async def list_keys(self, tenant: str | None = None) -> list[ApiKey]:
        rows = await self._database.read(lambda connection: connection.fetch(_SQL["list"], tenant))
        return [ApiKey(*row) for row in rows]

    async def revoke(self, key_id: str) -> bool:
        revoked: bool = await self._database.submit(_revoke, key_id, self._database.expiry.clock())
        return revoked

    async def has_keys(self) -> bool:
        found = await self._database.read(lambda connection: connection.fetchval(_SQL["any"]))
        return bool(found)


async def _add(transaction: WriteTransaction, key: ApiKey, sha256: bytes) -> None:
    row = (sha256, key.id, key.tenant, key.created_at, key.name, key.revoked_at)
    if not await transaction.connection.fetch(_SQL["add"], *row):
        raise duplicate_key(key)
    transaction.progress += 1


async def _revoke(transaction: WriteTransaction, key_id: str, now: float) -> bool:
    return bool(await transaction.fetch(_SQL["revoke"], key_id, now))
