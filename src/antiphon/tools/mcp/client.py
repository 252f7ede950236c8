"""MCP client: the official SDK's client for one server, over stdio or HTTP, with a line limit.

The SDK buffers a line of a stdio server without a limit, but it takes the encoding that lines
are read in. Ours is UTF-8 that passes on whole lines only, so that nothing is buffered but
here. A line that is too long becomes a notification that says so, and nothing follows it.
Two names of the SDK are private (``mcp.client._transport``): ``test_sdk_contract.py`` says
what to do when they move.
"""

from __future__ import annotations

import asyncio
import codecs
import json
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
from mcp.types import JSONRPCNotification

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.mcp.http_transport import MAX_BYTES, http_client

#: Seconds for a server to start and to say what it is.
OPEN_TIMEOUT = 30.0

#: The encoding's name.
LINE_ENCODING = "antiphon_lines"
#: What is wrong with a program that writes such a line.
LINE_TOO_LONG = f"it wrote a line of more than {MAX_BYTES >> 20} MiB"

_METHOD = "antiphon/too_long"
_NOTICE = json.dumps({"jsonrpc": "2.0", "method": _METHOD}) + "\n"

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


def is_too_long(message: object) -> bool:
    """Whether a message stands in the place of a line that was too long."""
    return isinstance(message, JSONRPCNotification) and message.method == _METHOD


class LineDecoder(codecs.IncrementalDecoder):
    """Bytes to text, line by line. What is no UTF-8 becomes what is no text."""

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._partial_line: list[bytes] = []
        self._size = 0
        self._is_stopped = False

    def decode(self, data: bytes, final: bool = False) -> str:  # type: ignore[override]
        """The lines that are over by now, "" if there are none."""
        if self._is_stopped:
            return ""
        whole, newline, rest = data.rpartition(b"\n")
        lines = b"".join((*self._partial_line, whole, newline)) if newline else b""
        if newline:
            self._partial_line, self._size = [], 0
        self._partial_line.append(rest)
        self._size += len(rest)
        text = lines.decode(errors="replace")
        if self._size <= MAX_BYTES:
            return text
        self._partial_line, self._is_stopped = [], True
        return text + _NOTICE

    def reset(self) -> None:
        """Nothing has been read."""
        self._partial_line, self._size, self._is_stopped = [], 0, False


def _find_codec(name: str) -> codecs.CodecInfo | None:
    if name != LINE_ENCODING:
        return None
    # What is written to the program is plain UTF-8.
    return codecs.CodecInfo(
        codecs.utf_8_encode, codecs.utf_8_decode, incrementaldecoder=LineDecoder, name=LINE_ENCODING
    )


codecs.register(_find_codec)
