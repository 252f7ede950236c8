"""Deferred completions: unstored turns of deferred requests, in memory until they are fetched.

They are held for an hour, or until their turn has ended, by the process that runs them; the other
nodes ask it. Stored deferred completions need none of this: they are fetched by the response's id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from antiphon.api.common.node_client import NodeClient, Operation
from antiphon.core.turns import Response
from antiphon.errors import RateLimitError
from antiphon.turn.running_turns import RunningTurn

#: Seconds.
_RETENTION_SECONDS = 3600.0
#: How many are held for one tenant. Its own older one makes room for a newer one.
_MAX_PER_TENANT = 200
#: How many of a tenant's are remembered as expired.
_MAX_EXPIRED_IDS = 1000
_PREFIX: Final = "deferred_"
_OPERATION: Final = "deferred_completion"


class DeferredCompletion(msgspec.Struct, frozen=True):
    """The turns of one request."""

    turns: tuple[RunningTurn, ...]
    created_at: float

    @property
    def is_done(self) -> bool:
        return all(turn.done() for turn in self.turns)


class DeferredResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of a request: the ends of its turns, once there are all of them."""

    is_expired: bool = False
    responses: tuple[Response, ...] = ()

    @property
    def is_pending(self) -> bool:
        return not self.is_expired and not self.responses


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DeferredResult).decode


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
    """Deferred completions that are not stored. ``nodes`` None: no other process has any."""

    def __init__(
        self, nodes: NodeClient | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nodes = nodes
        self._clock = clock
        self._by_tenant: dict[str, _TenantCompletions] = {}

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask this one, by name."""
        return {_OPERATION: self._find_for_other}

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
        name = _PREFIX + os.urandom(16).hex()
        self._tenant_completions(tenant).completions[name] = DeferredCompletion(
            tuple(turns), self._clock()
        )
        return name

    async def find(self, tenant: str, name: str) -> DeferredResult | None:
        """A tenant's own, whichever node runs it; None: there is none. Raises what kept nothing."""
        if not name.startswith(_PREFIX):
            return None
        found = await self.find_here(tenant, name)
        if found is None and self._nodes is not None:
            answers = await self._nodes.call_all(_OPERATION, tenant=tenant, name=name)
            for result in (one["result"] for one in answers):
                if result is not None:
                    return _decode(result)
        return found

    async def find_here(self, tenant: str, name: str) -> DeferredResult | None:
        """A tenant's own of this process."""
        tenant_completions = self._tenant_completions(tenant)
        if name in tenant_completions.expired_ids:
            return DeferredResult(is_expired=True)
        completion = tenant_completions.completions.get(name)
        if completion is None:
            return None
        if not completion.is_done:
            return DeferredResult()
        return DeferredResult(responses=tuple([await one.result() for one in completion.turns]))

    async def _find_for_other(self, fields: dict[str, Any]) -> dict[str, Any]:
        found = await self.find_here(fields["tenant"], fields["name"])
        return {"result": None if found is None else _encode(found).decode()}

    def _tenant_completions(self, tenant: str) -> _TenantCompletions:
        tenant_completions = self._by_tenant.setdefault(tenant, _TenantCompletions())
        before = self._clock() - _RETENTION_SECONDS
        for name, one in list(tenant_completions.completions.items()):
            if one.created_at > before:
                break
            if one.is_done:
                tenant_completions.expire(name)
        return tenant_completions
