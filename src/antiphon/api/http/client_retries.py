"""Client retries: a request that a client repeats by itself gets the turn that its first try began.

OpenAI's clients repeat a POST after a timeout, with the same body and a count of the retries, while
the first turn still runs. Without this its words would be said twice.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.types import Scope

from antiphon.api.common.node_client import NodeClient, Operation
from antiphon.core.chain_fingerprints import fingerprint_history
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
    """The stored turns that run, and those whose clients have left before they had the result.

    ``nodes`` are asked where the first try went to another one, by ``operation``; ``decode`` makes
    the request of a body and its tenant.
    """

    def __init__(
        self,
        service: TurnService,
        decode: Callable[[bytes, str], TurnRequest],
        operation: str,
        nodes: NodeClient | None = None,
    ) -> None:
        self._service = service
        self._decode = decode
        self._operation = operation
        self._nodes = nodes
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

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask this one, by name."""
        return {self._operation: self._find_for_other}

    async def _find_for_other(self, fields: dict[str, Any]) -> dict[str, Any]:
        body = fields["body"].encode()
        turn = await self._find_here(self._decode(body, fields["tenant"]), body)
        return {"response_id": None if turn is None else turn.response_id}

    async def find(self, request: TurnRequest, body: bytes) -> RunningTurn | Replay | None:
        """The turn that the first try of this request began; None: it did not, or has failed."""
        if not request.store:
            return None
        found = await self._find_here(request, body)
        if found is not None or self._nodes is None:
            return found
        answers = await self._nodes.call_all(
            self._operation, tenant=request.tenant, body=body.decode()
        )
        for response_id in (one["response_id"] for one in answers):
            if response_id and (first := await self._subscribe(request.tenant, response_id)):
                return first
        return None

    async def _find_here(self, request: TurnRequest, body: bytes) -> RunningTurn | Replay | None:
        digest = _digest(request.tenant, body)
        if request.chat_completion:
            history = fingerprint_history(request.tenant, request.input)
            request = msgspec.structs.replace(request, fingerprint=history.digest)
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
    """Whether two requests are equal, one of which has the head of its conversation.

    Of a chat completion it has only what was new; its fingerprint is that of all that was said.
    """
    if again.chat_completion and first.fingerprint == again.fingerprint:
        known = {"input": again.input, "previous_response_id": again.previous_response_id}
        first = msgspec.structs.replace(first, **known)
    if again.conversation is not None:
        first = msgspec.structs.replace(first, previous_response_id=None)
    return first == again
