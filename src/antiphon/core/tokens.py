"""Tokens: the pieces that a model cuts a text into."""

from __future__ import annotations

import msgspec


class Token(msgspec.Struct, frozen=True):
    """A piece of a text. A character of several bytes may be cut into several."""

    id: int
    data: bytes
