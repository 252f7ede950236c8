"""Rate limits: a token bucket of requests a minute and a semaphore of concurrent turns for each
key.

One node counts for each key (``shared_limits.py``). The bucket refills evenly: after a pause a key
may use a whole minute's requests at once. A turn holds its slot until both it and its request have
ended, so that neither a background turn nor one whose reader left frees its slot too early.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias

from starlette.types import Scope

from antiphon.api.common.node_client import Operation
from antiphon.api.common.shared_limits import RemoteTurns, SharedLimits
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

    __slots__ = (
        "_clock",
        "_key",
        "_refilled_at",
        "_remaining",
        "_shared",
        "_tenant",
        "rate_limit",
        "remote_turns",
        "running_turns",
    )

    def __init__(
        self,
        rate_limit: RateLimit,
        clock: Clock,
        key: str = "",
        tenant: str = DEFAULT_TENANT,
        shared: SharedLimits | None = None,
    ) -> None:
        self.rate_limit = rate_limit
        #: What other nodes have reported, where this one owns the key.
        self.remote_turns = RemoteTurns()
        self._key = key
        self._tenant = tenant
        self._shared = shared
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

    async def count_request(self, add_header: Callable[[bytes, bytes], None]) -> None:
        """Count a request where the key's owner is. Raises ``RateLimitError``.

        ``add_header`` gets the headers of the rate limit, also then.
        """
        shared = self._shared
        if shared is not None and self.rate_limit.requests_per_minute is not None:
            owner = await shared.owner_of(self._key)
            if owner and (answer := await shared.consume(owner, self._key, self._tenant)):
                headers, refusal = answer
                for name, value in headers:
                    add_header(name, value)
                if refusal is not None:
                    raise refusal
                return
        try:
            self.consume()
        finally:
            for name, value in self.headers():
                add_header(name, value)

    async def acquire(self) -> None:
        """Count one more running turn. Raises ``RateLimitError``."""
        limit, shared = self.rate_limit.concurrent_turns, self._shared
        if limit is None:
            self.running_turns += 1
            return
        owner = None if shared is None else await shared.owner_of(self._key)
        elsewhere = 0 if shared is None or owner else self.remote_turns.total(shared.live_ids)
        if self.running_turns + elsewhere >= limit:
            raise _too_many_turns(limit)
        self.running_turns += 1
        if shared is None or owner is None:
            return
        is_granted = False
        try:
            is_granted = await shared.acquire(owner, self._key, self._tenant, self.running_turns)
        finally:
            if not is_granted:
                self.running_turns -= 1
        if not is_granted:
            raise _too_many_turns(limit)

    def release(self) -> None:
        """Count one running turn less."""
        self.running_turns -= 1
        if self.rate_limit.concurrent_turns is not None and self._shared and self._shared.live_ids:
            self._shared.report(self._key, self._tenant, self.running_turns)

    def grant(self, node: str, count: int, number: int) -> bool:
        """Whether another node may run one more turn, which makes its turns ``count``."""
        limit = self.rate_limit.concurrent_turns
        live = self._shared.live_ids if self._shared is not None else ()
        elsewhere = self.running_turns + self.remote_turns.total(live, but=node)
        if limit is not None and elsewhere + count > limit:
            return False
        self.remote_turns.report(node, count, number)
        return True

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


def _too_many_turns(limit: int) -> RateLimitError:
    return RateLimitError(
        f"This key may have {limit} turns running at once: wait until one is over.",
        retry_after=1,
    )


class ConcurrencySlot:
    """Concurrency slot: a permit for one running turn of a key, held by its request and the turn.

    A context, within which one turn may be started.
    """

    __slots__ = ("_holders", "_reset_token", "_usage")

    def __init__(self, usage: KeyUsage) -> None:
        self._usage = usage
        self._holders = 0

    async def __aenter__(self) -> None:
        await self._usage.acquire()
        self._holders = 1
        self._reset_token = _current_slot.set(self)

    async def __aexit__(self, *_: object) -> None:
        _current_slot.reset(self._reset_token)
        self.release()

    def acquire(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._usage.release()


#: The slot of this context. A turn's task inherits it.
_current_slot: ContextVar[ConcurrencySlot | None] = ContextVar("antiphon_place", default=None)


class RateLimiter:
    """The usage of all keys. It observes turns (``TurnService.add_observer``)."""

    def __init__(
        self,
        rate_limit_for: Callable[[str], RateLimit],
        clock: Clock = time.monotonic,
        shared: SharedLimits | None = None,
    ) -> None:
        self._rate_limit_for = rate_limit_for
        self._clock = clock
        self._shared = shared
        self._usage_by_key: dict[str, KeyUsage] = {}

    def usage_for(self, key: ApiKey | None) -> KeyUsage:
        """The usage of a key; without keys, all requests share one."""
        return self._usage_of(*((key.id, key.tenant) if key else ("", DEFAULT_TENANT)))

    def _usage_of(self, key: str, tenant: str) -> KeyUsage:
        usage = self._usage_by_key.get(key)
        if usage is None:
            usage = self._usage_by_key[key] = KeyUsage(
                self._rate_limit_for(tenant), self._clock, key, tenant, self._shared
            )
        return usage

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask the owner of a key (``SharedLimits``), by name."""
        return {"consume": self._consume, "acquire": self._acquire, "release": self._release}

    async def _consume(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Count a request of another node."""
        usage = self._usage_of(fields["key"], fields["tenant"])
        message, retry_after = None, None
        try:
            usage.consume()
        except RateLimitError as refusal:
            message, retry_after = refusal.message, refusal.retry_after
        headers = [(name.decode(), value.decode()) for name, value in usage.headers()]
        return {"message": message, "retry_after": retry_after, "headers": headers}

    async def _acquire(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Count a turn that another node is about to run."""
        if self._shared is not None:
            await self._shared.owner_of(fields["key"])
        usage = self._usage_of(fields["key"], fields["tenant"])
        granted = usage.grant(fields["sender"], fields["count"], fields["number"])
        return {"is_granted": granted}

    async def _release(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Take note of how many turns another node runs."""
        usage = self._usage_of(fields["key"], fields["tenant"])
        usage.remote_turns.report(fields["sender"], fields["count"], fields["number"])
        return {}

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


def concurrency_slot(scope: Scope) -> AbstractAsyncContextManager[None]:
    """A slot for one turn. Entering it raises ``RateLimitError``."""
    usage: KeyUsage | None = scope.get(_KEY_USAGE)
    return nullcontext() if usage is None else ConcurrencySlot(usage)
