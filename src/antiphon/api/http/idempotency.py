"""Idempotency: ``Idempotency-Key``; a repeated request gets the first one's result.

A record is reserved before the request is executed, and completed in the transaction that stores
the result. A process that dies in between leaves a reservation without a result, which another
request takes over (``IdempotencyStore.reserve``).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from starlette.types import Scope

from antiphon.api.common.authentication import tenant_of
from antiphon.core.turns import IdempotencyReservation
from antiphon.errors import ConflictError, IdempotencyConflictError, InvalidRequestError
from antiphon.turn.store_protocols import IdempotencyStore

T = TypeVar("T")

_HEADER = b"idempotency-key"
#: How many characters a key may have.
MAX_KEY_LENGTH = 255
#: Seconds between two looks at a request that another process is starting.
_POLL_INTERVAL = 0.1
#: Seconds for which a request waits until the first one with its key was started.
_START_TIMEOUT = 10.0


class IdempotencyKeys:
    """The requests with keys. ``timeout`` is in seconds."""

    def __init__(self, store: IdempotencyStore, timeout: float = _START_TIMEOUT) -> None:
        self.store = store
        self.timeout = timeout
        #: Requests that are being started here, by tenant and key: done when they were.
        self.starting: dict[tuple[str, str], asyncio.Future[None]] = {}

    def for_request(self, scope: Scope, body: bytes) -> IdempotentRequest | None:
        """One request; None: it has no key. Raises ``InvalidRequestError``."""
        key: bytes | None = dict(scope["headers"]).get(_HEADER)
        if key is None:
            return None
        # The parser leaves the spaces behind a value, which are no part of it.
        key = key.strip()
        if not 0 < len(key) <= MAX_KEY_LENGTH:
            raise InvalidRequestError(
                f"An Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters.",
                param="Idempotency-Key",
            )
        digest = hashlib.sha256(b"%b %b\n" % (scope["path"].encode(), scope["method"].encode()))
        digest.update(body)
        return IdempotentRequest(self, (tenant_of(scope), key.decode("latin-1")), digest.digest())

    async def run_once(
        self,
        scope: Scope,
        body: bytes,
        execute: Callable[[IdempotencyReservation | None], Awaitable[T]],
        replay: Callable[[str], Awaitable[T]],
    ) -> T:
        """A request's result; ``replay`` reads that of the first one by its id."""
        request = self.for_request(scope, body)
        if request is None:
            return await execute(None)
        return await request.run_once(execute, replay)


class IdempotentRequest:
    """One request with a key, to be entered before it is executed.

    ``result_id`` is then that of the first request with the key. None: this is the first, and
    ``reservation`` must be passed on to the write that stores its result. Entering raises
    ``IdempotencyConflictError`` where the key was used for another request, and ``ConflictError``
    where the first one is still being executed.
    """

    def __init__(
        self, keys: IdempotencyKeys, record_key: tuple[str, str], fingerprint: bytes
    ) -> None:
        self.result_id: str | None = None
        self.reservation = IdempotencyReservation(record_key[1], fingerprint)
        self._keys = keys
        self._record_key = record_key
        self._start_future: asyncio.Future[None] | None = None

    async def complete(self, result_id: str) -> None:
        """Store the result of a request whose write did not take the reservation."""
        await self._keys.store.complete(*self._record_key, result_id)

    async def run_once(
        self,
        execute: Callable[[IdempotencyReservation | None], Awaitable[T]],
        replay: Callable[[str], Awaitable[T]],
    ) -> T:
        """The result; ``replay`` reads that of the first request by its id."""
        async with self:
            if self.result_id is not None:
                return await replay(self.result_id)
            return await execute(self.reservation)

    async def __aenter__(self) -> Self:
        deadline = time.monotonic() + self._keys.timeout
        while not await self._try_reserve():
            if time.monotonic() > deadline:
                raise ConflictError(
                    "The first request with this Idempotency-Key is still being started.",
                    code="idempotency_key_in_progress",
                    param="Idempotency-Key",
                )
            first = self._keys.starting.get(self._record_key)
            if first is not None:
                await asyncio.wait([first], timeout=deadline - time.monotonic())
            else:
                await asyncio.sleep(_POLL_INTERVAL)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._start_future is None:
            return
        try:
            if error is not None:
                # Also where the server is being stopped: no request shall wait for this one.
                # A result that was stored all the same has completed the record: it stays.
                await asyncio.shield(self._keys.store.release(*self._record_key))
        finally:
            self._finish_start()

    async def _try_reserve(self) -> bool:
        """Whether the request was reserved here, or has a result already."""
        starting, store = self._keys.starting, self._keys.store
        if self._record_key in starting:
            # However long that takes: it is a request of this process.
            return False
        self._start_future = starting[self._record_key] = asyncio.get_running_loop().create_future()
        record = None
        try:
            record = await store.reserve(*self._record_key, self.reservation.fingerprint)
        except BaseException:
            self._finish_start()
            raise
        if record is None:
            return True
        self._finish_start()
        if record.fingerprint != self.reservation.fingerprint:
            raise IdempotencyConflictError(
                "This Idempotency-Key was used for another request.", param="Idempotency-Key"
            )
        self.result_id = record.result_id
        return self.result_id is not None

    def _finish_start(self) -> None:
        if self._start_future is not None:
            self._keys.starting.pop(self._record_key, None)
            self._start_future.set_result(None)
            self._start_future = None
