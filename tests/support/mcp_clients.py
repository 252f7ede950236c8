"""The official MCP client, at the server's two doors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters, types
from mcp.client.streamable_http import streamable_http_client

from support.command_line import PROGRAM, environment
from support.http_server import Address

#: How the client opens: by a handshake, as most do, or without one, as the newest do.
MODES = ("legacy", "auto")


@asynccontextmanager
async def over_http(
    server: Address, mode: str = "auto", headers: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A client of a server's ``/mcp``."""
    async with httpx2.AsyncClient(headers=dict(headers or {}), timeout=30) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with Client(transport, mode=mode, cache=None, **options) as client:
            yield client


def program(home: Path, *flags: str, model: str = 'kind = "scripted"') -> StdioServerParameters:
    """``antiphon mcp`` with a database in ``home``, and one model, ``m``."""
    config = home / "antiphon.toml"
    config.write_text(f'model = "m"\n[models.m]\n{model}\n')
    return StdioServerParameters(
        command=PROGRAM,
        args=["mcp", "--config", str(config), "--store", f"sqlite:{home / 'a.db'}", *flags],
        env=environment(home),
        cwd=home,
    )


async def call(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """A tool's result, which must be one, and the same as text and as structure."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    body: dict[str, Any] = result.structured_content
    assert json.loads(block.text) == body
    return body


async def tool_error(client: Client, tool: str, /, **arguments: Any) -> str:
    """What a tool says that went wrong."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    return block.text
