"""WebSocket endpoint: ``/v1/responses`` over a WebSocket; one turn after another.

The events are those of the HTTP stream, one a message. Turns with ``store: false`` can be
continued on their own connection only, which remembers the newest one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import MAX_BODY, decode_body
from antiphon.api.http.middleware import reauthorize
from antiphon.api.http.responses_codec import decode_request
from antiphon.api.http.stream_events import EventEncoder
from antiphon.core.turns import TurnRequest
from antiphon.errors import AntiphonError, BodyTooLargeError, InvalidRequestError
from antiphon.turn.history_cache import UnstoredHistory
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService

log = logging.getLogger("antiphon.http")

#: Seconds that a connection lasts.
_LIFETIME = 3600.0
#: How many requests may wait for the one that runs, and their bytes.
_BACKLOG = 32
_MAX_QUEUED_BYTES = 2 * MAX_BODY

_NORMAL_CLOSURE, _TRY_AGAIN_LATER = 1000, 1013
#: What only the HTTP stream needs, and lanes: turns here run one after another.
_UNSUPPORTED_FIELDS = ("background", "stream_options", "stream_id")

_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct, frozen=True):
    type: str
    background: bool | None = None
    stream_options: Any = None
    #: What OpenAI's clients know besides: a lane of its own, and a turn without an answer.
    stream_id: str | None = None
    generate: bool | None = None


_message = msgspec.json.Decoder(_Message)


class WebSocketEndpoint:
    """The endpoint, over one service. ``lifetime`` is in seconds."""

    def __init__(self, service: TurnService, lifetime: float = _LIFETIME) -> None:
        self._service = service
        self._lifetime = lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await _Connection(self._service, scope, receive, send).serve(self._lifetime)


class _Connection:
    def __init__(self, service: TurnService, scope: Scope, receive: Receive, send: Send) -> None:
        self._service = service
        self._scope = scope
        self._receive = receive
        self._send = send
        self._unstored_history = UnstoredHistory()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queued_bytes = 0
        self._turn: RunningTurn | None = None

    async def serve(self, lifetime: float) -> None:
        listening = asyncio.create_task(self._listen())
        answering = asyncio.create_task(self._process_queue())
        try:
            over, _ = await asyncio.wait(
                (listening, answering), timeout=lifetime, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            listening.cancel()
            answering.cancel()
            await asyncio.gather(listening, answering, return_exceptions=True)
            if self._turn is not None:
                await self._turn.detach()
        for task in over:
            # The answering ends only when it cannot write, and then the client is gone.
            task.result()
        if listening not in over:
            await self._send_expired(lifetime)
        elif listening.result():
            await self._close(_TRY_AGAIN_LATER)

    async def _listen(self) -> bool:
        """Take requests while one is answered. False: the client hung up, True: too many."""
        while (message := await self._receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            body = text.encode() if text is not None else message.get("bytes") or b""
            self._queued_bytes += len(body)
            self._queue.put_nowait(body)
            if self._queue.qsize() > _BACKLOG or self._queued_bytes > _MAX_QUEUED_BYTES:
                return True
        return False

    async def _process_queue(self) -> None:
        while True:
            body = await self._queue.get()
            self._queued_bytes -= len(body)
            try:
                await self._process(body)
            except AntiphonError as error:
                await self._send_text(error_event(error))
            except OSError:
                # What a server raises where nobody is left to write to.
                raise
            except Exception:
                log.exception("WEBSOCKET %s failed", self._scope["path"])
                failure = AntiphonError("The server failed on this request.")
                await self._send_text(error_event(failure))

    async def _process(self, body: bytes) -> None:
        request = _decode_message(body, tenant_of(self._scope))
        async with reauthorize(self._scope):
            turn = self._turn = await self._start_turn(request)
        encoder = EventEncoder(turn.initial_response)
        try:
            async for batch in turn.events():
                for frame in event_messages(encoder.encode(batch)):
                    await self._send_text(frame)
        except AntiphonError as lost:
            for frame in event_messages(encoder.encode_failure(lost)):
                await self._send_text(frame)
        self._turn = None
        if turn.error is not None:
            self._evict(request)

    async def _start_turn(self, request: TurnRequest) -> RunningTurn:
        try:
            return await self._service.start(request, unstored_history=self._unstored_history)
        except AntiphonError:
            self._evict(request)
            raise

    def _evict(self, request: TurnRequest) -> None:
        """A continuation failed: what it went on from is not for another try."""
        previous = request.previous_response_id
        if previous is not None and self._unstored_history.get(previous) is not None:
            self._unstored_history.clear()

    async def _send_expired(self, lifetime: float) -> None:
        error = InvalidRequestError(
            f"A connection lasts {lifetime / 60:g} minutes: open a new one, and go on from there.",
            code="websocket_connection_limit_reached",
        )
        await self._send_text(error_event(error))
        await self._close(_NORMAL_CLOSURE)

    async def _send_text(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def _close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code})


def _decode_message(body: bytes, tenant: str) -> TurnRequest:
    """A message as a turn's request. Raises ``InvalidRequestError``."""
    if len(body) > MAX_BODY:
        raise BodyTooLargeError(f"The message is larger than {MAX_BODY // 2**20} MiB.")
    message = decode_body(_message, body)
    if message.type != "response.create":
        raise InvalidRequestError(
            "The messages of this connection are of the type response.create.", param="type"
        )
    unwanted = [field for field in _UNSUPPORTED_FIELDS if getattr(message, field)]
    if message.generate is False:
        # There is nothing to warm up, and an answer is not what was asked for.
        unwanted.append("generate")
    for field in unwanted:
        raise InvalidRequestError(
            f"'{field}' means nothing here.", code="unsupported_parameter", param=field
        )
    return msgspec.structs.replace(decode_request(body), tenant=tenant, stream=True)


def event_messages(stream: bytes) -> list[str]:
    """The events' JSON of a piece of an event stream."""
    return [event.partition(b"\ndata: ")[2].decode() for event in stream.split(b"\n\n") if event]


def error_event(error: AntiphonError) -> str:
    """What a client is told of a request that started no turn."""
    body = {
        "type": "error",
        "status": error.status,
        "error": {
            "type": error.type,
            "code": error.code,
            "message": error.message,
            "param": error.param,
        },
    }
    return _encode(body).decode()
