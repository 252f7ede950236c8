"""Receipts: what each ``Idempotency-Key`` was used for in the last day.

A key is kept as its SHA-256: whatever a client puts into it, however long, is 32 bytes here.
Old receipts are swept by each new one.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from antiphon.core.lifetimes import DAY
from antiphon.stores.batch import Batch
from antiphon.stores.expiry import Clock
from antiphon.stores.ground import Ground
from antiphon.stores.queries import named, read_sql
from antiphon.turn.ledgers import Receipt

#: How long a receipt is kept.
LIFETIME: Final = DAY
#: Seconds after which whoever wrote a receipt that says nothing must have died.
UNSETTLED: Final = 60.0
_SQL: Final = named(read_sql("receipts.sql"))


class SqliteReceipts:
    """A ``ReceiptStore`` in the file of a SQLite store.

    Each call is a job of the one writer, and no two processes write at once: of two that
    claim a key, one gets the other's receipt.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def claim(self, tenant: str, key: str, fingerprint: bytes) -> Receipt | None:
        now = self._ground.expiry.clock()
        kept: Receipt | None = await self._ground.put(
            _claim, tenant, _digest(key), fingerprint, now
        )
        return kept

    async def settle(self, tenant: str, key: str, outcome: str) -> None:
        await self._ground.put(_settle, tenant, _digest(key), outcome)

    async def drop(self, tenant: str, key: str) -> None:
        await self._ground.put(_drop, tenant, _digest(key))


class MemoryReceipts:
    """A ``ReceiptStore`` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By tenant and hash.
        self._receipts: dict[tuple[str, bytes], Receipt] = {}

    async def claim(self, tenant: str, key: str, fingerprint: bytes) -> Receipt | None:
        now = self._clock()
        place = (tenant, _digest(key))
        kept = self._receipts
        for old in [at for at, receipt in kept.items() if receipt.created_at <= now - LIFETIME]:
            del kept[old]
        held = kept.get(place)
        if held and (held.outcome is not None or held.created_at > now - UNSETTLED):
            return held
        kept[place] = Receipt(fingerprint, now)
        return None

    async def settle(self, tenant: str, key: str, outcome: str) -> None:
        place = (tenant, _digest(key))
        if place in self._receipts:
            receipt = msgspec.structs.replace(self._receipts[place], outcome=outcome)
            self._receipts[place] = receipt

    async def drop(self, tenant: str, key: str) -> None:
        self._receipts.pop((tenant, _digest(key)), None)


def sweep_receipts(batch: Batch, now: float) -> None:
    """Erase the receipts that are too old at ``now``."""
    batch.connection.execute(_SQL["sweep"], (now - LIFETIME,))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _claim(
    batch: Batch, tenant: str, digest: bytes, fingerprint: bytes, now: float
) -> Receipt | None:
    sweep_receipts(batch, now)
    execute = batch.connection.execute
    execute(_SQL["forget"], (tenant, digest, now - UNSETTLED))
    if execute(_SQL["claim"], (tenant, digest, fingerprint, now)).rowcount:
        return None
    ((kept, created_at, outcome),) = execute(_SQL["read"], (tenant, digest)).fetchall()
    return Receipt(kept, created_at, outcome)


def _settle(batch: Batch, tenant: str, digest: bytes, outcome: str) -> None:
    batch.connection.execute(_SQL["settle"], (tenant, digest, outcome))


def _drop(batch: Batch, tenant: str, digest: bytes) -> None:
    batch.connection.execute(_SQL["drop"], (tenant, digest))
