"""Connections: uvicorn's HTTP and WebSocket protocols with limits and deadlines.

A client that sends half a request, or a header without an end, costs a connection and nothing
else: it is answered 408 or 431 and closed, and the oldest connections on which nobody has been
admitted are closed first where there are too many. A request that arrives whole in one read
needs no timer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from antiphon.api.http.asgi_responses import ADMIT, WRITER, error_body
from antiphon.api.http.connection_pool import ConnectionPool
from antiphon.api.http.response_cycle import MessageEvent, ResponseCycle, WithoutChunks
from antiphon.api.http.websocket import SHUTDOWN
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.errors import (
    AntiphonError,
    HeadersTooLargeError,
    InvalidRequestError,
    RequestTimeoutError,
    ServerBusyError,
)

#: Seconds for which a refused client is read, so that the system does not drop the answer.
_LINGER_SECONDS: Final = 2.0
#: Bytes of a body that are read after its request was answered.
_MAX_UNREAD_BODY: Final = 256 * 2**20
#: Digits of the length of a body that is waited for before the application is called: of one that
#: comes in two packets, as most clients send it, the first would only wake it up.
_SHORT_BODY_DIGITS: Final = 4
#: What the path of a request's target alone does not have.
_UNUSUAL_PATH: Final = re.compile(rb"[^A-Za-z0-9/._~-]")
#: Headers of an offer to speak another protocol, which is not taken up.
_UPGRADE_HEADERS: Final = {b"upgrade", b"http2-settings"}
_POLICY_VIOLATION: Final = 1008


def connection_protocols(limits: ConnectionLimits) -> tuple[Any, Any]:
    """What uvicorn takes as ``http`` and as ``ws``."""
    return (
        partial(HttpProtocol, pool=ConnectionPool(limits)),
        partial(WebSocketProtocol, limits=limits),
    )


class _SkippedRequest:
    """In place of a request that is parsed again: uvicorn does nothing for one that is over."""

    response_complete = True
    more_body = False
    scope = None


_SKIPPED_REQUEST: Final[Any] = _SkippedRequest()


class HttpProtocol(HttpToolsProtocol):
    """HTTP connection: uvicorn's, with limits, deadlines and errors in OpenAI's shape."""

    # Beyond thirty, the attributes of an object are a table of its own, of more than a kilobyte.
    __slots__ = (
        "_earlier_cycle",
        "_fed_size",
        "_header_size",
        "_is_admitted",
        "_is_in_header",
        "_is_lingering",
        "_is_upgraded",
        "_limits",
        "_made_at",
        "_pool",
        "_since",
        "_timer",
        "_unread_size",
        "_unstarted",
    )

    def __init__(self, *args: Any, pool: ConnectionPool, **options: Any) -> None:
        super().__init__(*args, **options)
        # A deque takes 600 bytes from its beginning, and hardly any client has requests wait.
        self.pipeline: list[tuple[RequestResponseCycle, Any]] = []  # type: ignore[assignment]
        self._pool = pool
        self._limits = pool.limits
        self._is_admitted = False
        self._timer: asyncio.TimerHandle | None = None
        #: When the header began that is not whole yet, or when the body last grew.
        self._since = 0.0
        self._made_at = 0.0
        self._is_in_header = True
        #: Bytes of the header so far, and with those that are being parsed.
        self._header_size = 0
        self._fed_size = 0
        self._unread_size = 0
        self._is_lingering = False
        self._is_upgraded = False
        self._earlier_cycle: Any = None
        #: A request whose body is not whole yet: its application is not called before that.
        self._unstarted: RequestResponseCycle | None = None

    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def age(self) -> float:
        """Seconds since the connection was made."""
        return self.loop.time() - self._made_at

    # The events of the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self._made_at = self.loop.time()
        if self._pool.add(self, len(self.connections)):
            self._set_timer(self._limits.header_timeout)
        else:
            self._refuse(ServerBusyError("There are too many connections to this server."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._unstarted = None
        cycle: ResponseCycle | None = self.cycle  # type: ignore[assignment]
        super().connection_lost(exc)
        if cycle is not None and not cycle.response_complete:
            cycle.set_lost()
        self._detach()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_lingering:
            return
        self._fed_size = self._header_size + len(data)
        self._feed(data)
        if self._unstarted is not None and not _has_short_body(self.headers):
            self._start()
        cycle = self.cycle
        if (
            cycle is not None
            and not cycle.more_body
            and not cycle.response_complete
            and cycle.scope is self.scope
        ):
            # The usual case: a whole request, and nothing behind it.
            self._is_in_header = False
            self._header_size = 0
            if self._timer is not None:
                self._cancel_timer()
        elif not self._is_upgraded and not self._is_lingering:
            self._wait_for_rest(len(data))

    def shutdown(self) -> None:
        if self._is_lingering or self.is_waiting():
            # What is not whole is not waited for.
            self.transport.close()
        else:
            super().shutdown()

    # The events of the parser.

    def on_headers_complete(self) -> None:
        limits = self._limits
        if len(self.headers) > limits.max_headers:
            raise HeadersTooLargeError(f"A request has at most {limits.max_headers} headers.")
        if self._fed_size > limits.max_header_bytes and (
            _size_of(self.url, self.headers) > limits.max_header_bytes
        ):
            raise self._header_error()
        upgrades = self.parser.should_upgrade()
        if upgrades and not self._should_upgrade():
            # The parser takes what follows for another protocol: see ``_parse_without_upgrade``.
            self._earlier_cycle, self.cycle = self.cycle, _SKIPPED_REQUEST
            return
        scope: Any = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        if upgrades:
            return
        version = scope["http_version"] = self.parser.get_http_version()
        scope["path"], scope["raw_path"], scope["query_string"] = _split_url(self.url)
        earlier = self.cycle
        self.cycle = ResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=MessageEvent(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if earlier is None or earlier.response_complete:
            self._unstarted = self.cycle
        else:
            # One request at a time.
            self.flow.pause_reading()
            self.pipeline.insert(0, (self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        cycle = self._unstarted
        if cycle is None:
            super().on_body(body)
        else:
            # Nobody waits for it yet.
            cycle.body += body

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._unstarted is not None:
            self._start()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._pool.set_idle(self)

    def _unset_keepalive_if_required(self) -> None:
        self._pool.set_busy(self)

    def _start(self) -> None:
        """Call the application for the request that waits for it."""
        cycle, self._unstarted = self._unstarted, None
        if cycle is not None:
            if cycle.body:
                cycle.message_event.set()
            self._start_asgi_task(cycle, self.app)

    def handle_websocket_upgrade(self) -> None:
        self._is_upgraded = True
        self._detach()
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        if not self._is_admitted:
            scope[ADMIT] = self._admit
        scope[WRITER] = cycle
        if scope["http_version"] == "1.0":
            app = WithoutChunks(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause
                if isinstance(cause, AntiphonError)
                else InvalidRequestError("The request is not valid HTTP.", code="invalid_http")
            )

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse a request again without its offer of another protocol, such as HTTP/2.

        ``rest`` is what came behind its header.
        """
        self.cycle = self._earlier_cycle
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(InvalidRequestError("This server is no proxy.", code="invalid_http"))
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [one.strip() for one in value.lower().split(b",")]
                others = b", ".join(one for one in tokens if one not in _UPGRADE_HEADERS)
                lines.append(b"connection: " + others)
            elif name not in _UPGRADE_HEADERS:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    # Deadlines.

    def _wait_for_rest(self, size: int) -> None:
        """Set the deadline of a request that is not whole, ``size`` bytes of which have come."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and cycle.more_body and cycle.scope is self.scope:
            self._is_in_header, self._header_size = False, 0
            self._since = self.loop.time()
            timeout = self._limits.body_timeout
            if cycle.response_complete:
                self._unread_size += size
                if self._unread_size > _MAX_UNREAD_BODY:
                    self.transport.close()
        else:
            if not self._is_in_header:
                self._is_in_header = True
                self._since = self.loop.time()
            self._header_size += size
            timeout = self._limits.header_timeout
            if self._header_size > self._limits.max_header_bytes:
                self._refuse(self._header_error())
                return
        if self._timer is None:
            self._set_timer(timeout)

    def _set_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if self._is_in_header:
            timeout = self._limits.header_timeout
            # Its deadline begins when the request before it is answered.
            pauses = cycle is not None and not cycle.response_complete
        elif cycle is not None and cycle.more_body:
            timeout = self._limits.body_timeout
            pauses = self.flow.read_paused
        else:
            return
        left = self._since + timeout - self.loop.time()
        if pauses:
            self._set_timer(timeout)
        elif left > 0:
            self._set_timer(left)
        elif self._header_size or not self._is_in_header:
            self._refuse(RequestTimeoutError("The rest of the request did not come."))
        else:
            # Nothing was asked: browsers open connections that they may need.
            self.transport.close()

    def _header_error(self) -> HeadersTooLargeError:
        size = self._limits.max_header_bytes
        return HeadersTooLargeError(f"The headers of a request have at most {size} bytes.")

    def _refuse(self, error: AntiphonError) -> None:
        """Answer with an error and close, as soon as the client can have read the answer."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._unstarted = None
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            is_answering = cycle.response_started or not cycle.more_body
            cycle.set_lost()  # type: ignore[attr-defined]
            if is_answering:
                self.transport.close()
                return
        elif cycle is not None and cycle.more_body:
            # It was answered before its body was read.
            self.transport.close()
            return
        self._is_lingering = True
        self.transport.write(_error_response(error))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._cancel_timer()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _admit(self) -> None:
        self._is_admitted = True
        self._pool.admit(self)

    def _detach(self) -> None:
        self._pool.discard(self)
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _split_url(url: bytes) -> tuple[str, bytes, bytes]:
    """The path of a request's target, the same as it came, and its query."""
    if url.startswith(b"/") and not _UNUSUAL_PATH.search(url):
        return url.decode("ascii"), url, b""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


