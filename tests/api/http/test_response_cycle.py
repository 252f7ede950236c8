"""Response cycles: an ASGI application's messages on the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from antiphon.api.http.asgi_responses import WRITER
from antiphon.api.http.connections import connection_protocols
from antiphon.core.connection_limits import ConnectionLimits


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def resume_reading(self) -> None:
        pass


START = {"type": "http.response.start", "status": 200}
LENGTH = (b"content-length", b"5")


async def write(
    *messages: dict[str, Any] | None, method: bytes = b"GET", headers: bytes = b""
) -> Wire:
    """What an application's messages become; None: the loop turns once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            if message is None:
                await asyncio.sleep(0)
            else:
                await send(message)

    return await run(app, method, headers)


async def run(app: Any, method: bytes = b"GET", headers: bytes = b"") -> Wire:
    """What an application writes."""
    config = Config(app, log_config=None, lifespan="off")
    config.load()
    protocol = connection_protocols(ConnectionLimits())[0](
        config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
    )
    wire = Wire()
    protocol.connection_made(wire)
    protocol.data_received(method + b" / HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n")
    for _ in range(5):
        await asyncio.sleep(0)
    protocol.connection_lost(ConnectionError())
    return wire


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {**START, "status": status, "headers": headers}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_head_and_body_are_one_write() -> None:
    wire = await write(start(LENGTH), body(b"Hello"))
    assert wire.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello"]
    assert not wire.closed


async def test_large_body_is_not_copied() -> None:
    data = b"x" * 100_000
    wire = await write(start((b"content-length", b"100000")), body(data))
    assert len(wire.writes) == 2
    assert wire.writes[1] == data


async def test_first_chunk_leaves_with_the_head() -> None:
    wire = await write(start(), body(b"Hello", more=True), body(b"", more=True), body(b"!"))
    head, *chunks = b"".join(wire.writes).split(b"\r\n\r\n", 1)
    assert head == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"
    assert chunks == [b"5\r\nHello\r\n1\r\n!\r\n0\r\n\r\n"]
    assert wire.writes[0].endswith(b"Hello\r\n")


async def test_head_of_a_silent_stream_leaves_by_itself() -> None:
    wire = await write(start(), None, None, body(b"Hello"))
    assert wire.writes[0].endswith(b"chunked\r\n\r\n")
    assert b"".join(wire.writes[1:]) == b"5\r\nHello\r\n0\r\n\r\n"


async def test_answers_without_a_body() -> None:
    wire = await write(start(LENGTH), body(b"Hello"), method=b"HEAD")
    assert wire.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]
    wire = await write(start(status=204), body(b""))
    assert wire.writes == [b"HTTP/1.1 204 No Content\r\n\r\n"]


@pytest.mark.parametrize("said_by", ["client", "application"])
async def test_connection_closes_where_one_side_says_so(said_by: str) -> None:
    close = (b"connection", b"close")
    if said_by == "client":
        wire = await write(start(LENGTH), body(b"Hello"), headers=b"connection: close\r\n")
    else:
        wire = await write(start(LENGTH, close), body(b"Hello"))
    assert b"connection: close\r\n" in wire.writes[0]
    assert wire.closed


@pytest.mark.parametrize(
    "messages",
    [
        (body(b"Hello"),),
        (start(LENGTH), start(LENGTH)),
        (start(LENGTH), body(b"Hell")),
        (start(LENGTH), body(b"Hello!")),
        (start((b"x-injected", b"a\r\nset-cookie: b")),),
        (start((b"x injected", b"a")),),
    ],
)
async def test_what_is_no_answer_is_not_sent_as_one(messages: tuple[dict[str, Any], ...]) -> None:
    wire = await write(*messages)
    answer = b"".join(wire.writes)
    assert b"set-cookie" not in answer
    assert b" 500 " in answer or wire.closed


@pytest.mark.parametrize(
    ("method", "headers", "answer"),
    [
        (b"GET", b"", b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\n\r\nHello"),
        (
            b"GET",
            b"connection: close\r\n",
            b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\nconnection: close\r\n\r\nHello",
        ),
        # To be sent, as its body is not.
        (b"HEAD", b"", None),
    ],
)
async def test_a_whole_answer_is_one_write(
    method: bytes, headers: bytes, answer: bytes | None
) -> None:
    written: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        writer = scope[WRITER]
        written.append(writer.write_answer(200, [(b"x-a", b"b")], b"Hello"))
        # An answer is written once.
        written.append(writer.write_answer(200, [], b"again"))
        if not written[0]:
            await send(start(LENGTH))
            await send(body(b"Hello"))

    wire = await run(app, method, headers)
    assert written == [answer is not None, False]
    assert wire.closed == (headers != b"")
    if answer is not None:
        assert wire.writes == [answer]


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\0b", b"a\x7f"])
async def test_a_whole_answer_has_no_line_that_is_not_its_own(value: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope[WRITER].write_answer(200, [(b"x-a", value)], b"Hello")

    wire = await run(app)
    answer = b"".join(wire.writes)
    assert value not in answer
    assert b" 500 " in answer


async def test_a_body_that_is_here_is_given_once() -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await send(start(LENGTH))
        await send(body(b"Hello"))
        messages.append(await receive())

    await run(app)
    assert messages == [
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
    ]
