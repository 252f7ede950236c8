"""MCP server over HTTP that answers byte for byte what a test says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from antiphon.core.secrets import Secret

JSON = "content-type: application/json"


class Raw(msgspec.Struct):
    """What a server answers: head lines and a body; ``whole`` False: it promises more."""

    status: str = "200 OK"
    head: str = JSON
    body: bytes = b"{}"
    whole: bool = True


TOOL = {"name": "read", "inputSchema": {"type": "object"}}


def reply(request: dict[str, Any], result: Any) -> Raw:
    return Raw(body=json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())


def usual(request: dict[str, Any]) -> Raw:
    """A small, well-behaved server of the newer revision with one tool."""
    if request["method"] == "server/discover":
        about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        return reply(
            request, {**about, "resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
        )
    if request["method"] == "tools/list":
        page = {"tools": [TOOL], "resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
        return reply(request, page)
    return Raw("404 Not Found")


@asynccontextmanager
async def answering(answer: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[Secret]:
    """A server that reads requests and writes the bytes that a test gives it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                raw: Raw | None = answer(json.loads(await reader.readexactly(length)))
                if raw is None:
                    break
                promised = len(raw.body) + (not raw.whole)
                writer.write(
                    f"HTTP/1.1 {raw.status}\r\n{raw.head}\r\ncontent-length: {promised}\r\n\r\n"
                    .encode() + raw.body
                )  # fmt: skip
                await writer.drain()
                if not raw.whole:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, StopIteration):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield Secret(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp")
    finally:
        server.close()
