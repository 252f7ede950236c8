"""Client retries: a request that a client repeats by itself gets the turn that its first try began.

OpenAI's clients repeat a POST after a timeout, with the same body and a count of the retries, while
the first turn still runs. Without this its words would be said twice.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Final

import msgspec
from starlette.types import Scope

from antiphon.core.turns import TurnRequest
from antiphon.errors import NotFoundError
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService

_HEADER: Final = b"x-stainless-retry-count"
#: Seconds for which a turn is remembered that its client has left.
_LIFETIME: Final = 120.0
_MAX_TURNS: Final = 10_000
#: The ends of turns whose result is of no use to a retry.
_FAILURES: Final = {"failed", "cancelled"}


def is_retry(scope: Scope) -> bool:
    """Whether a client says that it sends a request once more."""
    for name, value in scope["headers"]:
        if name == _HEADER:
            return bool(value.strip(b" 0"))
    return False


class ClientRetries:
    """The stored turns that run, and those whose clients have left before they had the result."""

    def __init__(self, service: TurnService) -> None:
        self._service = service
        #: When each client left, by the hash of its request and the response id.
        self._left: OrderedDict[tuple[bytes, str], float] = OrderedDict()
        #: Turns of which a retry has taken the result since.
        self._taken: OrderedDict[str, None] = OrderedDict()

    def remember(
        self, request: TurnRequest, body: bytes, response_id: str, *, was_retry: bool
    ) -> None:
        """The client of a turn has left before it had the result."""
        if not request.store or (response_id in self._taken and not was_retry):
            return
        now = time.monotonic()
        self._left[_digest(request.tenant, body), response_id] = now
        while len(self._left) > _MAX_TURNS or next(iter(self._left.values())) < now - _LIFETIME:
            self._left.popitem(last=False)

    async def find(self, request: TurnRequest, body: bytes) -> RunningTurn | Replay | None:
        """The turn that the first try of this request began; None: it did not, or has failed."""
        if not request.store:
            return None
        digest = _digest(request.tenant, body)
        left = [response_id for key, response_id in reversed(self._left) if key == digest]
        running = [
            turn
            for turn in self._service.registry.all()
            if turn.request is not None and not turn.is_stopping and _is_same(turn.request, request)
        ]
        # Of two clients that ask the same, the one that left is the one that asks again.
        running.sort(key=lambda turn: turn.response_id not in left)
        if running:
            self._take(digest, running[0].response_id)
            return running[0]
        for response_id in left:
            first = await self._subscribe(request.tenant, response_id)
            if first is not None:
                self._take(digest, response_id)
                return first
        return None

    async def _subscribe(self, tenant: str, response_id: str) -> RunningTurn | Replay | None:
        try:
            response = await self._service.reader.response(tenant, response_id)
            if response.status not in _FAILURES:
                return await self._service.subscribe(tenant, response_id)
        except NotFoundError:
            # It was deleted meanwhile.
            pass
        return None

    def _take(self, digest: bytes, response_id: str) -> None:
        """A later request of the same words is another one, and so is its retry."""
        self._left.pop((digest, response_id), None)
        self._taken[response_id] = None
        if len(self._taken) > _MAX_TURNS:
            self._taken.popitem(last=False)


def _digest(tenant: str, body: bytes) -> bytes:
    return hashlib.sha256(b"%b\n%b" % (tenant.encode(), body)).digest()


def _is_same(first: TurnRequest, again: TurnRequest) -> bool:
    """Whether two requests are equal, one of which has the head of its conversation."""
    if again.conversation is not None:
        first = msgspec.structs.replace(first, previous_response_id=None)
    return first == again
