"""Streams of background turns that are followed on a node of one's choice."""

from __future__ import annotations

import asyncio
import re

import msgspec

from bench.load import BenchError, post

_ID = re.compile(rb'"id":"(resp_\w+)"')
_DELTA = b'"type":"response.output_text.delta"'
_encode = msgspec.json.Encoder().encode


async def follow_turns(begun_on: int, followed_on: int, count: int, model: str) -> int:
    """Begin turns on one port and follow their streams on another; how many pieces came.

    Raises ``BenchError`` unless each stream has its end.
    """
    streams = await asyncio.gather(*[_follow(begun_on, followed_on, model) for _ in range(count)])
    return sum(stream.count(_DELTA) for stream in streams)


async def _follow(begun_on: int, followed_on: int, model: str) -> bytes:
    body = _encode({"model": model, "input": "Hi.", "background": True, "stream": True})
    reader, writer = await asyncio.open_connection("127.0.0.1", begun_on)
    writer.write(post("/v1/responses", body))
    head = b""
    while (found := _ID.search(head)) is None:
        piece = await reader.read(1 << 16)
        if not piece:
            raise BenchError(f"a turn in the background: {head!r}")
        head += piece
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", followed_on)
    path = f"/v1/responses/{found[1].decode()}?stream=true"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    stream = await reader.read(-1)
    writer.close()
    if b'"type":"response.completed"' not in stream:
        raise BenchError(f"a stream without its end: {stream[:500]!r}")
    return stream
