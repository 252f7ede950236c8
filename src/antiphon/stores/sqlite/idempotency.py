"""Receipts: what each ``Idempotency-Key`` was used for in the last day.

A key is kept as its SHA-256: whatever a client puts into it, however long, is 32 bytes here.
Old receipts are swept by each new one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from antiphon.core.retention import DAY, Clock
from antiphon.core.turns import Claim
from antiphon.stores.sqlite.database import Ground
from antiphon.stores.sqlite.errors import claim_lost
from antiphon.stores.sqlite.write_transaction import RECEIPTS, Batch, digest_of, settle
from antiphon.turn.store_protocols import Receipt

#: How long a receipt is kept.
LIFETIME: Final = DAY
#: Seconds after which whoever wrote a receipt that says nothing must have died.
UNSETTLED: Final = 60.0


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
            _claim, tenant, digest_of(key), fingerprint, now
        )
        return kept

    async def settle(self, tenant: str, key: str, outcome: str) -> None:
        await self._ground.put(_settle, tenant, key, outcome)

    async def drop(self, tenant: str, key: str) -> None:
        await self._ground.put(_drop, tenant, digest_of(key))


class MemoryReceipts:
    """A ``ReceiptStore`` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By tenant and hash.
        self._receipts: dict[tuple[str, bytes], Receipt] = {}

    async def claim(self, tenant: str, key: str, fingerprint: bytes) -> Receipt | None:
        now = self._clock()
        place = (tenant, digest_of(key))
        kept = self._receipts
        for old in [at for at, receipt in kept.items() if receipt.created_at <= now - LIFETIME]:
            del kept[old]
        held = kept.get(place)
        if held and (held.outcome is not None or held.created_at > now - UNSETTLED):
            return held
        kept[place] = Receipt(fingerprint, now)
        return None

    async def settle(self, tenant: str, key: str, outcome: str) -> None:
        self.put_outcome(tenant, key, outcome)

    async def drop(self, tenant: str, key: str) -> None:
        place = (tenant, digest_of(key))
        if place in self._receipts and self._receipts[place].outcome is None:
            del self._receipts[place]

    def check_claimed(self, tenant: str, claim: Claim) -> None:
        """Raise ``Conflict`` where the receipt is another request's by now, or settled."""
        held = self._receipts.get((tenant, digest_of(claim.key)))
        if held is None or held.outcome is not None or held.fingerprint != claim.fingerprint:
            raise claim_lost()

    def put_outcome(self, tenant: str, key: str, outcome: str) -> None:
        """``settle``, within what is made."""
        place = (tenant, digest_of(key))
        if place in self._receipts:
            receipt = msgspec.structs.replace(self._receipts[place], outcome=outcome)
            self._receipts[place] = receipt


def sweep_receipts(batch: Batch, now: float) -> None:
    """Erase the receipts that are too old at ``now``."""
    batch.connection.execute(RECEIPTS["sweep"], (now - LIFETIME,))


def _claim(
    batch: Batch, tenant: str, digest: bytes, fingerprint: bytes, now: float
) -> Receipt | None:
    sweep_receipts(batch, now)
    execute = batch.connection.execute
    execute(RECEIPTS["forget"], (tenant, digest, now - UNSETTLED))
    if execute(RECEIPTS["claim"], (tenant, digest, fingerprint, now)).rowcount:
        return None
    ((kept, created_at, outcome),) = execute(RECEIPTS["read"], (tenant, digest)).fetchall()
    return Receipt(kept, created_at, outcome)


def _settle(batch: Batch, tenant: str, key: str, outcome: str) -> None:
    settle(batch.connection, tenant, key, outcome)


def _drop(batch: Batch, tenant: str, digest: bytes) -> None:
    batch.connection.execute(RECEIPTS["drop"], (tenant, digest))
