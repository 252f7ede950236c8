"""Answers that nobody waits for, and that nothing keeps: held here until they are fetched.

One server process holds them, for an hour after they were asked for or until their turn is
over, and none survives it. Deferred completions that are stored need nothing of this: they
are asked for by the response's id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import msgspec

from antiphon.errors import RateLimitError
from antiphon.turn.running_turns import RunningTurn

#: Seconds.
_KEPT = 3600.0
#: How many are held for one tenant. Its own older one makes room for a newer one.
_MOST = 200
#: How many of a tenant's are remembered as expired.
_REMEMBERED = 1000


class Deferred(msgspec.Struct, frozen=True):
    """The turns of one request."""

    turns: tuple[RunningTurn, ...]
    since: float

    @property
    def done(self) -> bool:
        return all(turn.done() for turn in self.turns)


class _Shelf:
    """A tenant's, by request id, the oldest first."""

    def __init__(self) -> None:
        self.held: dict[str, Deferred] = {}
        self.expired: dict[str, None] = {}

    def drop(self, name: str) -> None:
        del self.held[name]
        self.expired[name] = None
        if len(self.expired) > _REMEMBERED:
            del self.expired[next(iter(self.expired))]


class Results:
    """Deferred completions that are not stored."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}

    def make_room(self, tenant: str) -> None:
        """To be asked before turns are started. Raises ``RateLimitError``."""
        shelf = self._shelf(tenant)
        while len(shelf.held) >= _MOST:
            done = next((name for name, one in shelf.held.items() if one.done), None)
            if done is None:
                raise RateLimitError(
                    f"There may be {_MOST} deferred completions under way: wait until one is over.",
                    retry_after=1,
                )
            shelf.drop(done)

    def add(self, tenant: str, turns: Sequence[RunningTurn]) -> str:
        """Hold turns; the id that they are asked for by."""
        name = "deferred_" + os.urandom(16).hex()
        self._shelf(tenant).held[name] = Deferred(tuple(turns), self._clock())
        return name

    def find(self, tenant: str, name: str) -> Deferred | None:
        """A tenant's own; None: there is none, or no more."""
        return self._shelf(tenant).held.get(name)

    def is_expired(self, tenant: str, name: str) -> bool:
        """Whether it was held long enough."""
        return name in self._shelf(tenant).expired

    def _shelf(self, tenant: str) -> _Shelf:
        shelf = self._shelves.setdefault(tenant, _Shelf())
        before = self._clock() - _KEPT
        for name, one in list(shelf.held.items()):
            if one.since > before:
                break
            if one.done:
                shelf.drop(name)
        return shelf
