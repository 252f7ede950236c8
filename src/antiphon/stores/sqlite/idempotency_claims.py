"""Claims: the receipt of a request is settled in the transaction that keeps what it made.

So no crash comes in between: what is there was noted, and what was noted is there.
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Final

from antiphon.core.turns import Claim
from antiphon.stores.sqlite.errors import claim_lost
from antiphon.stores.sqlite.queries import named, read_sql

RECEIPTS: Final = named(read_sql("idempotency.sql"))


def digest_of(key: str) -> bytes:
    """What an idempotency key is kept as."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def check_claimed(connection: sqlite3.Connection, tenant: str, claim: Claim) -> None:
    """Raise ``Conflict`` where the receipt is another request's by now, or settled."""
    place = (tenant, digest_of(claim.key), claim.fingerprint)
    if not connection.execute(RECEIPTS["claimed"], place).fetchall():
        raise claim_lost()


def settle(connection: sqlite3.Connection, tenant: str, key: str, outcome: str) -> None:
    """Say what came of it."""
    connection.execute(RECEIPTS["settle"], (outcome, tenant, digest_of(key)))
