"""The load generator of gRPC streams: the same scripts, a connection each, no message classes.

HTTP/2 as far as gRPC's server and this one kind of call need it: gRPC's own asyncio client takes
as long for a call as the server, and would be what is measured. A reply is the body of a stream:
messages, each behind a byte for its compression and its length in four, decoded when the clock
has stopped. How a stream ended is in headers that are not read: its last message says so, too, and
one without any message was refused.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Final, cast

from bench.load import PATIENCE, BenchError, Script, Tally
from bench.processes import Server

_PATH: Final = "/xai_api.Chat/GetCompletionChunk"
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_HEAD: Final = 9
_PREFIX: Final = 5
#: Bytes. Flow control is to play no part.
_MOST: Final = 2**31 - 1
_DEFAULT_WINDOW: Final = 65_535
_INITIAL_WINDOW: Final = 4


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


def _field(name: str, value: str) -> bytes:
    """A header in HPACK's plainest form: a literal that nobody remembers."""
    return bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()


_FIELDS: Final = b"".join(
    _field(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", _PATH),
        (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
)
_HELLO: Final = (
    _PREFACE
    + _frame(_SETTINGS, 0, 0, _INITIAL_WINDOW.to_bytes(2) + _MOST.to_bytes(4))
    + _frame(_WINDOW, 0, 0, (_MOST - _DEFAULT_WINDOW).to_bytes(4))
)


class _Connection(asyncio.Protocol):
    def __init__(self, script: Script, tally: Tally, mark: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        #: The server has said what it wants of a connection.
        self.ready: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.deadline = float("inf")
        self._script = script
        self._tally = tally
        self._mark = mark
        self._await_mark = False
        self._unread = b""
        self._pieces: list[bytes] = []
        self._stream = -1
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_HELLO)

    def start(self) -> None:
        self._send(next(self._script))

    def close(self) -> None:
        self.ready.cancel()
        self.done.cancel()
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(BenchError(f"the connection was closed: {exc}"))
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self._unread + data
        place = 0
        while len(data) - place >= _HEAD:
            body = place + _HEAD
            end = body + int.from_bytes(data[place : place + 3])
            if end > len(data):
                break
            self._take(data[place + 3], data[place + 4], data[body:end])
            place = end
        self._unread = data[place:]

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _DATA:
            self._pieces.append(body)
            if self._await_mark and self._mark is not None and self._mark in body:
                self._await_mark = False
                self._tally.firsts.append(time.perf_counter() - self._sent_at)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, body if kind == _PING else b""))
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind in (_RESET, _GOAWAY):
            self._fail(BenchError(f"the server broke a stream off: {body!r}"))
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._complete()

    def _complete(self) -> None:
        now = time.perf_counter()
        if not self._pieces:
            self._fail(BenchError("the server refused a stream"))
            return
        self._tally.latencies.append(now - self._sent_at)
        try:
            request = self._script.send(b"".join(self._pieces))
        except StopIteration:
            self._finish()
            return
        except Exception as error:  # noqa: BLE001 - any error of a script voids the run
            self._fail(error)
            return
        if now >= self.deadline:
            self._finish()
        else:
            self._send(request)

    def _send(self, request: bytes) -> None:
        self._pieces = []
        self._stream += 2
        self._await_mark = self._mark is not None
        self._sent_at = time.perf_counter()
        message = b"\0" + len(request).to_bytes(4) + request
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, _FIELDS)
            + _frame(_DATA, _END_STREAM, self._stream, message)
        )

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _fail(self, error: Exception) -> None:
        for waiting in (self.ready, self.done):
            if not waiting.done():
                waiting.set_exception(error)


async def over_grpc(
    server: Server, scripts: Sequence[Script], seconds: float | None, mark: bytes | None
) -> Tally:
    """Act out all scripts at once, a connection each; like ``bench.load.drive``."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    connections: list[_Connection] = []
    try:
        for script in scripts:
            make = functools.partial(_Connection, script, tally, mark)
            made = (await loop.create_connection(make, "127.0.0.1", server.grpc_port))[1]
            connections.append(made)
        await asyncio.gather(*(connection.ready for connection in connections))
        begun = time.perf_counter()
        for connection in connections:
            if seconds is not None:
                connection.deadline = begun + seconds
            connection.start()
        async with asyncio.timeout((seconds or 0.0) + PATIENCE):
            await asyncio.gather(*(connection.done for connection in connections))
        tally.seconds = time.perf_counter() - begun
    finally:
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.closed for connection in connections))
    return tally


def messages_in(reply: bytes) -> Iterator[bytes]:
    """The messages of a reply."""
    place = 0
    while place < len(reply):
        begins = place + _PREFIX
        place = begins + int.from_bytes(reply[place + 1 : begins])
        yield reply[begins:place]
