"""Idempotency records in SQLite: what each ``Idempotency-Key`` was used for in the last day.

A key is stored as its SHA-256: 32 bytes, whatever a client puts into it. Each reservation
deletes records that are too old.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from antiphon.core.turns import IdempotencyReservation
from antiphon.stores.conflict_errors import reservation_lost
from antiphon.stores.idempotency_keys import (
    RECORD_LIFETIME,
    RESERVATION_TIMEOUT,
    hash_idempotency_key,
)
from antiphon.stores.sqlite.sql_files import read_queries
from antiphon.turn.store_protocols import IdempotencyRecord

if TYPE_CHECKING:
    from antiphon.stores.sqlite.database import SqliteDatabase
    from antiphon.stores.sqlite.write_transaction import WriteTransaction

_SQL: Final = read_queries("idempotency.sql")


class SqliteIdempotencyStore:
    """A ``IdempotencyStore`` in the file of a SQLite store.

    Each call is a job of the one writer, and no two processes write at once: of two that
    reserve a key, one gets the other's record.
    """

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def reserve(self, tenant: str, key: str, fingerprint: bytes) -> IdempotencyRecord | None:
        now, is_alive = self._database.expiry.clock(), self._database.is_alive
        record: IdempotencyRecord | None = await self._database.submit(
            _reserve, tenant, hash_idempotency_key(key), fingerprint, now, is_alive
        )
        return record

    async def complete(self, tenant: str, key: str, result_id: str) -> None:
        await self._database.submit(_complete, tenant, key, result_id)

    async def release(self, tenant: str, key: str) -> None:
        await self._database.submit(_release, tenant, hash_idempotency_key(key))


def check_reservation(
    connection: sqlite3.Connection, tenant: str, reservation: IdempotencyReservation, owner: int
) -> None:
    """Raise ``ConflictError`` where another request has the reservation now, or completed it."""
    values = (tenant, hash_idempotency_key(reservation.key), reservation.fingerprint, owner)
    if not connection.execute(_SQL["is_reserved"], values).fetchall():
        raise reservation_lost()


def complete_reservation(
    connection: sqlite3.Connection, tenant: str, key: str, result_id: str
) -> None:
    """Store the id of the result with the reservation."""
    connection.execute(_SQL["complete"], (result_id, tenant, hash_idempotency_key(key)))


def delete_old_records(transaction: WriteTransaction, now: float) -> None:
    """Delete the records that are too old at ``now``."""
    transaction.connection.execute(_SQL["delete_old"], (now - RECORD_LIFETIME,))


def _reserve(  # noqa: PLR0913, PLR0917
    transaction: WriteTransaction,
    tenant: str,
    key_hash: bytes,
    fingerprint: bytes,
    now: float,
    is_alive: Callable[[int], bool],
) -> IdempotencyRecord | None:
    delete_old_records(transaction, now)
    execute = transaction.connection.execute
    execute(_SQL["delete_abandoned"], (tenant, key_hash, now - RESERVATION_TIMEOUT))
    made = (fingerprint, now, transaction.owner)
    if execute(_SQL["reserve"], (tenant, key_hash, *made)).rowcount:
        return None
    ((*record, owner),) = execute(_SQL["read"], (tenant, key_hash)).fetchall()
    existing = IdempotencyRecord(*record)
    if existing.result_id is None and not is_alive(owner):
        execute(_SQL["take_over"], (*made, tenant, key_hash))
        return None
    return existing


def _complete(transaction: WriteTransaction, tenant: str, key: str, result_id: str) -> None:
    complete_reservation(transaction.connection, tenant, key, result_id)


def _release(transaction: WriteTransaction, tenant: str, key_hash: bytes) -> None:
    values = (tenant, key_hash, transaction.owner)
    transaction.connection.execute(_SQL["release"], values)
