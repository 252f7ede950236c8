"""Response cycle: uvicorn's, with the head and the first piece of a body in one write.

A write of its own for the head costs a system call here, and a wake-up of the client. A head whose
body does not follow at once leaves with the next iteration of the loop.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from antiphon.api.http.asgi_responses import WRITER

#: From this size on, a body is written behind its head instead of being copied.
_LARGE_BODY = 64 * 1024
_NO_CONTENT = (204, 304)
#: What the system says of a connection whose other end is closed; only Linux does.
_CLOSED_BY_PEER: Final[int] = getattr(select, "POLLRDHUP", 0)


class MessageEvent(asyncio.Event):
    """asyncio's event, with a list of waiters: its deque takes 600 bytes of every request."""

    def __init__(self) -> None:
        self._value = False
        self._waiters: list[asyncio.Future[bool]] = []  # type: ignore[assignment]


class ResponseCycle(RequestResponseCycle):
    """One request and its answer."""

    #: The head that is still to be written.
    _head = b""
    #: Whether further pieces of the body are chunks of their own.
    _is_streaming = False
    #: Whether the application has been given the end of the body.
    _is_read = False
    #: What is called when the connection is lost.
    _on_lost: Callable[[], None] | None = None

    async def receive(self) -> Any:
        """The next message for the application, as ASGI has it."""
        if self.more_body or self._is_read or self.disconnected or self.waiting_for_100_continue:
            return await super().receive()
        # All of the body is here: there is nothing to wait for.
        self._is_read = True
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        """Take a message of the application, as ASGI has it."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"The answer begins with {kind!r}.")
            self._start(message)
        elif kind != "http.response.body" or self.response_complete:
            raise RuntimeError(f"The answer cannot go on with {kind!r}.")
        elif self._is_streaming and message.get("more_body"):
            body = message["body"]
            if body:
                self.write_chunk(body)
        else:
            self._write_body(message.get("body", b""), message.get("more_body", False))

    @property
    def is_writable(self) -> bool:
        """Whether a chunk may be written now, behind those that were sent."""
        return self._is_streaming and not (self.flow.write_paused or self.disconnected)

    @property
    def is_abandoned(self) -> bool:
        """Whether the client has closed the connection, also where no read has shown it yet."""
        if self.disconnected or not _CLOSED_BY_PEER:
            return bool(self.disconnected)
        connection = self.transport.get_extra_info("socket")
        if connection is None or connection.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(connection.fileno(), _CLOSED_BY_PEER)
        return bool(poll.poll(0))

    def call_when_lost(self, callback: Callable[[], None] | None) -> None:
        """Have something called when the connection is lost, at once if it is; None: nothing."""
        self._on_lost = callback
        if callback is not None:
            # Where nothing is read, nothing is noticed.
            self.flow.resume_reading()
            if self.disconnected:
                callback()

    def set_lost(self) -> None:
        """The connection is lost before the answer is whole."""
        self.disconnected = True
        self.message_event.set()
        if self._on_lost is not None:
            self._on_lost()

    def write_chunk(self, body: bytes) -> None:
        """Write a chunk without waiting; only if ``is_writable``."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))

    def write_answer(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Write a whole answer without waiting; False: ``send`` has to, and nothing is written.

        ``headers`` say nothing of its length, its encoding or the connection.
        """
        if (
            self.response_started
            or self.disconnected
            or self.flow.write_paused
            or self.scope["method"] == "HEAD"
        ):
            return False
        headers = (*self.default_headers, *headers)
        self._check_headers(headers)
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.response_started = True
        self.waiting_for_100_continue = False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        head = b"%b%bcontent-length: %d\r\n%b" % (STATUS_LINE[status], lines, len(body), end)
        self._write(head, body)
        self._complete()
        return True

    def _start(self, message: Message) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        headers = [*self.default_headers, *message.get("headers", ())]
        self._check_headers(headers)
        status = message["status"]
        lines = [STATUS_LINE[status]]
        closes = False
        for name, value in headers:
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection":
                closes = b"close" in [one.strip() for one in value.lower().split(b",")]
            lines += (name, b": ", value, b"\r\n")
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        is_head = self.scope["method"] == "HEAD"
        if self.chunked_encoding is None and not is_head and status not in _NO_CONTENT:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)
        if not self.expected_content_length:
            # A stream may be silent for long after its head.
            asyncio.get_running_loop().call_soon(self._flush_head)

    def _check_headers(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Raise ``RuntimeError`` where a header would be more than one line."""
        names = b"".join([name for name, _ in headers])
        values = b"".join([value for _, value in headers])
        if HEADER_RE.search(names) or HEADER_VALUE_RE.search(values):
            raise RuntimeError("A header of the answer is not valid.")

    def _write_body(self, body: bytes, more_body: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("The answer is longer than its Content-Length.")
        self._write(head, body)
        if more_body:
            self._is_streaming = bool(self.chunked_encoding) and self.scope["method"] != "HEAD"
        else:
            self._complete()

    def _write(self, head: bytes, body: bytes) -> None:
        if head and len(body) < _LARGE_BODY:
            self.transport.write(head + body)
        else:
            if head:
                self.transport.write(head)
            self.transport.write(body)

    def _complete(self) -> None:
        if self.expected_content_length != 0:
            raise RuntimeError("The answer is shorter than its Content-Length.")
        self.response_complete = True
        # The scope and what writes its answer hold each other: together they would stay until the
        # garbage collector finds them, and every request would use memory that is in no cache.
        self.scope.pop(WRITER, None)  # type: ignore[misc]
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _flush_head(self) -> None:
        if self._head and not self.transport.is_closing():
            self.transport.write(self._head)
            self._head = b""


class WithoutChunks:
    """ASGI middleware for HTTP/1.0, which has no chunks: the connection's end ends the answer."""

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle
        self._is_framed = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_chunks(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                self._is_framed = b"content-length" in names
                if not self._is_framed:
                    self._cycle.chunked_encoding = False
            elif not self._is_framed:
                # uvicorn compares each piece with what the header promised.
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_without_chunks)
