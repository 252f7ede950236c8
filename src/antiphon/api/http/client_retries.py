"""Client retries: a request that a client repeats by itself gets the turn that its first try began.

OpenAI's clients repeat a POST after a timeout, with the same body and a count of the retries, while
the first turn still runs. Without this its words would be said twice.

That a client has left is also written into the store, so that another process finds the turn where
the repetition comes there. Nothing is written for a turn whose client stays.
"""

from __future__ import annotations

import contextlib
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
from antiphon.errors import AntiphonError, NotFoundError
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import IdempotencyStore

_HEADER: Final = b"x-stainless-retry-count"
#: Seconds for which a turn is remembered that its client has left.
_LIFETIME: Final = 120.0
_MAX_TURNS: Final = 10_000
#: How many turns of the same words other processes can find, and how their records' keys
#: begin, which no client can send in a header.
_MAX_RECORDS: Final = 8
_LEFT_KEY: Final = "\0client-left"
_TAKEN_KEY: Final = "\0client-left-taken"
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
        self._store = store
        self._decode = decode
        self._operation = operation
        self._nodes = nodes
        #: When each client left, by the hash of its request and the response id.
        self._left: OrderedDict[tuple[bytes, str], float] = OrderedDict()
        #: Turns of which a retry has taken the result since.
        self._taken: OrderedDict[str, None] = OrderedDict()

    async def remember(
        self, request: TurnRequest, body: bytes, response_id: str, *, was_retry: bool
    ) -> None:
        """The client of a turn has left before it had the result."""
        if not request.store or (response_id in self._taken and not was_retry):
            return
        now = time.monotonic()
        digest = _digest(request.tenant, body)
        self._left[digest, response_id] = now
        while len(self._left) > _MAX_TURNS or next(iter(self._left.values())) < now - _LIFETIME:
            self._left.popitem(last=False)
        # Nobody waits for an answer; a store that is full or being closed is no news to them.
        with contextlib.suppress(AntiphonError):
            await self._write_record(request.tenant, digest, response_id)

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
            found = await self._find_record(request.tenant, _digest(request.tenant, body))
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
            await self._take(request.tenant, digest, running[0].response_id)
            return running[0]
        for response_id in left:
            first = await self._subscribe(request.tenant, response_id)
            if first is not None:
                await self._take(request.tenant, digest, response_id)
                return first
        return None

    async def _find_record(self, tenant: str, digest: bytes) -> RunningTurn | Replay | None:
        """A turn of any process, whose client has left by what the store says."""
        for number, response_id in reversed(await self._read_records(tenant, digest)):
            if response_id not in self._taken and await self._take_record(
                tenant, digest, number, response_id
            ):
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

    async def _take(self, tenant: str, digest: bytes, response_id: str) -> None:
        """A later request of the same words is another one, and so is its retry."""
        was_left = self._left.pop((digest, response_id), None) is not None
        self._taken[response_id] = None
        if len(self._taken) > _MAX_TURNS:
            self._taken.popitem(last=False)
        if was_left:
            for number, left_id in await self._read_records(tenant, digest):
                if left_id == response_id:
                    await self._take_record(tenant, digest, number, response_id)

    async def _write_record(self, tenant: str, digest: bytes, response_id: str) -> None:
        for number in range(_MAX_RECORDS):
            key = _record_key(_LEFT_KEY, digest, number)
            record = await self._store.reserve(tenant, key, digest)
            # Without a result it is of somebody who looks for one at this moment.
            if record is None or record.result_id is None:
                await self._store.complete(tenant, key, response_id)
                return

    async def _read_records(self, tenant: str, digest: bytes) -> list[tuple[int, str]]:
        """The turns of these words whose clients have left of late, with their records' numbers."""
        found: list[tuple[int, str]] = []
        for number in range(_MAX_RECORDS):
            key = _record_key(_LEFT_KEY, digest, number)
            record = await self._store.reserve(tenant, key, digest)
            if record is None:
                await self._store.release(tenant, key)
                break
            if record.result_id is not None and record.created_at > time.time() - _LIFETIME:
                found.append((number, record.result_id))
        return found

    async def _take_record(self, tenant: str, digest: bytes, number: int, response_id: str) -> bool:
        """Whether this is the first retry that gets the turn, in any process."""
        key = _record_key(_TAKEN_KEY, digest, number)
        if await self._store.reserve(tenant, key, digest) is not None:
            return False
        await self._store.complete(tenant, key, response_id)
        return True


def _record_key(kind: str, digest: bytes, number: int) -> str:
    return f"{kind} {digest.hex()} {number}"


def _digest(tenant: str, body: bytes) -> bytes:
    return hashlib.sha256(b"%b\n%b" % (tenant.encode(), body)).digest()


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
