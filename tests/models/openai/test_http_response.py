"""Responses of an upstream, read from raw bytes: where they end, what breaks them, what follows."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import ref

import aiohttp
import pytest
from aiohttp.http import HttpProcessingError
from yarl import URL

from antiphon.models.openai.http_response import HttpResponse
from antiphon.models.openai.upstream_connection import UpstreamConnectionPool
from support.misbehaving_upstream import CLOSE, CUT, MisbehavingUpstream, Move

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\n"
HINTS = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nContent-Length: 3\r\n\r\n"


@asynccontextmanager
async def answering(*behaviours: list[Move]) -> AsyncIterator[tuple[UpstreamConnectionPool, URL]]:
    """A pool, and the URL of a server that answers by these bytes."""
    async with MisbehavingUpstream() as upstream:
        upstream.then(*behaviours)
        pool = UpstreamConnectionPool({}, None, connect_timeout=10, read_timeout=10)
        yield pool, URL(upstream.base_url)
        await pool.close()


async def read_all(response: HttpResponse) -> bytes:
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    "moves",
    [
        [HEAD + b"\r\n", b"to the", b" end", CLOSE],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\nto", b" the\r\n4\r\n end\r\n0\r\n\r\n"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\na \r\nto the end\r\n0\r\n\r\n"],
        [b"HTTP/1.0 200 OK\r\n\r\nto the end", CLOSE],
        [HEAD + b"Content-Length: 10\r\n\r\nto the end and more of it"],
        [HEAD + b"Content-Length: 10\r\n\r\nto the end" + OK],
        [b"HTTP/1.1 200 OK\nContent-Length: 10\n\nto the end"],
        [HINTS, HEAD, b"Content-Length: 10\r\n\r\nto the end"],
    ],
)
async def test_a_body_ends_where_its_head_says_and_nothing_behind_it_is_taken_for_the_next(
    moves: list[Move],
) -> None:
    async with answering(moves, [OK]) as (pool, url):
        response = await pool.send("POST", url, b"{}")
        assert await read_all(response) == b"to the end"
        assert response.has_ended
        assert response.is_read
        assert await read_all(await pool.send("POST", url, b"{}")) == b"ok"


@pytest.mark.parametrize("end", [CLOSE, CUT])
@pytest.mark.parametrize(
    "head", [b"Content-Length: 10\r\n\r\nfirst", b"Transfer-Encoding: chunked\r\n\r\n9\r\nfirst"]
)
async def test_what_arrived_before_a_connection_breaks_is_read_before_the_error(
    head: bytes, end: Move
) -> None:
    async with answering([HEAD + head, end]) as (pool, url):
        response = await pool.send("POST", url, b"{}")
        assert await response.read() == b"first"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@pytest.mark.parametrize(
    ("moves", "kind"),
    [
        ([CLOSE], aiohttp.ServerDisconnectedError),
        ([HEAD + b"X: 1\r\n", CLOSE], aiohttp.ServerDisconnectedError),
        ([b"SSH-2.0-OpenSSH\r\n"], HttpProcessingError),
        ([HEAD + b"X: y\r\n" * 200 + b"\r\n"], HttpProcessingError),
        ([HEAD + b"X: " + b"y" * 100_000], HttpProcessingError),
    ],
)
async def test_a_head_that_is_broken_off_malformed_or_too_long_is_an_error(
    moves: list[Move], kind: type[Exception]
) -> None:
    async with answering(moves, [OK]) as (pool, url):
        with pytest.raises(kind):
            await pool.send("POST", url, b"{}")
        assert await read_all(await pool.send("POST", url, b"{}")) == b"ok"


async def test_another_protocol_is_a_response_without_a_body() -> None:
    switching = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\n?"
    async with answering([switching], [OK]) as (pool, url):
        response = await pool.send("POST", url, b"{}")
        assert (response.status, await read_all(response)) == (101, b"")
        assert await read_all(await pool.send("POST", url, b"{}")) == b"ok"


async def test_a_reader_that_is_slow_stops_the_connection_and_gets_all() -> None:
    body = bytes(range(256)) * 40_000
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    async with answering([head, body], [OK]) as (pool, url):
        response = await pool.send("POST", url, b"{}")
        for _ in range(50):
            await asyncio.sleep(0)
        assert not response.has_ended
        assert await read_all(response) == body
        assert await read_all(await pool.send("POST", url, b"{}")) == b"ok"


async def test_closing_the_pool_ends_what_is_still_read() -> None:
    async with answering([HEAD + b"Content-Length: 10\r\n\r\nfirst"]) as (pool, url):
        response = await pool.send("POST", url, b"{}")
        assert await response.read() == b"first"
        reading = asyncio.ensure_future(response.read())
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(reading, 10)


@pytest.mark.parametrize("behaviour", [[OK], [HEAD + b"Content-Length: 10\r\n\r\nfirst", CLOSE]])
async def test_a_response_that_is_over_goes_without_the_garbage_collector(
    behaviour: list[Move],
) -> None:
    async with answering(behaviour) as (pool, url):
        gc.disable()
        try:
            response = await pool.send("POST", url, b"{}")
            await response.read()
            response.close()
            left = ref(response)
            del response
            assert left() is None
        finally:
            gc.enable()
