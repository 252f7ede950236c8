"""In-memory idempotency store: what each ``Idempotency-Key`` was used for in the last day."""

from __future__ import annotations

import msgspec

from antiphon.core.retention import Clock
from antiphon.core.turns import IdempotencyReservation
from antiphon.stores.sqlite.errors import reservation_lost
from antiphon.stores.sqlite.idempotency import RECORD_LIFETIME, RESERVATION_TIMEOUT
from antiphon.stores.sqlite.write_transaction import hash_idempotency_key
from antiphon.turn.store_protocols import IdempotencyRecord


class MemoryIdempotencyStore:
    """A ``IdempotencyStore`` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By tenant and hash.
        self._records: dict[tuple[str, bytes], IdempotencyRecord] = {}

    async def reserve(self, tenant: str, key: str, fingerprint: bytes) -> IdempotencyRecord | None:
        now = self._clock()
        place = (tenant, hash_idempotency_key(key))
        kept = self._records
        for old in [
            at for at, receipt in kept.items() if receipt.created_at <= now - RECORD_LIFETIME
        ]:
            del kept[old]
        held = kept.get(place)
        if held and (held.result_id is not None or held.created_at > now - RESERVATION_TIMEOUT):
            return held
        kept[place] = IdempotencyRecord(fingerprint, now)
        return None

    async def complete(self, tenant: str, key: str, result_id: str) -> None:
        self.set_result(tenant, key, result_id)

    async def release(self, tenant: str, key: str) -> None:
        place = (tenant, hash_idempotency_key(key))
        if place in self._records and self._records[place].result_id is None:
            del self._records[place]

    def check_reservation(self, tenant: str, reservation: IdempotencyReservation) -> None:
        """Raise ``ConflictError`` where the receipt is another request's by now, or settled."""
        held = self._records.get((tenant, hash_idempotency_key(reservation.key)))
        if (
            held is None
            or held.result_id is not None
            or held.fingerprint != reservation.fingerprint
        ):
            raise reservation_lost()

    def set_result(self, tenant: str, key: str, result_id: str) -> None:
        """``settle``, within what is made."""
        place = (tenant, hash_idempotency_key(key))
        if place in self._records:
            receipt = msgspec.structs.replace(self._records[place], result_id=result_id)
            self._records[place] = receipt
