"""The official SDK's client for one server, over a program's pipes or over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self, TextIO, TypeAlias

from mcp import Client, StdioServerParameters, types
from mcp.client._transport import ReadStream, Transport, TransportStreams
from mcp.client.session import MessageHandlerFnT
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.mcp.http_transport import MAX_BYTES, http_client
from antiphon.tools.mcp.line_limit import LINE_ENCODING, LINE_TOO_LONG, is_too_long

#: Seconds for a server to start and to say what it is.
OPEN_TIMEOUT = 30.0

_Message: TypeAlias = SessionMessage | Exception
#: Told of the end of a program's output, and of what it did wrong, if that is why.
EndCallback: TypeAlias = Callable[[str | None], None]

# Their lines hold URLs and messages, and those hold keys. What goes wrong, we say ourselves.
for _name in ("mcp", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@asynccontextmanager
async def open_client(
    server: McpServerConfig, on_message: MessageHandlerFnT, on_end: EndCallback
) -> AsyncIterator[Client]:
    """A client whose server has answered; to be closed by the task that opened it.

    ``hear`` is told of each message that nobody asked for, ``ended`` when the server's
    program has closed its output, or is not heard any more. Raises whatever the SDK does.
    """
    async with AsyncExitStack() as stack:
        client = Client(
            await _transport(server, on_end, stack),
            message_handler=on_message,
            cache=None,
            client_info=types.Implementation(name="antiphon", version=version("antiphon")),
        )
        async with asyncio.timeout(OPEN_TIMEOUT):
            await stack.enter_async_context(client)
        yield client


async def _transport(
    server: McpServerConfig, on_end: EndCallback, stack: AsyncExitStack
) -> Transport:
    if not server.command:
        assert server.url is not None
        http = await stack.enter_async_context(http_client(server))
        return streamable_http_client(
            server.url.reveal(), http_client=http, max_sse_event_size=MAX_BYTES
        )
    program, *arguments = server.command
    parameters = StdioServerParameters(
        command=program,
        args=arguments,
        env={name: value.reveal() for name, value in server.env.items()},
        cwd=server.folder,
        encoding=LINE_ENCODING,
    )
    return _with_end_callback(stdio_client(parameters, _stderr_file(stack)), on_end)


def _stderr_file(stack: AsyncExitStack) -> TextIO:
    """What a program complains of belongs to our own complaints, where there is a place."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
    return sys.stderr


@asynccontextmanager
async def _with_end_callback(
    transport: Any, on_end: EndCallback
) -> AsyncIterator[TransportStreams]:
    """The transport, whose end is told: the SDK would let the next request find out."""
    async with transport as (read, write):
        yield _EndNotifyingStream(read, on_end), write


class _EndNotifyingStream:
    def __init__(self, inner: ReadStream[_Message], on_end: EndCallback) -> None:
        self._inner = inner
        self._on_end = on_end

    async def receive(self) -> _Message:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Message:
        try:
            read = await self._inner.__anext__()
        except StopAsyncIteration:
            self._on_end(None)
            raise
        if isinstance(read, SessionMessage) and is_too_long(read.message):
            self._on_end(LINE_TOO_LONG)
            raise StopAsyncIteration
        return read

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)
