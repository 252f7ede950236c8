"""What tests of MCP servers share."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from antiphon.core.items import FunctionCall
from antiphon.core.mcp_servers import McpServerConfig, McpServerRequest
from antiphon.core.secrets import Secret
from antiphon.tools.mcp.connection import Backoff
from antiphon.tools.mcp.manager import McpServerManager
from antiphon.tools.mcp.toolset import McpServerToolset
from antiphon.turn.protocols import ToolErrorOutput
from support.program_process import parent_process

_PROGRAM = (sys.executable, str(Path(__file__).with_name("sample_mcp_server.py")))
#: No waiting before a server that died is started again.
NO_BACKOFF = Backoff(base=0.0)
LOCAL_URLS = ("http://127.0.0.1:*",)


def stdio_command(*flags: str) -> tuple[str, ...]:
    """A command that runs the server over stdio, without a second of CPU to load the SDK."""
    forked = Path(__file__).with_name("forked_program.py")
    return (sys.executable, "-S", str(forked), parent_process("mcp"), "mcp", "stdio", *flags)


def stdio_config(label: str = "files", *flags: str, **fields: Any) -> McpServerConfig:
    """A configured server that is a program."""
    fields = {"require_approval": "never", **fields}
    return McpServerConfig(label=label, command=stdio_command(*flags), **fields)


class HttpServer:
    """The server over HTTP, as a process of its own that can be killed and started again."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> Secret:
        return Secret(f"http://127.0.0.1:{self.port}/mcp")

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*_PROGRAM, "http", str(self.port), *self._flags], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def http_server(*flags: str) -> Iterator[HttpServer]:
    server = HttpServer(*flags)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def server_request(label: str = "files", **fields: Any) -> McpServerRequest:
    """What a request asks for; a server of its own is asked without approvals."""
    if "url" in fields:
        fields = {"require_approval": "never", **fields}
    return McpServerRequest(label=label, param="tools[0]", **fields)


def call(name: str, /, **arguments: Any) -> FunctionCall:
    return FunctionCall("call_1", name, json.dumps(arguments))


@asynccontextmanager
async def gateway(*servers: McpServerConfig, **options: Any) -> AsyncIterator[McpServerManager]:
    """A gateway that closes with the context; requests may name servers of this machine."""
    opened = McpServerManager(servers, LOCAL_URLS, **{"backoff": NO_BACKOFF, **options})
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def open_toolset(
    opened: McpServerManager, *servers: McpServerRequest, taken: Sequence[str] = ()
) -> AsyncIterator[McpServerToolset]:
    toolset = await opened.open_toolset(servers or (server_request(),), reserved_names=taken)
    try:
        yield toolset
    finally:
        await toolset.aclose()


def function_names(toolset: McpServerToolset) -> set[str]:
    return {function.name for function in toolset.functions}


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what only another task can bring about."""
    for _ in count():
        if condition():
            return
        await asyncio.sleep(0.001)


def error_message(output: str | None) -> str:
    """The sentence of an error output."""
    assert isinstance(output, ToolErrorOutput)
    shown = json.loads(output)
    assert set(shown) == {"error"}
    return str(shown["error"])
