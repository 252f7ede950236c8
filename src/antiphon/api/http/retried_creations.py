"""Retried creations: what a request without a turn creates, created once however often it comes.

A request with an ``Idempotency-Key`` is known by it. Of one without, a client's own retry gets what
the first try has created, if its client left before it had the answer, or still creates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Scope

from antiphon.api.common.authentication import tenant_of
from antiphon.api.http.asgi_responses import WRITER, ChunkWriter
from antiphon.api.http.departed_clients import DepartedClients, digest_request, is_retry
from antiphon.api.http.idempotency import IdempotencyKeys
from antiphon.core.turns import IdempotencyReservation
from antiphon.errors import NotFoundError

T = TypeVar("T")


class RetriedCreations:
    """The creations of one kind of endpoints."""

    def __init__(self, idempotency_keys: IdempotencyKeys) -> None:
        self._keys = idempotency_keys
        self._departed = DepartedClients(idempotency_keys.store)
        #: The ids of what is being created, by the digests of the requests.
        self._running: dict[bytes, asyncio.Future[str]] = {}

    async def run_once(
        self,
        scope: Scope,
        body: bytes,
        create: Callable[[IdempotencyReservation | None], Awaitable[T]],
        replay: Callable[[str], Awaitable[T]],
        id_of: Callable[[T], str],
    ) -> T:
        """What a request creates; ``replay`` reads what the first one has created by its id."""
        request = self._keys.for_request(scope, body)
        if request is not None:
            return await request.run_once(create, replay)
        tenant = tenant_of(scope)
        digest = digest_request(tenant, body, scope["path"])
        if is_retry(scope):
            created = await self._find(tenant, digest, replay)
            if created is not None:
                return created
        created = await self._create(digest, create, id_of)
        writer: ChunkWriter | None = scope.get(WRITER)
        if writer is not None and writer.is_abandoned:
            await self._departed.remember(tenant, digest, id_of(created))
        return created

    async def _create(
        self,
        digest: bytes,
        create: Callable[[IdempotencyReservation | None], Awaitable[T]],
        id_of: Callable[[T], str],
    ) -> T:
        running = self._running[digest] = asyncio.get_running_loop().create_future()
        try:
            created = await create(None)
            running.set_result(id_of(created))
        finally:
            # Of several at once the newest one is found; where it failed, nothing is.
            if self._running.get(digest) is running:
                del self._running[digest]
            running.cancel()
        return created

    async def _find(
        self, tenant: str, digest: bytes, replay: Callable[[str], Awaitable[T]]
    ) -> T | None:
        """What the first try of a request has created; None: nothing that is still there."""
        if (running := self._running.get(digest)) is not None:
            await asyncio.wait([running])
            if not running.cancelled():
                result_id = running.result()
                await self._departed.take(tenant, digest, result_id)
                return await self._read(result_id, replay)
        for result_id in self._departed.results(digest):
            await self._departed.take(tenant, digest, result_id)
            if (found := await self._read(result_id, replay)) is not None:
                return found
        async for result_id in self._departed.take_recorded(tenant, digest):
            if (found := await self._read(result_id, replay)) is not None:
                return found
        return None

    async def _read(self, result_id: str, replay: Callable[[str], Awaitable[T]]) -> T | None:
        try:
            return await replay(result_id)
        except NotFoundError:
            # It was deleted meanwhile.
            return None
