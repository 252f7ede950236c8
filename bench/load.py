"""The load generator: keep-alive connections that each act out a script.

A script is a generator that yields one request's bytes and is sent that request's
reply, so a conversation reads top to bottom. There is no task, future or header
object per request: it must not be slower than what it measures.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Generator, Sequence
from typing import TypeAlias, cast

import httptools

#: Yields a request, receives the body of its reply, which is 200 or 202.
Script: TypeAlias = Generator[bytes, bytes, None]
#: Seconds that a run may take beyond its deadline before it counts as hung.
_TIMEOUT = 120.0


class BenchError(Exception):
    """Something other than the expected answer: the run is void."""


def post(path: str, body: bytes) -> bytes:
    """A POST request of a JSON body."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class LoadStats:
    """What one run came to. Times are in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        #: Of each request until the end of its reply, in the order they ended.
        self.latencies: list[float] = []
        #: Of each stream until the first piece of the model's text.
        self.first_chunk_seconds: list[float] = []


class Connection(asyncio.Protocol):
    """One connection that acts out a script, in whichever protocol."""

    def __init__(self, script: Script, tally: LoadStats, mark: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        #: It can be used.
        self.ready: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.deadline = float("inf")
        self._script = script
        self._stats = tally
        self._mark = mark
        self._await_mark = False
        self._pieces: list[bytes] = []
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def start(self) -> None:
        self._send(next(self._script))

    def close(self) -> None:
        self.ready.cancel()
        self.done.cancel()
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(BenchError(f"the connection was closed: {exc}"))
        self.closed.set_result(None)

    def _write(self, request: bytes) -> None:
        """Send a request of the script."""
        raise NotImplementedError

    def _receive(self, body: bytes) -> None:
        """More of a reply."""
        self._pieces.append(body)
        if self._await_mark and self._mark is not None and self._mark in body:
            self._await_mark = False
            self._stats.first_chunk_seconds.append(time.perf_counter() - self._sent_at)

    def _complete(self) -> None:
        """The reply is whole and good."""
        now = time.perf_counter()
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._stats.latencies.append(now - self._sent_at)
        try:
            request = self._script.send(body)
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
        self._await_mark = self._mark is not None
        self._sent_at = time.perf_counter()
        self._write(request)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _fail(self, error: Exception) -> None:
        for waiting in (self.ready, self.done):
            if not waiting.done():
                waiting.set_exception(error)


class _Http(Connection):
    def __init__(self, script: Script, tally: LoadStats, mark: bytes | None) -> None:
        super().__init__(script, tally, mark)
        self._parser = httptools.HttpResponseParser(self)
        self.ready.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_body(self, body: bytes) -> None:
        self._receive(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() not in {200, 202}:
            body = b"".join(self._pieces)
            self._fail(BenchError(f"status {self._parser.get_status_code()}: {body[:500]!r}"))
            return
        self._complete()

    def _write(self, request: bytes) -> None:
        self._transport.write(request)


async def drive(
    port: int,
    scripts: Sequence[Script],
    *,
    seconds: float | None = None,
    mark: bytes | None = None,
    kind: type[Connection] = _Http,
) -> LoadStats:
    """Act out all scripts at once, a connection each, on 127.0.0.1.

    With ``seconds`` every script is left after its first reply past that time, else
    it is followed to its end. ``mark`` is text that tells a stream's first piece.
    Raises ``BenchError`` at the first reply that is not a good one.
    """
    loop = asyncio.get_running_loop()
    tally = LoadStats()
    connections: list[Connection] = []
    try:
        for script in scripts:
            make = functools.partial(kind, script, tally, mark)
            connections.append((await loop.create_connection(make, "127.0.0.1", port))[1])
        await asyncio.gather(*(connection.ready for connection in connections))
        begun = time.perf_counter()
        for connection in connections:
            if seconds is not None:
                connection.deadline = begun + seconds
            connection.start()
        async with asyncio.timeout((seconds or 0.0) + _TIMEOUT):
            await asyncio.gather(*(connection.done for connection in connections))
        tally.seconds = time.perf_counter() - begun
    finally:
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.closed for connection in connections))
    return tally
