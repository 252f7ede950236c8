"""Connections to an upstream: reuse, cancellation, long bodies, and what stands in a head."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest
from aiohttp.connector import Connection
from yarl import URL

from antiphon.core.deltas import OutputTextDelta
from antiphon.core.turns import Options
from antiphon.errors import BodyTooLargeError, ModelTimeoutError
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.upstream_connection import UpstreamConnectionPool
from antiphon.models.retry import AttemptError, RetryPolicy
from antiphon.turn.protocols import ModelInfo
from support.chat_completions_upstream import HELLO, KEY, collect_deltas, expect_failure, make_call
from support.misbehaving_upstream import (
    CLOSE,
    HANG,
    MisbehavingUpstream,
    answer,
    chunk,
    events,
    hello_answer,
    stream,
)
from support.model_calls import call_with_messages

#: More than the buffers of a socket hold.
LONG = 32 * 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def model_of(url: str, read_timeout: float = 20) -> ChatCompletionsModel:
    """A model whose failures are shown at once."""
    policy = RetryPolicy(max_retries=0)
    return ChatCompletionsModel(ModelInfo("m"), url, KEY, retry=policy, read_timeout=read_timeout)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[URL]:
    """A server of bare connections, and its URL."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handle(reader, writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        for writer in writers:
            writer.transport.abort()


async def test_one_connection_carries_many_requests() -> None:
    async with MisbehavingUpstream() as upstream:
        model = model_of(upstream.base_url)
        for streamed in (True, False, True, False):
            assert await collect_deltas(model, streamed=streamed)
        await model.model_names()
        await model.close()
    assert (len(upstream.requests), upstream.connections) == (5, 1)


async def test_a_list_is_requested_again_on_a_closed_connection() -> None:
    async with MisbehavingUpstream() as upstream:
        names = b'{"data":[{"id":"m"}]}'
        upstream.then(answer(names), [CLOSE], answer(names), [CLOSE], [CLOSE])
        model = model_of(upstream.base_url)
        assert await model.model_names() == ["m"]
        assert await model.model_names() == ["m"]
        with pytest.raises(AttemptError):
            await model.model_names()
        await model.close()


@pytest.mark.parametrize(
    "moves", [[HANG], [b"HTTP/1.1 200 OK\r\n", HANG], stream(*events(chunk(content="a")), end=HANG)]
)
async def test_who_cancels_a_call_ends_its_request(moves: list[object]) -> None:
    async with MisbehavingUpstream() as upstream:
        upstream.then(moves)  # type: ignore[arg-type]
        model = model_of(upstream.base_url)

        async def listen() -> None:
            async with aclosing(model.generate(make_call())) as batches:
                async for _ in batches:
                    pass

        call = asyncio.create_task(listen())
        request = await upstream.request(0)
        for _ in range(20):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait_for(request.disconnected.wait(), 10)
        # The connection is not used again.
        assert await collect_deltas(model) == HELLO
        assert upstream.requests[1].connection == 2
        await model.close()


async def test_words_gather_behind_the_first_where_a_call_allows_it() -> None:
    has_first = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(50):
            writer.write(b"".join(events(chunk(content=f"{number} "))))
            await writer.drain()
            await has_first.wait()
            await asyncio.sleep(0)
        writer.write(b"".join(events(chunk("stop"))) + b"data: [DONE]\n\n")
        writer.close()

    async with serving(speak) as url:
        model = model_of(str(url))
        call = msgspec.structs.replace(make_call(), gather_seconds=0.2)
        texts = []
        async for batch in model.generate(call):
            texts.append([one.text for one in batch if isinstance(one, OutputTextDelta)])
            has_first.set()
        await model.close()
    assert texts[0] == ["0 "], "it is not waited for"
    assert [text for part in texts for text in part] == [f"{number} " for number in range(50)]
    assert len(texts) < 10


async def test_an_answer_before_the_request_is_read_counts() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    async with serving(refuse) as url:
        model = model_of(str(url))
        call = call_with_messages(
            "m", b'[{"role":"user","content":"%b"}]' % (b"a" * LONG), Options(), False
        )
        with pytest.raises(BodyTooLargeError):
            await anext(model.generate(call))
        await model.close()


