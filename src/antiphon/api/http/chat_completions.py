"""Chat completions endpoint: ``POST /v1/chat/completions``; clients send all messages."""

from __future__ import annotations

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of, with_caller
from antiphon.api.common.body import ClientDisconnected, read_body
from antiphon.api.common.deferred_completions import DeferredCompletions
from antiphon.api.common.node_client import NodeClient, Operation
from antiphon.api.http.asgi_responses import (
    WRITER,
    DisconnectWatcher,
    send_error,
    send_json,
)
from antiphon.api.http.chat_completion_requests import ChatRequest, decode_chat_request
from antiphon.api.http.chat_completions_codec import encode_completion
from antiphon.api.http.client_retries import ClientRetries
from antiphon.api.http.completion_stream import (
    CompletionStreamOptions,
)
from antiphon.api.http.departed_clients import is_retry
from antiphon.api.http.idempotency import IdempotencyKeys
from antiphon.api.http.turn_streams import TurnStreams
from antiphon.core.ids import completion_id_of, to_response_id
from antiphon.core.turns import IdempotencyReservation, Response, TurnRequest
from antiphon.errors import AntiphonError, NotFoundError
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.turn_reader import failure_of

_encode = msgspec.json.Encoder().encode


class ChatCompletionsEndpoint:
    """The endpoint, over one service."""

    def __init__(
        self,
        service: TurnService,
        idempotency_keys: IdempotencyKeys,
        *,
        store_by_default: bool = False,
        nodes: NodeClient | None = None,
        deferred_completions: DeferredCompletions,
    ) -> None:
        self._service = service
        self._streams = TurnStreams(service, nodes)
        self._idempotency_keys = idempotency_keys
        self._retries = ClientRetries(
            service,
            idempotency_keys.store,
            self._decode_for_tenant,
            "find_retried_completion",
            nodes,
        )
        self._store_by_default = store_by_default
        self._deferred_completions = deferred_completions

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask this one, by name."""
        return self._retries.operations()

    def _decode_for_tenant(self, body: bytes, tenant: str) -> TurnRequest:
        turn = decode_chat_request(body, store_by_default=self._store_by_default).turn
        return msgspec.structs.replace(turn, tenant=tenant)

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/chat/completions"""
        body = await read_body(receive)
        request = decode_chat_request(body, store_by_default=self._store_by_default)
        turn_request = with_caller(request.turn, scope)
        if request.deferred:
            await self._defer(turn_request, scope, body, send)
            return
        retries = self._retries if self._may_be_retry(turn_request, scope, body) else None
        retried = None
        if retries is not None and is_retry(scope):
            retried = await retries.find(turn_request, body)
        watch = DisconnectWatcher(receive, writer=scope.get(WRITER))
        try:
            with watch:
                turn = watch.turn = retried or await self._start(turn_request, scope, body, watch)
                await self._send_turn(request, turn, scope, send, watch)
        except ClientDisconnected:
            if watch.turn is not None and retries is not None:
                name = watch.turn.response_id
                await retries.remember(turn_request, body, name, was_retry=retried is not None)
            raise

    def _may_be_retry(self, request: TurnRequest, scope: Scope, body: bytes) -> bool:
        """Whether the client may repeat a request by itself, without a key that says so."""
        return request.store and self._idempotency_keys.for_request(scope, body) is None

    async def _start(
        self,
        request: TurnRequest,
        scope: Scope,
        body: bytes,
        watch: DisconnectWatcher | None = None,
    ) -> RunningTurn | Replay:
        """The turn of a request; of a stored one that may have been made before.

        ``watch`` is that of the request, where its turn is waited for.
        """
        try:
            if watch is not None and request.can_run and not request.store:
                return await watch.run_turn(self._service, request)
            return await self._start_once(request, scope, body, watch)
        except AntiphonError as error:
            if error.param == "input":
                # What the input is called here.
                error.param = "messages"
            raise

    async def _start_once(
        self,
        request: TurnRequest,
        scope: Scope,
        body: bytes,
        watch: DisconnectWatcher | None,
    ) -> RunningTurn | Replay:
        on_start = watch.set_turn if watch is not None else None
        if not request.store:
            return await self._service.start(request)

        async def start(reservation: IdempotencyReservation | None) -> RunningTurn | Replay:
            if reservation is None:
                return await self._service.start(request, on_start=on_start)
            reserved = msgspec.structs.replace(request, reservation=reservation)
            turn = await self._service.start(reserved)
            await turn.wait_until_stored()
            return turn

        async def subscribe(response_id: str) -> RunningTurn | Replay:
            return await self._service.subscribe(request.tenant, response_id)

        return await self._idempotency_keys.run_once(scope, body, start, subscribe)

    async def _send_turn(
        self,
        request: ChatRequest,
        turn: RunningTurn | Replay,
        scope: Scope,
        send: Send,
        watch: DisconnectWatcher,
    ) -> None:
        if isinstance(turn, Replay) and (
            error := failure_of(turn.response if request.turn.stream else await turn.result())
        ):
            # The answer is what it was the first time.
            await send_error(send, error)
        elif request.turn.stream:
            options = CompletionStreamOptions(
                include_usage=request.include_usage, legacy_functions=request.legacy_functions
            )
            await self._streams.send(request.turn.tenant, turn, scope, send, options)
        else:
            response = await turn.result()
            watch.look_for_client()
            if turn.error is not None:
                await send_error(send, turn.error)
            else:
                body = encode_completion(response, legacy_functions=request.legacy_functions)
                await send_json(send, body)

    async def _defer(self, request: TurnRequest, scope: Scope, body: bytes, send: Send) -> None:
        """Start a turn that nobody waits for, but somebody will ask for."""
        request = msgspec.structs.replace(request, stream=False)
        if request.store:
            turn = await self._start(request, scope, body)
            if isinstance(turn, RunningTurn):
                await turn.wait_until_stored()
            request_id = completion_id_of(turn.response_id)
        else:
            self._deferred_completions.ensure_capacity(request.tenant)
            unstored = await self._service.start(request)
            request_id = self._deferred_completions.add(request.tenant, [unstored])
        await send_json(send, _encode({"request_id": request_id}))

    async def retrieve_deferred(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/chat/deferred-completion/{id}: 202 while it is not ready"""
        request_id, tenant = scope["path_params"]["id"], tenant_of(scope)
        found = await self._deferred_completions.find(tenant, request_id)
        if found is None:
            response: Response | None = await self._stored_completion(tenant, request_id)
        elif found.is_expired:
            raise NotFoundError(
                f"The deferred completion '{request_id}' has expired.",
                code="deferred_completion_expired",
            )
        else:
            response = None if found.is_pending else found.responses[0]
        if response is None or response.end is None:
            await send_json(send, _encode({"request_id": request_id, "status": "pending"}), 202)
        elif error := failure_of(response):
            await send_error(send, error)
        else:
            await send_json(send, encode_completion(response))

    async def _stored_completion(self, tenant: str, request_id: str) -> Response:
        try:
            return await self._service.reader.response(tenant, to_response_id(request_id))
        except NotFoundError:
            raise NotFoundError(
                f"No deferred completion found with id '{request_id}'.",
                code="deferred_completion_not_found",
            ) from None
