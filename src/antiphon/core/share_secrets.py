"""Share secrets: what a shared link is opened with, and the SHA-256 that is stored of it.

A secret is 256 random bits: whoever has the link may read, and nobody can guess one.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re

_SECRET_PATTERN = re.compile(r"[A-Za-z0-9_-]{43}\Z")


def new_share_secret() -> str:
    """A new secret, which fits into a URL as it is."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


def new_share_id() -> str:
    """The name of a share, for lists and for revoking it; it opens nothing."""
    return "share_" + os.urandom(16).hex()


def hash_share_secret(secret: str) -> bytes | None:
    """A secret's SHA-256; None for what cannot be one."""
    return hashlib.sha256(secret.encode()).digest() if _SECRET_PATTERN.match(secret) else None
