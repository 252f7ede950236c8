"""The load generator of gRPC streams: the same scripts, a connection each, no message classes.

HTTP/2 as far as gRPC's server and this one kind of call need it: gRPC's own asyncio client takes
as long for a call as the server, and would be what is measured. A reply is the body of a stream:
messages, each behind a byte for its compression and its length in four, decoded when the clock
has stopped. How a stream ended is in headers that are not read: its last message says so, too, and
one without any message was refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from bench.load import BenchError, Connection, LoadStats, Script, drive
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


class _Grpc(Connection):
    def __init__(self, script: Script, tally: LoadStats, mark: bytes | None) -> None:
        super().__init__(script, tally, mark)
        self._unread = b""
        self._stream = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport.write(_HELLO)

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
            self._receive(body)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, body if kind == _PING else b""))
            # The server has said what it wants of a connection.
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind in (_RESET, _GOAWAY):
            self._fail(BenchError(f"the server broke a stream off: {body!r}"))
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            if self._pieces:
                self._complete()
            else:
                self._fail(BenchError("the server refused a stream"))

    def _write(self, request: bytes) -> None:
        self._stream += 2
        message = b"\0" + len(request).to_bytes(4) + request
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, _FIELDS)
            + _frame(_DATA, _END_STREAM, self._stream, message)
        )


async def drive_grpc(
    server: Server, scripts: Sequence[Script], seconds: float | None, mark: bytes | None
) -> LoadStats:
    """Act out all scripts at once; see ``bench.load.drive``."""
    return await drive(server.grpc_port, scripts, seconds=seconds, mark=mark, kind=_Grpc)


def messages_in(reply: bytes) -> Iterator[bytes]:
    """The messages of a reply."""
    place = 0
    while place < len(reply):
        begins = place + _PREFIX
        place = begins + int.from_bytes(reply[place + 1 : begins])
        yield reply[begins:place]
