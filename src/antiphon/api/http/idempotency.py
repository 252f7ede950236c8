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

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import Scope
from antiphon.core.turns import IdempotencyReservation
from antiphon.errors import ConflictError, IdempotencyConflictError, InvalidRequestError
from antiphon.turn.store_protocols import IdempotencyStore

T = TypeVar("T")

_HEADER = b"idempotency-key"
#: How many characters a key may have.
LONGEST_KEY = 255
#: Seconds between two looks at a request that another process is starting.
_PAUSE = 0.1
#: Seconds for which a request waits until the first one with its key was started.
_PATIENCE = 10.0


class Repeats:
    """Which requests have been made before. ``patience`` is in seconds."""

    def __init__(self, receipts: IdempotencyStore, patience: float = _PATIENCE) -> None:
        self.receipts = receipts
        self.patience = patience
        #: Requests that are being started here, by tenant and key: done when they were.
        self.starting: dict[tuple[str, str], asyncio.Future[None]] = {}

    def of(self, scope: Scope, body: bytes) -> Repeat | None:
        """One request; None: it has no key. Raises ``InvalidRequestError``."""
        for name, value in scope["headers"]:
            if name == _HEADER:
                if not 0 < len(value) <= LONGEST_KEY:
                    raise InvalidRequestError(
                        f"An Idempotency-Key has 1 to {LONGEST_KEY} characters.",
                        param="Idempotency-Key",
                    )
                digest = hashlib.sha256(
                    b"%b %b\n" % (scope["path"].encode(), scope["method"].encode())
                )
                digest.update(body)
                return Repeat(self, (tenant_of(scope), value.decode("latin-1")), digest.digest())
        return None

    async def once(
        self,
        scope: Scope,
        body: bytes,
        make: Callable[[IdempotencyReservation | None], Awaitable[T]],
        again: Callable[[str], Awaitable[T]],
    ) -> T:
        """What a request makes; ``again`` finds what the same one made before, by its outcome."""
        repeat = self.of(scope, body)
        if repeat is None:
            return await make(None)
        async with repeat:
            if repeat.outcome is not None:
                return await again(repeat.outcome)
            return await make(repeat.claim)


class Repeat:
    """One request with a key, to be entered before anything is made of it.

    ``outcome`` is then what the same request made before, None: it is the first, and
    whatever it makes has to take ``claim`` along, which notes it. Entering raises
    ``IdempotencyConflictError`` where the key was used for another request, and ``ConflictError``
    where the first has not come to an end yet.
    """

    def __init__(self, repeats: Repeats, place: tuple[str, str], fingerprint: bytes) -> None:
        self.outcome: str | None = None
        self.claim = IdempotencyReservation(place[1], fingerprint)
        self._repeats = repeats
        self._place = place
        self._started: asyncio.Future[None] | None = None

    async def made(self, outcome: str) -> None:
        """Note what came of the request, which did not take ``claim`` along."""
        await self._repeats.receipts.complete(*self._place, outcome)

    async def __aenter__(self) -> Self:
        deadline = time.monotonic() + self._repeats.patience
        while not await self._is_ours_or_known():
            if time.monotonic() > deadline:
                raise ConflictError(
                    "The first request with this Idempotency-Key is still being started.",
                    code="idempotency_key_in_progress",
                    param="Idempotency-Key",
                )
            first = self._repeats.starting.get(self._place)
            if first is not None:
                await asyncio.wait([first], timeout=deadline - time.monotonic())
            else:
                await asyncio.sleep(_PAUSE)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._started is None:
            return
        try:
            if error is not None:
                # Also where the server is being stopped: nothing shall wait for this one.
                # What was made all the same has settled it, and then it stays.
                await asyncio.shield(self._repeats.receipts.release(*self._place))
        finally:
            self._let_go()

    async def _is_ours_or_known(self) -> bool:
        """Whether there is nothing to wait for any more."""
        starting, receipts = self._repeats.starting, self._repeats.receipts
        if self._place in starting:
            # However long it takes: whoever started it lives.
            return False
        self._started = starting[self._place] = asyncio.get_running_loop().create_future()
        held = None
        try:
            held = await receipts.reserve(*self._place, self.claim.fingerprint)
        except BaseException:
            self._let_go()
            raise
        if held is None:
            return True
        self._let_go()
        if held.fingerprint != self.claim.fingerprint:
            raise IdempotencyConflictError(
                "This Idempotency-Key was used for another request.", param="Idempotency-Key"
            )
        self.outcome = held.result_id
        return self.outcome is not None

    def _let_go(self) -> None:
        if self._started is not None:
            self._repeats.starting.pop(self._place, None)
            self._started.set_result(None)
            self._started = None
