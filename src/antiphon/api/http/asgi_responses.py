"""ASGI responses: JSON, errors, event streams, keep-alive comments and disconnect detection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, Self, TypeAlias

import msgspec
from starlette.types import Message, Receive, Scope, Send

from antiphon.api.common.access_log import shown_path
from antiphon.api.common.body import ClientDisconnected
from antiphon.core.turns import TurnRequest
from antiphon.errors import AntiphonError
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService

Handler: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

log = logging.getLogger("antiphon.http")

#: What the server adds to a scope: to be called once somebody is admitted on the connection.
ADMIT = "antiphon.admit"
#: And the ``ChunkWriter`` of its answer.
WRITER = "antiphon.writer"

_JSON = (
    (b"content-type", b"application/json"),
    # What people said is for nobody's cache.
    (b"cache-control", b"no-store"),
)
_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Asks nginx and its kin not to hold chunks back.
    (b"x-accel-buffering", b"no"),
]
_LINE_SEPARATORS = tuple((one.encode(), b"\\u%04x" % ord(one)) for one in "\x85\u2028\u2029")
_encode = msgspec.json.Encoder().encode


async def send_json(
    send: Send, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """One whole JSON answer."""
    if isinstance(send, AnswerSender) and send.write_answer(
        status, (*_JSON, *(headers or ())), body
    ):
        return
    length = (b"content-length", b"%d" % len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*_JSON, length, *(headers or ())],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_error(
    send: Send, error: AntiphonError, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """One error, shaped as OpenAI's."""
    headers = [*headers]
    if error.response_id is not None:
        # The turn is kept as failed and the upstream was tried again already: a
        # client that repeats by itself would only leave more failed turns behind.
        headers.append((b"x-should-retry", b"false"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    await send_json(send, error_body(error), error.status, headers)


def error_body(error: AntiphonError) -> bytes:
    """An error as the JSON of an answer. Pure."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if error.response_id is not None:
        body["response_id"] = error.response_id
    return _encode({"error": body})


def last_event_id(scope: Scope) -> str | None:
    """Where the client of an event stream was when it lost it."""
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            text: str = value.decode("latin-1").strip()
            return text or None
    return None


async def start_stream(send: Send) -> None:
    """The head of an event stream."""
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM})


def send_chunk(send: Send, body: bytes, *, last: bool = False) -> Awaitable[None]:
    """Send a piece of a stream; ``last`` ends it."""
    if not body.isascii():
        body = escape_line_separators(body)
    return send({"type": "http.response.body", "body": body, "more_body": not last})


def escape_line_separators(events: bytes) -> bytes:
    """Events of JSON without the characters that some readers take for the end of a line. Pure.

    As escapes they are the same text. All others of these characters are escaped in any JSON.
    """
    for character, escape in _LINE_SEPARATORS:
        events = events.replace(character, escape)
    return events


class StreamHead:
    """The head of an event stream: sent once, by whoever has something to write first."""

    def __init__(self, send: Send) -> None:
        self.sent = False
        self._send = send
        self._lock = asyncio.Lock()

    async def put(self) -> None:
        async with self._lock:
            if not self.sent:
                await start_stream(self._send)
                self.sent = True


class AnswerSender:
    """A ``send`` that adds headers to an answer, and knows its status once its head is out.

    ``writer`` writes answers that are whole, where there is one.
    """

    __slots__ = ("_send", "_writer", "headers", "status")

    def __init__(
        self, send: Send, headers: Headers | None = None, writer: ChunkWriter | None = None
    ) -> None:
        self._send = send
        self._writer = writer
        #: What the answer carries besides its own.
        self.headers = headers or []
        #: None: it has not begun.
        self.status: int | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.headers:
                message["headers"] = [*message["headers"], *self.headers]
        return self._send(message)

    def write_answer(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Write a whole answer; False: it has to be sent."""
        writer = self._writer
        if writer is None or not writer.write_answer(status, (*headers, *self.headers), body):
            return False
        self.status = status
        return True


def server_failure() -> AntiphonError:
    """The error for a mistake of the server's own: what it was is for the log alone."""
    return AntiphonError("The server failed on this request.")


def handle_errors(handler: Handler) -> Handler:
    """Turn the error tree into answers; anything else is the server's own fault.

    An answer that has begun has its status already: it is left without its end, which makes
    the server close the connection, so that nobody takes it for whole.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        answered = send if isinstance(send, AnswerSender) else AnswerSender(send)
        try:
            await handler(scope, receive, answered)
        except ClientDisconnected:
            return
        # No error outlives its clause: it holds this frame, which would hold it.
        except AntiphonError as error:
            if answered.status is not None:
                log.exception("%s %s failed after it began", scope["method"], shown_path(scope))
            else:
                await send_error(send, error)
        except Exception:
            log.exception("%s %s failed", scope["method"], shown_path(scope))
            if answered.status is None:
                await send_error(send, server_failure())

    return answer


def answering_head(get: Handler) -> Handler:
    """HEAD, as GET would be answered (RFC 9110, section 9.3.2): without the body.

    The handler of GET is stopped as soon as it has sent the head, so nothing is streamed.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send_chunk(send, b"", last=True)
            raise ClientDisconnected

        # Errors are sent where nothing catches this any more.
        with contextlib.suppress(ClientDisconnected):
            await get(scope, receive, send_head)

    return answer


class ChunkWriter(Protocol):
    """What takes pieces of an answer that has begun, without waiting."""

    @property
    def is_writable(self) -> bool:
        """Whether a piece may be written now."""
        ...

    @property
    def disconnected(self) -> bool:
        """Whether the connection was lost before the answer was whole."""
        ...

    @property
    def is_abandoned(self) -> bool:
        """Whether the client has closed the connection, be it noticed already or not."""
        ...

    def write_chunk(self, body: bytes) -> None: ...

    def write_answer(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Write a whole answer where that is possible now; ``headers`` do not say its length."""
        ...

    def call_when_lost(self, callback: Callable[[], None] | None) -> None:
        """Have ``callback`` called when the connection is lost, at once if it is; None: nothing."""
        ...


class DisconnectWatcher:
    """While entered, notices that the client hung up: ends the work for it, tells its turn.

    ``turn`` is set as soon as there is one. Most answers come at once, and those are not ended.
    ``writer`` tells when the client hangs up, and whether it was gone before its answer, however
    quick that was; without one a task listens.
    """

    #: Seconds after which an answer does not come at once.
    LISTEN_DELAY = 0.05

    def __init__(
        self,
        receive: Receive,
        turn: RunningTurn | Replay | None = None,
        writer: ChunkWriter | None = None,
    ) -> None:
        self.turn = turn
        self._client = writer
        self._was_abandoned = False
        self._disconnected = False
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late_at = 0.0
        #: Whether the turn runs in the task that is watched, and so ends it when it is stopped.
        self._runs_turn = False

    def __enter__(self) -> Self:
        self._writer, loop = asyncio.current_task(), asyncio.get_running_loop()
        self._late_at = loop.time() + self.LISTEN_DELAY
        if self._client is None:
            self._timer = loop.call_at(self._late_at, self._start_listening)
        else:
            self._client.call_when_lost(self._note_lost)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        client = self._client
        if client is not None:
            client.call_when_lost(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._disconnected and kind is asyncio.CancelledError and self._writer is not None:
            self._writer.uncancel()
            raise ClientDisconnected
        # Where an answer was quick, nobody was listening yet.
        if kind is None and client and (self._was_abandoned or client.disconnected):
            raise ClientDisconnected

    def look_for_client(self) -> None:
        """Look, before the answer, whether the client is gone: leaving raises then."""
        if self._client is not None and self.turn is not None and self.turn.is_stored:
            self._was_abandoned = self._client.is_abandoned

    async def run_turn(self, service: TurnService, request: TurnRequest) -> RunningTurn:
        """Run a turn to its end (``TurnService.run``)."""
        turn = await service.run(request, self._set_running_turn)
        self._runs_turn = False
        if self._disconnected:
            raise ClientDisconnected
        return turn

    def set_turn(self, turn: RunningTurn) -> None:
        """The request's turn begins: it is known also where the client leaves before its start."""
        self.turn = turn

    def _set_running_turn(self, turn: RunningTurn) -> None:
        self.turn, self._runs_turn = turn, not turn.is_stored

    def _start_listening(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait_for_disconnect())

    def _note_lost(self) -> None:
        """The connection is lost. What answers at once does so all the same."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._late_at, self._start_ending)

    def _start_ending(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._end())

    async def _wait_for_disconnect(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        await self._end()

    async def _end(self) -> None:
        """End the work for a client that is gone."""
        self._disconnected = True
        if self.turn is not None:
            await self.turn.detach()
        if self._writer is not None and not self._runs_turn:
            # A stored turn goes on, perhaps for long; what waits to write it need not.
            self._writer.cancel()


class KeepAlive:
    """While entered, writes something into a stream that is silent for ``INTERVAL`` seconds.

    So nothing in between takes a model that thinks for long for a connection that is dead. The
    stream's own pieces are sent by ``send``. ``create`` makes what is written in between, and
    ``head`` is sent before it where it has not been until then.
    """

    INTERVAL = 15.0

    def __init__(
        self, send: Send, create: Callable[[], bytes], head: StreamHead | None = None
    ) -> None:
        self._send = send
        self._create = create
        self._head = head
        self._task: asyncio.Task[None] | None = None
        #: Whether nothing was written since the last look.
        self._is_silent = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self.INTERVAL / 2, self._look)

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def send(self, message: Message) -> Awaitable[None]:
        self._is_silent = False
        return self._send(message)

    def note_written(self) -> None:
        """A piece of the stream was written without ``send``."""
        self._is_silent = False

    def _look(self) -> None:
        """Look twice in each interval whether the stream has been silent since the last look."""
        self._timer = self._loop.call_later(self.INTERVAL / 2, self._look)
        is_writing = self._task is not None and not self._task.done()
        if self._is_silent and not is_writing:
            self._task = self._loop.create_task(self._write())
        self._is_silent = not self._is_silent

    async def _write(self) -> None:
        if self._head is not None:
            await self._head.put()
        # Between two events: each of those is sent in one piece.
        await send_chunk(self._send, self._create())


def keep_alive_comment() -> bytes:
    """A comment of an event stream.

    No empty line is behind it: readers that do not know comments take that for the end of an
    event.
    """
    return b": still here\n"
