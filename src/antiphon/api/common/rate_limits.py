"""Rate limits: a token bucket of requests a minute and a semaphore of concurrent turns for each
key.

Each process counts for itself. The bucket refills evenly: after a pause a key may use a whole
minute's requests at once. A turn holds its slot until both it and its request have ended, so that
neither a background turn nor one whose reader left frees its slot too early.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeAlias

from starlette.types import Scope

from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import RateLimitError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.store_protocols import ApiKey

Clock: TypeAlias = Callable[[], float]

_KEY_USAGE = "antiphon.account"
_MINUTE = 60.0


class RateLimit(Protocol):
    """The limits of one key. None: unlimited."""

    @property
    def requests_per_minute(self) -> int | None: ...

    @property
    def concurrent_turns(self) -> int | None: ...


class KeyUsage:
    """The usage of one key: its token bucket and its running turns."""

    __slots__ = ("_clock", "_refilled_at", "_remaining", "rate_limit", "running_turns")

    def __init__(self, rate_limit: RateLimit, clock: Clock) -> None:
        self.rate_limit = rate_limit
        #: Turns that run now.
        self.running_turns = 0
        self._clock = clock
        self._refilled_at = clock()
        self._remaining = float(rate_limit.requests_per_minute or 0)

    def consume(self) -> None:
        """Count a request. Raises ``RateLimitError``."""
        per_minute = self.rate_limit.requests_per_minute
        if per_minute is None:
            return
        now = self._clock()
        filled = (now - self._refilled_at) * per_minute / _MINUTE
        self._remaining, self._refilled_at = min(per_minute, self._remaining + filled), now
        if self._remaining < 1:
            wait = (1 - self._remaining) * _MINUTE / per_minute
            raise RateLimitError(
                f"This key may make {per_minute} requests a minute: try again in"
                f" {math.ceil(wait)} s.",
                retry_after=wait,
            )
        self._remaining -= 1

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The state of the bucket as headers, with the names that OpenAI's clients know."""
        per_minute = self.rate_limit.requests_per_minute
        if per_minute is None:
            return []
        missing = (per_minute - self._remaining) * _MINUTE / per_minute
        return [
            (b"x-ratelimit-limit-requests", b"%d" % per_minute),
            (b"x-ratelimit-remaining-requests", b"%d" % self._remaining),
            (b"x-ratelimit-reset-requests", b"%.3fs" % missing),
        ]


class ConcurrencySlot:
    """Concurrency slot: a permit for one running turn of a key, held by its request and the turn.

    A context, within which one turn may be started.
    """

    __slots__ = ("_holders", "_reset_token", "_usage")

    def __init__(self, usage: KeyUsage) -> None:
        self._usage = usage
        self._holders = 0

    def __enter__(self) -> None:
        usage = self._usage
        limit = usage.rate_limit.concurrent_turns
        if limit is not None and usage.running_turns >= limit:
            raise RateLimitError(
                f"This key may have {limit} turns running at once: wait until one is over.",
                retry_after=1,
            )
        usage.running_turns += 1
        self._holders = 1
        self._reset_token = _current_slot.set(self)

    def __exit__(self, *_: object) -> None:
        _current_slot.reset(self._reset_token)
        self.release()

    def acquire(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._usage.running_turns -= 1


#: The slot of this context. A turn's task inherits it.
_current_slot: ContextVar[ConcurrencySlot | None] = ContextVar("antiphon_place", default=None)


class RateLimiter:
    """The usage of all keys. It observes turns (``TurnService.add_observer``)."""

    def __init__(
        self, rate_limit_for: Callable[[str], RateLimit], clock: Clock = time.monotonic
    ) -> None:
        self._rate_limit_for = rate_limit_for
        self._clock = clock
        self._usage_by_key: dict[str, KeyUsage] = {}

    def usage_for(self, key: ApiKey | None) -> KeyUsage:
        """The usage of a key; without keys, all requests share one."""
        name, tenant = (key.id, key.tenant) if key else ("", DEFAULT_TENANT)
        usage = self._usage_by_key.get(name)
        if usage is None:
            usage = self._usage_by_key[name] = KeyUsage(self._rate_limit_for(tenant), self._clock)
        return usage

    def turn_started(self, turn: RunningTurn) -> None:
        if slot := _current_slot.get():
            slot.acquire()

    def turn_ended(self, turn: RunningTurn) -> None:
        if slot := _current_slot.get():
            slot.release()


def set_key_usage(scope: Scope, usage: KeyUsage) -> None:
    """Set the key usage of a request."""
    scope[_KEY_USAGE] = usage
    # The task of a request that waited behind another inherits what that one had.
    _current_slot.set(None)


def concurrency_slot(scope: Scope) -> AbstractContextManager[None]:
    """A slot for one turn. Entering it raises ``RateLimitError``."""
    usage: KeyUsage | None = scope.get(_KEY_USAGE)
    return nullcontext() if usage is None else ConcurrencySlot(usage)