def _has_short_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request's body is on its way, and short."""
    size = b""
    for name, value in headers:
        if name == b"content-length":
            size = value
        elif name == b"expect":
            # Its client waits before it sends the body.
            return False
    return 0 < len(size) <= _SHORT_BODY_DIGITS


def _size_of(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The bytes of a header, about as they were sent."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _error_response(error: AntiphonError) -> bytes:
    body = error_body(error)
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[error.status] + head % len(body) + body


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket connection: uvicorn's, with a deadline for the rest of a message.

    A refused handshake is no application error: otherwise each client that is refused by an
    HTTP status would leave an error in the log. Half a frame needs no deadline here, because
    its client cannot answer the pings of the server.
    """

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        # As bytes: the application decodes them, and names what is wrong with them.
        self.curr_msg_data_type = "bytes"
        super().send_receive_event_to_app()

    def handle_text(self, event: Frame) -> None:
        super().handle_text(event)
        self._wait_for_rest()

    def handle_bytes(self, event: Frame) -> None:
        super().handle_bytes(event)
        self._wait_for_rest()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        self._wait_for_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_timer()

    def shutdown(self) -> None:
        """The server is about to end: the application closes when its turns are over."""
        if self.handshake_complete and not self.close_sent:
            # It is no event of ASGI, so that no client can send one like it.
            event: Any = {"type": SHUTDOWN}
            self.queue.put_nowait(event)
        else:
            super().shutdown()

    def _wait_for_rest(self) -> None:
        self._cancel_timer()
        if self.frames and not self.close_sent:
            self._timer = self.loop.call_later(self._limits.body_timeout, self._close_unfinished)

    def _close_unfinished(self) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _POLICY_VIOLATION})
        self.conn.send_close(_POLICY_VIOLATION, "the rest of the message did not come")
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
