"""API keys: their format, and the SHA-256 that is stored of them.

A key is ``ap_`` and 256 random bits in base32, so that it is selected by a double click,
and found by those who look for keys that got into the open. Only its SHA-256 is kept: with
that many random bits, nobody gets from there to the key.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re

#: What any key may do, in the words of xAI's API.
ALL_ACLS = ("api-key:endpoint:*", "api-key:model:*")

_KEY_PATTERN = re.compile(rb"ap_[a-z2-7]{52}\Z")
_TENANT_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}\Z")


def new_api_key() -> str:
    """A new key."""
    return "ap_" + base64.b32encode(os.urandom(32)).decode().rstrip("=").lower()


def new_api_key_id() -> str:
    """The name of a key, for lists and for revoking it; it opens nothing."""
    return "key_" + os.urandom(8).hex()


def hash_api_key(key: bytes) -> bytes | None:
    """A key's SHA-256; None for what cannot be a key."""
    # Comparing hashes needs no constant time: how long it takes to find one tells
    # nothing about a key that has it.
    return hashlib.sha256(key).digest() if _KEY_PATTERN.match(key) else None


def redact_api_key(key: bytes) -> str:
    """A key as its owner knows it again, and nobody else can use it."""
    shown = key.decode("ascii", errors="replace")
    return f"{shown[:3]}...{shown[-4:]}"


def is_tenant_name(name: str) -> bool:
    """Whether a tenant may be called so: a word, a domain or an address of ASCII letters."""
    return _TENANT_PATTERN.match(name) is not None
