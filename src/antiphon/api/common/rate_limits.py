"""How much one key may ask for: requests a minute, and turns at once.

Each process counts for itself: of two servers on one store, each lets a key have as much.
Requests fill up evenly: after a pause a key may use a whole minute's worth at once.
A turn counts from the request that asks for it until both are over, so that neither a
turn in the background nor one whose reader left makes room before its time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeAlias

from antiphon.api.common.body import Scope
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import RateLimitError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.store_protocols import ApiKey

Clock: TypeAlias = Callable[[], float]

_ACCOUNT = "antiphon.account"
_MINUTE = 60.0


class Allowance(Protocol):
    """How much. None: as much as they like."""

    @property
    def requests_per_minute(self) -> int | None: ...

    @property
    def concurrent_turns(self) -> int | None: ...


class Account:
    """What one key has used."""

    __slots__ = ("_clock", "_left", "_offset", "allowance", "turns")

    def __init__(self, allowance: Allowance, clock: Clock) -> None:
        self.allowance = allowance
        #: Turns that run now.
        self.turns = 0
        self._clock = clock
        self._at = clock()
        self._left = float(allowance.requests_per_minute or 0)

    def spend(self) -> None:
        """Count a request. Raises ``RateLimitError``."""
        per_minute = self.allowance.requests_per_minute
        if per_minute is None:
            return
        now = self._clock()
        filled = (now - self._at) * per_minute / _MINUTE
        self._left, self._at = min(per_minute, self._left + filled), now
        if self._left < 1:
            wait = (1 - self._left) * _MINUTE / per_minute
            raise RateLimitError(
                f"This key may make {per_minute} requests a minute: try again in"
                f" {math.ceil(wait)} s.",
                retry_after=wait,
            )
        self._left -= 1

    def headers(self) -> list[tuple[bytes, bytes]]:
        """How things stand, in the names that OpenAI's clients know."""
        per_minute = self.allowance.requests_per_minute
        if per_minute is None:
            return []
        missing = (per_minute - self._left) * _MINUTE / per_minute
        return [
            (b"x-ratelimit-limit-requests", b"%d" % per_minute),
            (b"x-ratelimit-remaining-requests", b"%d" % self._left),
            (b"x-ratelimit-reset-requests", b"%.3fs" % missing),
        ]


class Place:
    """A turn's place among those of its key: kept by its request and by the turn itself.

    A context, within which one turn may be started.
    """

    __slots__ = ("_account", "_before", "_holders")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._holders = 0

    def __enter__(self) -> None:
        account = self._account
        most = account.allowance.concurrent_turns
        if most is not None and account.turns >= most:
            raise RateLimitError(
                f"This key may have {most} turns running at once: wait until one is over.",
                retry_after=1,
            )
        account.turns += 1
        self._holders = 1
        self._before = _place.set(self)

    def __exit__(self, *_: object) -> None:
        _place.reset(self._before)
        self.leave()

    def hold(self) -> None:
        self._holders += 1

    def leave(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._account.turns -= 1


#: The place that the work in this context has. A turn's task inherits it.
_place: ContextVar[Place | None] = ContextVar("antiphon_place", default=None)


class Limiter:
    """The accounts of all keys. To be told of turns (``TurnService.watch_tools``)."""

    def __init__(
        self, allowance_of: Callable[[str], Allowance], clock: Clock = time.monotonic
    ) -> None:
        self._allowance_of = allowance_of
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    def account(self, key: ApiKey | None) -> Account:
        """A key's account; without keys, all share one."""
        name, tenant = (key.id, key.tenant) if key else ("", DEFAULT_TENANT)
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(self._allowance_of(tenant), self._clock)
        return account

    def began(self, turn: RunningTurn) -> None:
        if place := _place.get():
            place.hold()

    def over(self, turn: RunningTurn) -> None:
        if place := _place.get():
            place.leave()


def put_account(scope: Scope, account: Account) -> None:
    """Say whose account a request is on."""
    scope[_ACCOUNT] = account
    # The task of a request that waited behind another inherits what that one had.
    _place.set(None)


def place_of(scope: Scope) -> AbstractContextManager[None]:
    """A place for one turn. To enter it raises ``RateLimitError``."""
    account: Account | None = scope.get(_ACCOUNT)
    return nullcontext() if account is None else Place(account)
