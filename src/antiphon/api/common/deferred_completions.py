"""Deferred completions: unstored turns of deferred requests, in memory until they are fetched.

They are held for an hour, or until their turn has ended, by one process only. Stored deferred
completions need none of this: they are fetched by the response's id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import msgspec

from antiphon.errors import RateLimitError
from antiphon.turn.running_turns import RunningTurn

#: Seconds.
_RETENTION_SECONDS = 3600.0
#: How many are held for one tenant. Its own older one makes room for a newer one.
_MAX_PER_TENANT = 200
#: How many of a tenant's are remembered as expired.
_MAX_EXPIRED_IDS = 1000


class DeferredCompletion(msgspec.Struct, frozen=True):
    """The turns of one request."""

    turns: tuple[RunningTurn, ...]
    created_at: float

    @property
    def is_done(self) -> bool:
        return all(turn.done() for turn in self.turns)


class _TenantCompletions:
    """A tenant's, by request id, the oldest first."""

    def __init__(self) -> None:
        self.completions: dict[str, DeferredCompletion] = {}
        self.expired_ids: dict[str, None] = {}

    def expire(self, name: str) -> None:
        del self.completions[name]
        self.expired_ids[name] = None
        if len(self.expired_ids) > _MAX_EXPIRED_IDS:
            del self.expired_ids[next(iter(self.expired_ids))]


class DeferredCompletions:
    """Deferred completions that are not stored."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_tenant: dict[str, _TenantCompletions] = {}

    def ensure_capacity(self, tenant: str) -> None:
        """To be asked before turns are started. Raises ``RateLimitError``."""
        tenant_completions = self._tenant_completions(tenant)
        while len(tenant_completions.completions) >= _MAX_PER_TENANT:
            done = next(
                (name for name, one in tenant_completions.completions.items() if one.is_done), None
            )
            if done is None:
                raise RateLimitError(
                    f"There may be {_MAX_PER_TENANT} deferred completions under way: wait until"
                    " one is over.",
                    retry_after=1,
                )
            tenant_completions.expire(done)

    def add(self, tenant: str, turns: Sequence[RunningTurn]) -> str:
        """Hold turns; the id that they are asked for by."""
        name = "deferred_" + os.urandom(16).hex()
        self._tenant_completions(tenant).completions[name] = DeferredCompletion(
            tuple(turns), self._clock()
        )
        return name

    def get(self, tenant: str, name: str) -> DeferredCompletion | None:
        """A tenant's own; None: there is none, or no more."""
        return self._tenant_completions(tenant).completions.get(name)

    def is_expired(self, tenant: str, name: str) -> bool:
        """Whether it was held long enough."""
        return name in self._tenant_completions(tenant).expired_ids

    def _tenant_completions(self, tenant: str) -> _TenantCompletions:
        tenant_completions = self._by_tenant.setdefault(tenant, _TenantCompletions())
        before = self._clock() - _RETENTION_SECONDS
        for name, one in list(tenant_completions.completions.items()):
            if one.created_at > before:
                break
            if one.is_done:
                tenant_completions.expire(name)
        return tenant_completions
