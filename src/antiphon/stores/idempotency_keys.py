"""Idempotency keys: how every store keeps them, and for how long.

A key is stored as its hash: 32 bytes, whatever a client puts into it, and no words of its.
"""

from __future__ import annotations

import hashlib
from typing import Final

from antiphon.core.retention import DAY_SECONDS

#: Seconds that the record of a key is stored.
RECORD_LIFETIME: Final = DAY_SECONDS
#: Seconds after which a living process's reservation without a result may be taken over: its
#: request is no longer waited for.
RESERVATION_TIMEOUT: Final = 60.0


def hash_idempotency_key(key: str) -> bytes:
    """The SHA-256 that an idempotency key is stored as, whatever its length.

    Headers may hold halves of characters, which are part of the key like any other.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
