"""A conversation: a named head over a chain, as it is kept."""

from __future__ import annotations

import msgspec


class Conversation(msgspec.Struct, frozen=True):
    """A named head over a chain.

    ``head`` is the newest response that counts, None: nothing was said yet. ``busy`` is the
    newest turn that was begun on it, or None: until that turn has ended well, ``head``
    stays (``turn.store_protocols``).
    """

    id: str
    created_at: float
    metadata: dict[str, str] = {}
    head: str | None = None
    busy: str | None = None
