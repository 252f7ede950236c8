"""Responses endpoints: ``/v1/responses``: create, list, retrieve, stream, cancel, delete.

``/v1/responses/compact`` and ``/v1/responses/input_tokens`` store nothing.
"""

from __future__ import annotations

import asyncio
import os
import time

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of, with_caller
from antiphon.api.common.body import ClientDisconnected, query_params, read_body
from antiphon.api.common.node_client import NodeClient, Operation
from antiphon.api.http.asgi_responses import (
    WRITER,
    DisconnectWatcher,
    last_event_id,
    send_error,
    send_json,
)
from antiphon.api.http.client_retries import ClientRetries
from antiphon.api.http.departed_clients import is_retry
from antiphon.api.http.idempotency import IdempotencyKeys, IdempotentRequest
from antiphon.api.http.item_bodies import input_items, item_body, parse_include
from antiphon.api.http.pagination import (
    list_body,
    paginate,
    parse_limit,
    parse_order,
    parse_response_filter,
)
from antiphon.api.http.response_stream import StreamOptions
from antiphon.api.http.responses_codec import (
    decode_request,
    encode_response,
    response_body,
    usage_body,
)
from antiphon.api.http.turn_streams import TurnStreams
from antiphon.core.replay_trace import read_rhythm
from antiphon.core.turns import TurnRequest, Usage
from antiphon.errors import InvalidRequestError, error_from_code
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import ResponseIndex, StoredTurn
from antiphon.turn.turn_reader import response_of

_TRUE_VALUES = {"true", "1"}
#: The statuses of a turn without an end: a store takes one for the other.
_WITHOUT_END = {"in_progress", "queued"}
_encode = msgspec.json.Encoder().encode


