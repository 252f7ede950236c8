"""Client retries: a request that a client repeats by itself gets the turn that its first try began.

OpenAI's clients repeat a POST after a timeout, with the same body and a count of the retries, while
the first turn still runs. Without this its words would be said twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from antiphon.api.common.node_client import NodeClient, Operation
from antiphon.api.http.departed_clients import DepartedClients, digest_request
from antiphon.core.chain_fingerprints import fingerprint_history
from antiphon.core.turns import TurnRequest
from antiphon.errors import NotFoundError
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import IdempotencyStore

#: The ends of turns whose result is of no use to a retry.
_FAILURES: Final = {"failed", "cancelled"}


class ClientRetries:
    """The stored turns that run, and those whose clients have left before they had the result.

    ``nodes`` are asked where the first try went to another one and still runs, by ``operation``;
    ``decode`` makes the request of a body and its tenant.
    """

    def __init__(
        self,
        service: TurnService,
        store: IdempotencyStore,
        decode: Callable[[bytes, str], TurnRequest],
        operation: str,
        nodes: NodeClient | None = None,
    ) -> None:
        self._service = service
        self._departed = DepartedClients(store)
        self._decode = decode
        self._operation = operation
        self._nodes = nodes

    async def remember(
        self, request: TurnRequest, body: bytes, response_id: str, *, was_retry: bool
    ) -> None:
        """The client of a turn has left before it had the result."""
        if request.store and (was_retry or not self._departed.is_taken(response_id)):
            digest = digest_request(request.tenant, body)
            await self._departed.remember(request.tenant, digest, response_id)

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
        if found is None:
            found = await self._find_record(request.tenant, digest_request(request.tenant, body))
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
        """A turn of this process."""
        digest = digest_request(request.tenant, body)
        if request.chat_completion:
            history = fingerprint_history(request.tenant, request.input)
            request = msgspec.structs.replace(request, fingerprint=history.digest)
        left = self._departed.results(digest)
        running = [
            turn
            for turn in self._service.registry.all()
            if turn.request is not None and not turn.is_stopping and _is_same(turn.request, request)
        ]
        # Of two clients that ask the same, the one that left is the one that asks again.
        running.sort(key=lambda turn: turn.response_id not in left)
        if running:
            await self._departed.take(request.tenant, digest, running[0].response_id)
            return running[0]
        for response_id in left:
            first = await self._subscribe(request.tenant, response_id)
            if first is not None:
                await self._departed.take(request.tenant, digest, response_id)
                return first
        return None

    async def _find_record(self, tenant: str, digest: bytes) -> RunningTurn | Replay | None:
        """A turn of any process, whose client has left by what the store says."""
        async for response_id in self._departed.take_recorded(tenant, digest):
            first = await self._subscribe(tenant, response_id)
            if first is not None:
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


def _is_same(first: TurnRequest, again: TurnRequest) -> bool:
    """Whether two requests are equal, one of which has the head of its conversation.

    A client may have another key of its tenant by now. Of a chat completion it has only what was
    new; its fingerprint is that of all that was said.
    """
    first = msgspec.structs.replace(first, key_id=again.key_id)
    if again.chat_completion and first.fingerprint == again.fingerprint:
        known = {"input": again.input, "previous_response_id": again.previous_response_id}
        first = msgspec.structs.replace(first, **known)
    if again.conversation is not None:
        first = msgspec.structs.replace(first, previous_response_id=None)
    return first == again
