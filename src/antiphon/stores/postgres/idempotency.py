"""Idempotency records in PostgreSQL: what each ``Idempotency-Key`` was used for in the last day.

A key is stored as its SHA-256: 32 bytes, whatever a client puts into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from antiphon.core.turns import IdempotencyReservation
from antiphon.stores.conflict_errors import reservation_lost
from antiphon.stores.idempotency_keys import (
    RECORD_LIFETIME,
    RESERVATION_TIMEOUT,
    hash_idempotency_key,
)
from antiphon.stores.postgres.sql_files import read_queries
from antiphon.turn.store_protocols import IdempotencyRecord

if TYPE_CHECKING:
    from antiphon.stores.postgres.database import PostgresDatabase
    from antiphon.stores.postgres.write_transaction import WriteTransaction

_SQL: Final = read_queries("idempotency.sql")


class PostgresIdempotencyStore:
    """An ``IdempotencyStore`` in the database of a PostgreSQL store.

    Of two that reserve a key, in whatever process, one gets the other's record.
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def reserve(self, tenant: str, key: str, fingerprint: bytes) -> IdempotencyRecord | None:
        now = self._database.expiry.clock()
        record: IdempotencyRecord | None = await self._database.submit(
            _reserve, tenant, hash_idempotency_key(key), fingerprint, now
        )
        return record

    async def complete(self, tenant: str, key: str, result_id: str) -> None:
        await self._database.submit(complete_reservation, tenant, key, result_id)

    async def release(self, tenant: str, key: str) -> None:
        await self._database.submit(_release, tenant, hash_idempotency_key(key))


async def check_reservation(
    transaction: WriteTransaction, tenant: str, reservation: IdempotencyReservation
) -> None:
    """Raise ``ConflictError`` where another request has the reservation now, or completed it."""
    made = (reservation.fingerprint, transaction.node)
    values = (tenant, hash_idempotency_key(reservation.key), *made)
    if not await transaction.connection.fetch(_SQL["hold_reserved"], *values):
        raise reservation_lost()


async def complete_reservation(
    transaction: WriteTransaction, tenant: str, key: str, result_id: str
) -> None:
    """Store the id of the result with the reservation."""
    await transaction.execute(_SQL["complete"], tenant, hash_idempotency_key(key), result_id)


async def delete_old_records(transaction: WriteTransaction, now: float) -> None:
    """Delete the records that are too old at ``now``."""
    await transaction.execute(_SQL["delete_old"], now - RECORD_LIFETIME)


async def _reserve(
    transaction: WriteTransaction, tenant: str, key_hash: bytes, fingerprint: bytes, now: float
) -> IdempotencyRecord | None:
    times = (now - RESERVATION_TIMEOUT, now - RECORD_LIFETIME)
    row = await transaction.connection.fetchrow(
        _SQL["reserve"], tenant, key_hash, fingerprint, now, transaction.node, *times
    )
    transaction.progress += 1
    if row is not None:
        return None
    row = await transaction.connection.fetchrow(_SQL["read"], tenant, key_hash)
    # The row that was in the way is held by nobody: it may go at this moment.
    return (
        IdempotencyRecord(*row)
        if row
        else await _reserve(transaction, tenant, key_hash, fingerprint, now)
    )


async def _release(transaction: WriteTransaction, tenant: str, key_hash: bytes) -> None:
    await transaction.execute(_SQL["release"], tenant, key_hash, transaction.node)