async def test_an_early_good_answer_does_not_leave_half_a_request_on_a_connection() -> None:
    readers: list[asyncio.StreamReader] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        readers.append(reader)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with serving(reply) as url:
        pool = UpstreamConnectionPool({}, None, connect_timeout=10, read_timeout=10)
        for body in (b"a" * LONG, b"{}"):
            response = await pool.send("POST", url, body)
            assert await response.read() == b"ok"
        await pool.close()
    assert len(readers) == 2


async def test_a_call_cancelled_as_its_answer_ends_leaves_the_connection_to_the_next() -> None:
    """The next call may have the connection already."""
    is_asked = asyncio.Event()
    ends = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK)
        await reader.readuntil(b"{}")
        is_asked.set()
        await ends.wait()
        writer.write(OK)

    class Pool(UpstreamConnectionPool):
        def _keep_at_hand(self, connection: Connection) -> None:
            super()._keep_at_hand(connection)
            # The call has not been woken yet.
            calls[0].cancel()
            if len(calls) == 1:
                calls.append(asyncio.create_task(self.send("POST", url, b"{}")))

    async with serving(reply) as url:
        pool = Pool({}, None, connect_timeout=10, read_timeout=10)
        calls = [asyncio.create_task(pool.send("POST", url, b"{}"))]
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        await is_asked.wait()
        ends.set()
        assert await (await calls[1]).read() == b"ok"
        await pool.close()


async def test_silence_counts_from_the_end_of_the_request() -> None:
    timeout = 0.5

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        late = asyncio.Event()
        asyncio.get_running_loop().call_later(2 * timeout, late.set)
        await late.wait()
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
        writer.write(OK)

    async with serving(read_late) as url:
        pool = UpstreamConnectionPool({}, None, connect_timeout=10, read_timeout=timeout)
        assert (await pool.send("POST", url, b"a" * LONG)).status == 200
        with pytest.raises(TimeoutError):
            await pool.send("POST", url, b"{}")
        await pool.close()


async def test_the_silence_of_a_stream_ends_it() -> None:
    async with MisbehavingUpstream() as upstream:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        # Long enough for its first words on a busy machine.
        model = model_of(upstream.base_url, read_timeout=1)
        deltas, _ = await expect_failure(model, ModelTimeoutError)
        assert deltas
        await asyncio.wait_for(upstream.requests[0].disconnected.wait(), 10)
        await model.close()


async def test_percent_signs_in_a_path_and_a_header_are_sent_as_they_are() -> None:
    async with MisbehavingUpstream() as upstream:
        url = f"http://127.0.0.1:{upstream.port}/a%20b/v1?c=%d"
        model = ChatCompletionsModel(ModelInfo("m"), url, KEY, headers={"X-Note": "50 %d %s %"})
        assert await collect_deltas(model) == HELLO
        await model.close()
    (request,) = upstream.requests
    assert request.path == "/a%20b/v1/chat/completions?c=%25d"
    assert request.headers["x-note"] == "50 %d %s %"


async def test_answers_that_announce_another_are_passed_over() -> None:
    async with MisbehavingUpstream() as upstream:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        upstream.then([hints, *hello_answer()])
        model = model_of(upstream.base_url)
        assert await collect_deltas(model) == HELLO
        await model.close()


async def test_an_answer_without_a_body_leaves_the_connection_usable() -> None:
    async with MisbehavingUpstream() as upstream:
        upstream.then([b"HTTP/1.1 204 No Content\r\n\r\n"], answer(b"ok"))
        url = URL(upstream.base_url)
        pool = UpstreamConnectionPool({}, None, connect_timeout=10, read_timeout=10)
        for status, body in ((204, b""), (200, b"ok")):
            response = await pool.get(url)
            assert (response.status, await response.read()) == (status, body)
        await pool.close()
        assert upstream.connections == 1


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/event-stream", None),
        ("application/json; charset=utf-8", "utf-8"),
        ('text/plain; a=b; CHARSET="latin-1"', "latin-1"),
        ("text/plain; charset=", None),
    ],
)
async def test_the_declared_charset(content_type: str, charset: str | None) -> None:
    async with MisbehavingUpstream() as upstream:
        upstream.then(answer(b"", headers={"Content-Type": content_type}))
        pool = UpstreamConnectionPool({}, None, connect_timeout=10, read_timeout=10)
        response = await pool.get(URL(upstream.base_url))
        assert response.charset == charset
        await pool.close()
