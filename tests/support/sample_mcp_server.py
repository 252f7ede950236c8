"""A real MCP server for tests, made with the official SDK: over stdio, or over HTTP.

    python tests/support/sample_mcp_server.py stdio
    python tests/support/sample_mcp_server.py http PORT

``--old`` speaks the older revision of the protocol only, which has sessions. ``--json``
answers in one piece rather than by a stream. Whatever a program could do wrong before it
speaks, it does by ``--die`` and ``--hang``; ``--count FILE`` adds a line each time it starts.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from mcp import types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.utilities.types import Image
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

OLD = "--old" in sys.argv
#: The SDK keeps the program's own output from the pipe that it speaks through.
PIPE = os.dup(1)
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(100)


class Weather(BaseModel):
    city: str
    degrees: float


server = MCPServer("tests", log_level="CRITICAL")
began, cancelled = asyncio.Event(), asyncio.Event()
meeting: list[asyncio.Event] = []


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool()
async def sleep() -> str:
    """Sleep until the caller gives up."""
    began.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.set()
        raise
    return "never"


@server.tool()
async def wait_for(what: str) -> str:
    """Wait until ``sleep`` began, or was cancelled."""
    await {"began": began, "cancelled": cancelled}[what].wait()
    return what


@server.tool()
async def meet() -> str:
    """Answer when two have asked."""
    mine = asyncio.Event()
    meeting.append(mine)
    if len(meeting) == 2:
        for one in meeting:
            one.set()
        meeting.clear()
    await mine.wait()
    return "met"


@server.tool(structured_output=False)
def image() -> list[Any]:
    """An image, and words about it."""
    return ["A pixel:", Image(data=PIXEL, format="png")]


@server.tool()
def weather(city: str) -> Weather:
    """Structured content."""
    return Weather(city=city, degrees=21.5)


@server.tool()
def numbers() -> list[int]:
    """A list, which the SDK wraps."""
    return [1, 2, 3]


@server.tool()
def summary() -> types.CallToolResult:
    """Words and structured content that say different things."""
    return types.CallToolResult(
        content=[types.TextContent(text="Two orders.")], structured_content={"orders": [1, 2]}
    )


@server.tool()
def files() -> types.CallToolResult:
    """Resources of each kind."""
    text = types.TextResourceContents(uri="file:///a.txt", text="words of a file")
    blob = types.BlobResourceContents(uri="file:///b.bin", blob="AAECAw==")
    return types.CallToolResult(
        content=[
            types.EmbeddedResource(resource=text),
            types.EmbeddedResource(resource=blob),
            types.ResourceLink(name="report", uri="file:///c.pdf"),
            types.AudioContent(data="AAEC", mime_type="audio/wav"),
        ]
    )


@server.tool()
def huge(size: int) -> str:
    """A text of that many characters."""
    return "x" * size


@server.tool()
def controls() -> str:
    """What a terminal would obey, and what no text has."""
    return "a\x00b\x1b[31mc\x9bd\te\n"


@server.tool()
def say(text: str) -> str:
    """The same text."""
    return text


@server.tool()
async def record(file: str, answer: str | None = None) -> str:
    """Add a line to a file, and answer with a text; without one, never."""
    _add_line(file)
    if answer is None:
        await asyncio.Event().wait()
    return answer or ""


def _add_line(file: str) -> None:
    with Path(file).open("a") as runs:
        runs.write("run\n")


@server.tool()
def variable(name: str) -> str:
    """A variable of the process."""
    return os.environ.get(name, "not set")


@server.tool()
def header(name: str, ctx: Context) -> str:
    """A header of the request."""
    return (ctx.headers or {}).get(name, "not sent")


@server.tool()
def leak(ctx: Context) -> str:
    """Fail with the key in the message, as careless servers do."""
    raise ToolError(f"401 for {(ctx.headers or {}).get('authorization')} at {os.environ}")


@server.tool()
def die() -> str:
    """End the process at once."""
    os._exit(3)


@server.tool()
async def flood() -> str:
    """Write one line without an end, and never answer."""
    threading.Thread(target=_flood, daemon=True).start()
    await asyncio.Event().wait()
    return "never"


def _flood() -> None:
    while True:
        os.write(PIPE, b"x" * 65536)


@server.tool()
def scribble() -> str:
    """Write what is no text."""
    os.write(PIPE, b"\xff\xfe\n")
    return "scribbled"


@server.tool()
async def grow(name: str, ctx: Context) -> str:
    """Offer one more tool, and say so."""

    def more() -> str:
        return name

    server.add_tool(more, name=name, description=f"Tool {name}.")
    if OLD:
        await ctx.session.send_tool_list_changed()
    else:
        await ctx.notify_tools_changed()
    return "grown"


@server.tool(name="strange name/ü")
def strange() -> str:
    """Its name is none that models take."""
    return "strange"


@server.tool(name="strange_name__")
def plain() -> str:
    """Its name is what would be left of the strange one."""
    return "plain"


async def _old_stdio() -> None:
    inner = server._lowlevel_server
    async with stdio_server() as (reading, writing), inner.lifespan(inner) as state:
        await serve_loop(
            inner,
            reading,
            writing,
            lifespan_state=state,
            init_options=inner.create_initialization_options(),
        )


def _old(app: ASGIApp) -> ASGIApp:
    """HTTP as servers before the newer revision answer to it."""

    async def old(scope: Scope, receive: Receive, send: Send) -> None:
        sent = dict(scope.get("headers", ())).get(b"mcp-protocol-version", b"")
        if sent >= b"2026":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"Unsupported protocol version"})
        else:
            await app(scope, receive, send)

    return old


def _http(port: int) -> None:
    listening = socket.create_server(("127.0.0.1", port))
    print(listening.getsockname()[1], flush=True)
    app: ASGIApp = server.streamable_http_app(json_response="--json" in sys.argv)
    config = uvicorn.Config(_old(app) if OLD else app, log_level="critical", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    if "--count" in sys.argv:
        with Path(sys.argv[sys.argv.index("--count") + 1]).open("a") as file:
            file.write("started\n")
    if "--die" in sys.argv:
        sys.exit(3)
    if "--hang" in sys.argv:
        sys.stdin.read()
    if sys.argv[1] == "http":
        _http(int(sys.argv[2]))
    elif OLD:
        asyncio.run(_old_stdio())
    else:
        server.run("stdio")
