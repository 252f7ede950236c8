"""Node endpoints: what the other nodes of a store ask this one (``NodeClient``), by its secret.

They look at this process only, and ask nobody: a request goes over one node at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.access_log import request_id_for
from antiphon.api.common.body import decode_body, read_body
from antiphon.api.common.node_client import MAX_WAIT, NODE_HEADER, PATH, Operation
from antiphon.api.http.asgi_responses import (
    ADMIT,
    DisconnectWatcher,
    StreamHead,
    handle_errors,
    send_json,
)
from antiphon.api.http.completion_stream import CompletionStreamOptions, send_completion_stream
from antiphon.api.http.response_stream import StreamOptions, send_stream
from antiphon.errors import (
    AntiphonError,
    AuthenticationError,
    ConflictError,
    NotFoundError,
    TurnTakenOverError,
)
from antiphon.logging_setup import request_id
from antiphon.turn.replay import Replay
from antiphon.turn.service import TurnService

HEADER: Final = NODE_HEADER.encode()
_decode = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class NodeEndpoints:
    """The endpoints, over one service. ``operations`` are those of other parts, by name."""

    def __init__(self, service: TurnService, operations: Mapping[str, Operation]) -> None:
        assert service.stores is not None, "every store has them"
        self._service = service
        self._registry = service.stores.nodes
        self._operations: dict[str, Operation] = {
            "cancel": self._cancel,
            "wait": self._wait,
            "stop_erased": self._stop_erased,
            "note_erased": self._note_erased,
            **operations,
        }
        #: Answers a request that has the header.
        self.handle = handle_errors(self._handle)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        secret = (await self._registry.secret()).encode()
        if not hmac.compare_digest(headers[HEADER], secret):
            raise AuthenticationError("This is not a node of this server's store.")
        if ADMIT in scope:
            scope[ADMIT]()
        request_id.set(request_id_for(headers.get(b"x-request-id")))
        fields = decode_body(_decode, await read_body(receive))
        name = scope["path"].removeprefix(PATH)
        if name in {"stream", "completion_stream"}:
            await self._stream(name, fields, scope, receive, send)
        elif (operation := self._operations.get(name)) is not None:
            with DisconnectWatcher(receive):
                answer = await operation(fields)
            await send_json(send, _encode(answer))
        else:
            raise NotFoundError("A node has no such operation.", code="unknown_url")

    async def _stream(
        self, name: str, fields: dict[str, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """The bytes of a turn's stream, as they would be sent to a client of this node."""
        turn = await self._service.subscribe(fields["tenant"], fields["response_id"])
        if isinstance(turn, Replay) and turn.is_running:
            raise ConflictError("That turn does not run here.", code="response_elsewhere")
        head, given = StreamHead(send), {**fields["options"], "breaks_off": True}
        try:
            with DisconnectWatcher(receive):
                if name == "stream":
                    options = msgspec.convert(given, StreamOptions)
                    await send_stream(turn, scope, send, options, head)
                else:
                    wanted = msgspec.convert(given, CompletionStreamOptions)
                    await send_completion_stream(turn, scope, send, wanted, head)
        except TurnTakenOverError:
            # Left without its end, as if this node had died: the other one goes on elsewhere.
            if not head.sent:
                raise

    async def _cancel(self, fields: dict[str, Any]) -> dict[str, Any]:
        cancellation = self._service.cancellation
        turn = await cancellation.find_here(fields["tenant"], fields["response_id"])
        if turn is not None:
            await turn.cancel()
        return {"is_found": turn is not None}

    async def _wait(self, fields: dict[str, Any]) -> dict[str, Any]:
        cancellation = self._service.cancellation
        turn = await cancellation.find_here(fields["tenant"], fields["response_id"])
        if turn is not None:
            # How it ends is for the store to say.
            with contextlib.suppress(TimeoutError, AntiphonError):
                async with asyncio.timeout(MAX_WAIT):
                    await turn.result()
        return {"is_found": turn is not None}

    async def _stop_erased(self, fields: dict[str, Any]) -> dict[str, Any]:
        await self._service.cancellation.stop_erased(fields["tenant"])
        return {}

    async def _note_erased(self, _: dict[str, Any]) -> dict[str, Any]:
        self._service.cancellation.note_erased()
        return {}
