"""``Idempotency-Key``: the same request again gets the first one's response.

A receipt is written before the request is done, and says what came of it in the
transaction that keeps that. A process that dies in between leaves one that says nothing, and
nothing that was made; after a while such a key may be used again (``IdempotencyStore.claim``).
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
    """Which requests have been made before. ``timeout`` is in seconds."""

    def __init__(self, store: IdempotencyStore, timeout: float = _START_TIMEOUT) -> None:
        self.store = store
        self.timeout = timeout
        #: Requests that are being started here, by tenant and key: done when they were.
        self.starting: dict[tuple[str, str], asyncio.Future[None]] = {}

    def for_request(self, scope: Scope, body: bytes) -> IdempotentRequest | None:
        """One request; None: it has no key. Raises ``InvalidRequestError``."""
        for name, value in scope["headers"]:
            if name == _HEADER:
                if not 0 < len(value) <= MAX_KEY_LENGTH:
                    raise InvalidRequestError(
                        f"An Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters.",
                        param="Idempotency-Key",
                    )
                digest = hashlib.sha256(
                    b"%b %b\n" % (scope["path"].encode(), scope["method"].encode())
                )
                digest.update(body)
                return IdempotentRequest(
                    self, (tenant_of(scope), value.decode("latin-1")), digest.digest()
                )
        return None

    async def run_once(
        self,
        scope: Scope,
        body: bytes,
        execute: Callable[[IdempotencyReservation | None], Awaitable[T]],
        replay: Callable[[str], Awaitable[T]],
    ) -> T:
        """What a request makes; ``again`` finds what the same one made before, by its outcome."""
        repeat = self.for_request(scope, body)
        if repeat is None:
            return await execute(None)
        async with repeat:
            if repeat.outcome is not None:
                return await replay(repeat.outcome)
            return await execute(repeat.reservation)


class IdempotentRequest:
    """One request with a key, to be entered before anything is made of it.

    ``outcome`` is then what the same request made before, None: it is the first, and
    whatever it makes has to take ``claim`` along, which notes it. Entering raises
    ``IdempotencyConflictError`` where the key was used for another request, and ``ConflictError``
    where the first has not come to an end yet.
    """

    def __init__(
        self, keys: IdempotencyKeys, record_key: tuple[str, str], fingerprint: bytes
    ) -> None:
        self.outcome: str | None = None
        self.reservation = IdempotencyReservation(record_key[1], fingerprint)
        self._keys = keys
        self._record_key = record_key
        self._start_future: asyncio.Future[None] | None = None

    async def complete(self, outcome: str) -> None:
        """Note what came of the request, which did not take ``claim`` along."""
        await self._keys.store.complete(*self._record_key, outcome)

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
                # Also where the server is being stopped: nothing shall wait for this one.
                # What was made all the same has settled it, and then it stays.
                await asyncio.shield(self._keys.store.release(*self._record_key))
        finally:
            self._finish_start()

    async def _try_reserve(self) -> bool:
        """Whether there is nothing to wait for any more."""
        starting, receipts = self._keys.starting, self._keys.store
        if self._record_key in starting:
            # However long it takes: whoever started it lives.
            return False
        self._start_future = starting[self._record_key] = asyncio.get_running_loop().create_future()
        held = None
        try:
            held = await receipts.reserve(*self._record_key, self.reservation.fingerprint)
        except BaseException:
            self._finish_start()
            raise
        if held is None:
            return True
        self._finish_start()
        if held.fingerprint != self.reservation.fingerprint:
            raise IdempotencyConflictError(
                "This Idempotency-Key was used for another request.", param="Idempotency-Key"
            )
        self.outcome = held.result_id
        return self.outcome is not None

    def _finish_start(self) -> None:
        if self._start_future is not None:
            self._keys.starting.pop(self._record_key, None)
            self._start_future.set_result(None)
            self._start_future = None
