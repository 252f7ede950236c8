"""Feed protocols: what changes in a store, in order, for those who follow along.

A change has ids, never words. Its cursor is its place in the order: whoever knows it can continue
behind it, in any process that shares the store, until the change is too old.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from antiphon.core.turns import TurnStatus

#: ``feed.reset``: what was asked for is too old, or not of this store; read everything anew.
ChangeType: TypeAlias = Literal[
    "turn.started",
    "turn.ended",
    "turn.waiting",
    "turn.erased",
    "chat.updated",
    "chat.erased",
    "conversation.created",
    "conversation.updated",
    "conversation.moved",
    "conversation.erased",
    "feed.reset",
]


class Change(msgspec.Struct, frozen=True):
    """One change; ``at`` is when. ``cascade``: the descendants of the turn were erased too."""

    cursor: str
    type: ChangeType
    at: float
    chat_id: str | None = None
    response_id: str | None = None
    conversation: str | None = None
    status: TurnStatus | None = None
    cascade: bool = False


class ChangeReader(Protocol):
    """The changes of one tenant from some point on.

    ``cursor`` is where the reader is now: behind all that it was given, and behind what others'
    changes there were.
    """

    @property
    def cursor(self) -> str: ...

    def __aiter__(self) -> AsyncIterator[Sequence[Change]]:
        """The changes as they come, until the reader or its feed is closed."""
        ...

    def close(self) -> None:
        """End it. Safe to call twice."""
        ...


class ChangeFeed(Protocol):
    """The changes of all tenants."""

    async def cursor(self) -> str:
        """Where the feed is now: behind it is what has not changed yet."""
        ...

    async def subscribe(self, tenant: str, after: str | None = None) -> ChangeReader:
        """The changes behind a cursor, None: those from now on.

        A cursor that is unknown or too old gives ``feed.reset`` first. Where readers were closed
        (``close_readers``) there are no changes any more.
        """
        ...

    def close_readers(self) -> None:
        """End all readers, and whoever comes later at once: the server stops."""
        ...
