"""In-memory idempotency store: what each ``Idempotency-Key`` was used for in the last day."""

from __future__ import annotations

from itertools import islice
from typing import Final

import msgspec

from antiphon.core.retention import Clock
from antiphon.core.turns import IdempotencyReservation
from antiphon.stores.conflict_errors import reservation_lost
from antiphon.stores.idempotency_keys import (
    RECORD_LIFETIME,
    RESERVATION_TIMEOUT,
    hash_idempotency_key,
)
from antiphon.turn.store_protocols import IdempotencyRecord

#: How many records that are too old go with each new one, so that none waits for many to go.
_DELETIONS: Final = 2


class MemoryIdempotencyStore:
    """A ``IdempotencyStore`` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By tenant and hash, the oldest first.
        self._records: dict[tuple[str, bytes], IdempotencyRecord] = {}

    async def reserve(self, tenant: str, key: str, fingerprint: bytes) -> IdempotencyRecord | None:
        now = self._clock()
        record_key = (tenant, hash_idempotency_key(key))
        records = self._records
        if (existing := records.get(record_key)) is not None:
            is_reserved = existing.result_id is None
            lifetime = RESERVATION_TIMEOUT if is_reserved else RECORD_LIFETIME
            if existing.created_at > now - lifetime:
                return existing
            del records[record_key]
        for old in list(islice(records, _DELETIONS)):
            if records[old].created_at <= now - RECORD_LIFETIME:
                del records[old]
        records[record_key] = IdempotencyRecord(fingerprint, now)
        return None

    async def complete(self, tenant: str, key: str, result_id: str) -> None:
        self.set_result(tenant, key, result_id)

    async def release(self, tenant: str, key: str) -> None:
        record_key = (tenant, hash_idempotency_key(key))
        if record_key in self._records and self._records[record_key].result_id is None:
            del self._records[record_key]

    def check_reservation(self, tenant: str, reservation: IdempotencyReservation) -> None:
        """Raise ``ConflictError`` where the record is another request's by now, or completed."""
        existing = self._records.get((tenant, hash_idempotency_key(reservation.key)))
        if (
            existing is None
            or existing.result_id is not None
            or existing.fingerprint != reservation.fingerprint
        ):
            raise reservation_lost()

    def set_result(self, tenant: str, key: str, result_id: str) -> None:
        """``complete``, for the transaction that creates the result."""
        record_key = (tenant, hash_idempotency_key(key))
        if record_key in self._records:
            record = msgspec.structs.replace(self._records[record_key], result_id=result_id)
            self._records[record_key] = record