class ResponseEndpoints:
    """The endpoints, over one service."""

    def __init__(
        self,
        service: TurnService,
        response_index: ResponseIndex,
        idempotency_keys: IdempotencyKeys,
        nodes: NodeClient | None = None,
    ) -> None:
        self._service = service
        self._streams = TurnStreams(service, nodes)
        self._response_index = response_index
        self._idempotency_keys = idempotency_keys
        self._retries = ClientRetries(
            service, idempotency_keys.store, _decode_for_tenant, "find_retried_response", nodes
        )

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask this one, by name."""
        return self._retries.operations()

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/responses"""
        body = await read_body(receive)
        request = with_caller(decode_request(body), scope)
        idempotent_request = (
            self._idempotency_keys.for_request(scope, body) if request.store else None
        )
        retried = None
        if idempotent_request is None and is_retry(scope):
            retried = await self._retries.find(request, body)
        watch = DisconnectWatcher(receive, writer=scope.get(WRITER))
        try:
            if request.background and retried is None:
                # It is not done for whoever waits, so it begins without them too.
                watch.turn = await self._begun(request, idempotent_request, watch)
            with watch:
                if retried is None and idempotent_request is None and request.can_run:
                    turn: RunningTurn | Replay = await watch.run_turn(self._service, request)
                else:
                    turn = watch.turn = (
                        retried
                        or watch.turn
                        or await self._begun(request, idempotent_request, watch)
                    )
                await self._send_turn(request, turn, scope, send, watch)
        except ClientDisconnected:
            if watch.turn is not None and idempotent_request is None:
                await self._retries.remember(
                    request, body, watch.turn.response_id, was_retry=retried is not None
                )
            raise

    async def _begun(
        self,
        request: TurnRequest,
        idempotent_request: IdempotentRequest | None,
        watch: DisconnectWatcher,
    ) -> RunningTurn | Replay:
        if idempotent_request is None:
            return await self._service.start(request, on_start=watch.set_turn)
        return await self._start_once(request, idempotent_request)

    async def _start_once(
        self, request: TurnRequest, idempotent_request: IdempotentRequest
    ) -> RunningTurn | Replay:
        """The turn of a request that may have been made before."""
        async with idempotent_request:
            if idempotent_request.result_id is not None:
                return await self._service.subscribe(request.tenant, idempotent_request.result_id)
            reserved = msgspec.structs.replace(request, reservation=idempotent_request.reservation)
            turn = await self._service.start(reserved)
            await turn.wait_until_stored()
            return turn

    async def _send_turn(
        self,
        request: TurnRequest,
        turn: RunningTurn | Replay,
        scope: Scope,
        send: Send,
        watch: DisconnectWatcher,
    ) -> None:
        if request.stream:
            await self._streams.send(request.tenant, turn, scope, send, StreamOptions())
            return
        if request.background and (isinstance(turn, RunningTurn) or turn.is_running):
            if isinstance(turn, RunningTurn):
                await turn.wait_until_stored()
            await send_json(send, encode_response(turn.initial_response, queued=True))
            return
        response = await turn.result()
        watch.look_for_client()
        error = turn.error
        if isinstance(turn, Replay) and response.end and response.end.error:
            # The answer is what it was the first time.
            error = error_from_code(response.end.error.code, response.end.error.message)
            error.response_id = response.id
        if error is not None:
            await send_error(send, error)
        else:
            await send_json(send, encode_response(response))

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses, by model, status and metadata; newest first"""
        query, tenant = query_params(scope), tenant_of(scope)
        limit, response_filter = parse_limit(query), parse_response_filter(query)
        newest_first = parse_order(query) == "desc"
        status = query.get("status", [None])[-1]
        after = query.get("after", [None])[-1]
        shown: list[StoredTurn] = []
        while len(shown) <= limit:
            turns = await self._response_index.list_responses(
                tenant,
                limit + 1,
                after=after,
                newest_first=newest_first,
                response_filter=response_filter,
            )
            for turn in turns:
                # They are of many chains: each is looked at by itself.
                (marked,) = await self._service.reader.with_queued(tenant, [turn])
                if status not in _WITHOUT_END or marked.is_queued == (status == "queued"):
                    shown.append(marked)
            if len(turns) <= limit:
                break
            after = turns[-1].response_id
        page = [response_body(response_of(turn)) for turn in shown[:limit]]
        await send_json(send, _encode(list_body(page, has_more=len(shown) > limit)))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}, with ?stream=true from its first event or behind another"""
        query = query_params(scope)
        name, tenant, include = scope["path_params"]["id"], tenant_of(scope), parse_include(query)
        if query.get("stream", [""])[-1].lower() in _TRUE_VALUES:
            turn = await self._service.subscribe(tenant, name)
            after = _parse_starting_after(query, last_event_id(scope))
            options = StreamOptions(after=after, has_ids=True, include=include)
            with DisconnectWatcher(receive, turn, scope.get(WRITER)):
                await self._streams.send(tenant, turn, scope, send, options)
            return
        response = await self._service.reader.response(tenant, name)
        await send_json(send, encode_response(response, include=include))

    async def cancel(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/responses/{id}/cancel: what arrived is kept"""
        response = await self._service.cancel(tenant_of(scope), scope["path_params"]["id"])
        await send_json(send, encode_response(response))

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/responses/{id}, with ?cascade=true its descendants too"""
        response_id = scope["path_params"]["id"]
        cascade = query_params(scope).get("cascade", [""])[-1].lower() in _TRUE_VALUES
        await self._service.delete(tenant_of(scope), response_id, cascade=cascade)
        # The word is OpenAI's: what is deleted is shown as a response.
        body = {"id": response_id, "object": "response", "deleted": True}
        await send_json(send, _encode(body))

    async def list_input(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/input_items: this turn's own, newest first"""
        query = query_params(scope)
        include = parse_include(query)
        response = await self._service.reader.response(tenant_of(scope), scope["path_params"]["id"])
        await send_json(send, _encode(paginate(input_items(response, include), query)))

    async def context(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/context: the messages that the model was shown"""
        name = scope["path_params"]["id"]
        shown = await self._service.reader.context(tenant_of(scope), name)
        body = {"object": "response.context", "response_id": name, **msgspec.structs.asdict(shown)}
        # It may be as long as a conversation.
        await send_json(send, await asyncio.to_thread(_encode, body))

    async def rhythm(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/rhythm: when the text of its stream came"""
        name = scope["path_params"]["id"]
        response = await self._service.reader.response(tenant_of(scope), name)
        rhythm = read_rhythm(response)
        body = {
            "object": "response.rhythm",
            "response_id": name,
            "first_word_after": rhythm.first_word_after,
            "data": [{"seconds": at, "deltas": before} for at, before in rhythm.beats],
        }
        await send_json(send, _encode(body))


def _decode_for_tenant(body: bytes, tenant: str) -> TurnRequest:
    request = decode_request(body)
    return msgspec.structs.replace(request, tenant=tenant) if tenant else request


def _parse_starting_after(query: dict[str, list[str]], last_id: str | None = None) -> int:
    """The number of the last event that a client has; that of a lost stream is the newer one."""
    text = last_id or query.get("starting_after", ["-1"])[-1]
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise InvalidRequestError("The number of an event is an integer.", param="starting_after")
    return max(-1, int(text))


class CompactionEndpoints:
    """The endpoints, over one service."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def compact(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/responses/compact: a model's summary, to begin another conversation with"""
        body = await read_body(receive)
        request = _decode_request(body, scope)
        if request.model is None:
            raise InvalidRequestError(
                "Say which model shall sum up.",
                code="missing_required_parameter",
                param="model",
            )
        with DisconnectWatcher(receive):
            compaction = await self._service.compact(request)
        name = os.urandom(16).hex()
        await send_json(
            send,
            _encode(
                {
                    "id": f"cmpr_{name}",
                    "object": "response.compaction",
                    "created_at": int(time.time()),
                    "output": [
                        *(
                            item_body(message, f"msg_{name}{number:02x}")
                            for number, message in enumerate(compaction.system_messages, 1)
                        ),
                        item_body(compaction.item, f"cmp_{name}00"),
                    ],
                    "usage": usage_body(compaction.usage or Usage()),
                }
            ),
        )

    async def count_tokens(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/responses/input_tokens: what a turn would begin with, in tokens"""
        request = _decode_request(await read_body(receive), scope)
        with DisconnectWatcher(receive):
            tokens = await self._service.count_tokens(request)
        body = {"object": "response.input_tokens", "input_tokens": tokens}
        await send_json(send, _encode(body))


def _decode_request(body: bytes, scope: Scope) -> TurnRequest:
    request = with_caller(decode_request(body), scope)
    return msgspec.structs.replace(request, store=False, stream=False)
