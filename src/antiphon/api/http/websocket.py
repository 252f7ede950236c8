"""WebSocket endpoint: ``/v1/responses`` over a WebSocket, with turns one after another in lanes.

The events are those of the HTTP stream, one a message; a request's ``stream_id`` names its lane,
and its events have it too. Turns with ``store: false`` can be continued on their own connection
only, of which each lane remembers its newest one.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import with_caller
from antiphon.api.common.body import DECODE_ERRORS, MAX_BODY, decode_body
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
#: How many requests may wait in a lane for the one that runs, and the bytes of all of them.
_BACKLOG = 32
_MAX_QUEUED_BYTES = 2 * MAX_BODY
#: How many lanes a connection may have, besides the one without a name.
_MAX_LANES = 32
_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")

_NORMAL_CLOSURE, _SERVICE_RESTART, _TRY_AGAIN_LATER = 1000, 1012, 1013

_encode = msgspec.json.Encoder().encode


#: What the server sends an application in place of a message, once it is about to end.
SHUTDOWN = "antiphon.shutdown"


class _Message(msgspec.Struct, frozen=True):
    """What a message has besides the body of a request."""

    type: str
    background: bool | None = None
    generate: bool | None = None


class _Routing(msgspec.Struct, frozen=True):
    stream_id: Any = None


_message = msgspec.json.Decoder(_Message)
_routing = msgspec.json.Decoder(_Routing)


class WebSocketEndpoint:
    """The endpoint, over one service. ``lifetime`` is in seconds."""

    def __init__(self, service: TurnService, lifetime: float = _LIFETIME) -> None:
        self._service = service
        self._lifetime = lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await _Connection(self._service, scope, receive, send).serve(self._lifetime)


class _Lane:
    """The requests of one ``stream_id``, and the one of them that is answered."""

    def __init__(self, stream_id: str | None) -> None:
        #: What is added to the end of each event.
        self.suffix = "}" if stream_id is None else f',"stream_id":{_encode(stream_id).decode()}}}'
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.unstored_history = UnstoredHistory()
        self.turn: RunningTurn | None = None
        #: Set while nothing is answered.
        self.idle = asyncio.Event()
        self.idle.set()
        self.task: asyncio.Task[None] | None = None


class _Connection:
    def __init__(self, service: TurnService, scope: Scope, receive: Receive, send: Send) -> None:
        self._service = service
        self._scope = scope
        self._receive = receive
        self._send = send
        self._queued_bytes = 0
        self._lanes: dict[str | None, _Lane] = {}
        #: Done when nothing can be written any more.
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(self, lifetime: float) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            over, _ = await asyncio.wait(
                (listening, self._broken), timeout=lifetime, return_when=asyncio.FIRST_COMPLETED
            )
            if listening in over and listening.result() == _SERVICE_RESTART:
                await self._finish_turns()
        finally:
            listening.cancel()
            tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(listening, *tasks, return_exceptions=True)
            for lane in self._lanes.values():
                if lane.turn is not None:
                    await lane.turn.detach()
        if self._broken.done():
            self._broken.result()
        if listening not in over:
            await self._send_expired(lifetime)
        elif (code := listening.result()) is not None:
            await self._close(code)

    async def _finish_turns(self) -> None:
        """Wait until what is being answered is over; what waits behind it is for another server."""
        for lane in self._lanes.values():
            while not lane.queue.empty():
                lane.queue.get_nowait()
        idle = asyncio.gather(*[lane.idle.wait() for lane in self._lanes.values()])
        try:
            await asyncio.wait((idle, self._broken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()

    async def _listen(self) -> int | None:
        """Take requests while others are answered; what to close with. None: the client hung up."""
        while (message := await self._receive())["type"] != "websocket.disconnect":
            if message["type"] == SHUTDOWN:
                return _SERVICE_RESTART
            text = message.get("text")
            body = text.encode() if text is not None else message.get("bytes") or b""
            try:
                lane = self._lane_of(body)
            except InvalidRequestError as error:
                await self._send_text(error_event(error), _Lane(_quotable_stream_id(body)))
                continue
            self._queued_bytes += len(body)
            lane.queue.put_nowait(body)
            if lane.queue.qsize() > _BACKLOG or self._queued_bytes > _MAX_QUEUED_BYTES:
                return _TRY_AGAIN_LATER
        return None

    def _lane_of(self, body: bytes) -> _Lane:
        """The lane of a message. Raises ``InvalidRequestError``."""
        stream_id = _decode_stream_id(body)
        if stream_id is not None and not (
            isinstance(stream_id, str) and _STREAM_ID.fullmatch(stream_id)
        ):
            raise InvalidRequestError(
                "A stream_id has 1 to 256 letters, digits, dots, hyphens and underscores.",
                code="invalid_stream_id",
                param="stream_id",
            )
        lane = self._lanes.get(stream_id)
        if lane is None:
            if len(self._lanes.keys() - {None}) >= _MAX_LANES and stream_id is not None:
                self._drop_idle_lane()
            lane = self._lanes[stream_id] = _Lane(stream_id)
            lane.task = asyncio.create_task(self._process_queue(lane))
        return lane

    def _drop_idle_lane(self) -> None:
        """Make room for another lane. Raises ``InvalidRequestError`` where all are in use."""
        for stream_id, lane in self._lanes.items():
            if stream_id is not None and lane.idle.is_set() and lane.queue.empty():
                del self._lanes[stream_id]
                if lane.task is not None:
                    lane.task.cancel()
                return
        raise InvalidRequestError(
            f"A connection has at most {_MAX_LANES} streams at once.",
            code="invalid_stream_id",
            param="stream_id",
        )

    async def _process_queue(self, lane: _Lane) -> None:
        try:
            while True:
                body = await lane.queue.get()
                lane.idle.clear()
                self._queued_bytes -= len(body)
                await self._answer(body, lane)
                lane.idle.set()
        except OSError as error:
            # What a server raises where nobody is left to write to.
            if not self._broken.done():
                self._broken.set_exception(error)

    async def _answer(self, body: bytes, lane: _Lane) -> None:
        try:
            await self._process(body, lane)
        except AntiphonError as error:
            await self._send_text(error_event(error), lane)
        except OSError:
            raise
        except Exception:
            log.exception("WEBSOCKET %s failed", self._scope["path"])
            failure = AntiphonError("The server failed on this request.")
            await self._send_text(error_event(failure), lane)

    async def _process(self, body: bytes, lane: _Lane) -> None:
        request = with_caller(_decode_message(body), self._scope)
        self._share_history(request, lane)
        async with reauthorize(self._scope):
            turn = lane.turn = await self._start_turn(request, lane)
        encoder = EventEncoder(turn.initial_response)
        try:
            async for batch in turn.events():
                for frame in event_messages(encoder.encode(batch)):
                    await self._send_text(frame, lane)
        except AntiphonError as lost:
            for frame in event_messages(encoder.encode_failure(lost)):
                await self._send_text(frame, lane)
        lane.turn = None
        if turn.error is not None:
            _evict(request, lane)

    async def _start_turn(self, request: TurnRequest, lane: _Lane) -> RunningTurn:
        try:
            return await self._service.start(request, unstored_history=lane.unstored_history)
        except AntiphonError:
            _evict(request, lane)
            raise

    def _share_history(self, request: TurnRequest, lane: _Lane) -> None:
        """Let a lane continue an unstored turn of another one."""
        previous = request.previous_response_id
        if previous is None or lane.unstored_history.get(previous) is not None:
            return
        for other in self._lanes.values():
            if (chain := other.unstored_history.get(previous)) is not None:
                lane.unstored_history.update(previous, chain)
                return

    async def _send_expired(self, lifetime: float) -> None:
        error = InvalidRequestError(
            f"A connection lasts {lifetime / 60:g} minutes: open a new one, and go on from there.",
            code="websocket_connection_limit_reached",
        )
        await self._send_text(error_event(error), _Lane(None))
        await self._close(_NORMAL_CLOSURE)

    async def _send_text(self, text: str, lane: _Lane) -> None:
        await self._send({"type": "websocket.send", "text": text[:-1] + lane.suffix})

    async def _close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code})


def _evict(request: TurnRequest, lane: _Lane) -> None:
    """A continuation failed: what it went on from is not for another try."""
    previous = request.previous_response_id
    if previous is not None and lane.unstored_history.get(previous) is not None:
        lane.unstored_history.clear()


def _decode_stream_id(body: bytes) -> Any:
    """The ``stream_id`` of a message. None: it has none, or cannot be decoded."""
    try:
        return _routing.decode(body).stream_id
    except DECODE_ERRORS:
        return None


def _quotable_stream_id(body: bytes) -> str | None:
    """A ``stream_id`` that is not one, by which a client may still know whom its error is for."""
    stream_id = _decode_stream_id(body)
    return stream_id if isinstance(stream_id, str) and len(stream_id) <= 1000 else None


def _decode_message(body: bytes) -> TurnRequest:
    """A message as a turn's request. Raises ``InvalidRequestError``."""
    if len(body) > MAX_BODY:
        raise BodyTooLargeError(f"The message is larger than {MAX_BODY // 2**20} MiB.")
    message = decode_body(_message, body)
    if message.type != "response.create":
        raise InvalidRequestError(
            "The messages of this connection are of the type response.create.", param="type"
        )
    if message.background:
        raise InvalidRequestError(
            "'background' means nothing here.", code="unsupported_parameter", param="background"
        )
    generate = message.generate is not False
    request = decode_request(body, needs_input=generate)
    return msgspec.structs.replace(request, stream=True, generate=generate)


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
            **({"response_id": error.response_id} if error.response_id else {}),
        },
    }
    return _encode(body).decode()
