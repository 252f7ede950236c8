"""A server that dies comes back, and one that keeps dying is not started without end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.errors import ToolServerUnavailableError
from antiphon.tools.mcp.connection import Backoff
from support.mcp_toolsets import (
    NO_BACKOFF,
    HttpServer,
    call,
    error_message,
    gateway,
    open_toolset,
    server_request,
    stdio_config,
    wait_until,
)

pytestmark = pytest.mark.slow


@given(st.integers(0, 2000))
def test_how_long_to_wait(failures: int) -> None:
    backoff = Backoff()
    assert backoff.delay(0) == 0.0
    assert backoff.delay(failures) <= backoff.delay(failures + 1) <= backoff.cap
    assert backoff.delay(1) == backoff.base


@pytest.mark.parametrize("flags", [(), ("--old",)])
async def test_a_program_that_dies_in_a_call_is_started_again(tmp_path: Path, flags: Any) -> None:
    starts = tmp_path / "starts"
    server = stdio_config("files", *flags, "--count", str(starts))
    async with gateway(server) as opened, open_toolset(opened) as made:
        lost = error_message(await made.call_tool(call("files__die")))
        assert lost == (
            "The MCP server 'files' is not available: the connection was lost."
            " Whether the call had an effect is not known."
        )
        assert await made.call_tool(call("files__add", a=1, b=2)) == "3"
        async with open_toolset(opened) as again:
            assert await again.call_tool(call("files__say", text="back")) == "back"
    assert len(starts.read_text().split()) == 2


async def test_other_calls_of_a_program_that_dies_get_an_answer() -> None:
    async with gateway(stdio_config()) as opened, open_toolset(opened) as made:
        sleeping = asyncio.create_task(made.call_tool(call("files__sleep")))
        await made.call_tool(call("files__wait_for", what="began"))
        await made.call_tool(call("files__die"))
        assert "the connection was lost" in error_message(await sleeping)


async def test_a_program_that_dies_while_nobody_asks(tmp_path: Path) -> None:
    async with gateway(stdio_config()) as opened, open_toolset(opened) as made:
        (peer,) = opened._connections.values()
        link = peer._session
        assert link is not None
        await made.call_tool(call("files__die"))
        # Its end is noticed, and tidied up, without another question.
        await wait_until(lambda: link.is_closed)
        assert await made.call_tool(call("files__add", a=1, b=2)) == "3"


async def test_a_program_that_cannot_start_is_left_alone_for_a_while(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    server = stdio_config("files", "--die", "--count", str(starts))
    async with gateway(server, backoff=Backoff(base=50.0)) as opened:
        for _ in range(3):
            with pytest.raises(ToolServerUnavailableError) as caught:
                await opened.open_toolset([server_request()])
            assert "it ended before it answered" in caught.value.message
        assert "it is tried again in " in caught.value.message
    # A list may be asked for twice, a program is not started twice.
    assert len(starts.read_text().split()) == 1


async def test_a_short_wait_is_waited_for(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    server = stdio_config("files", "--die", "--count", str(starts))
    async with gateway(server, backoff=Backoff(base=0.01)) as opened:
        for _ in range(3):
            with pytest.raises(ToolServerUnavailableError, match="ended before it answered"):
                await opened.open_toolset([server_request()])
    assert len(starts.read_text().split()) == 3


@pytest.mark.parametrize("flags", [(), ("--old",), ("--json",)])
async def test_an_http_server_that_dies_and_comes_back(flags: Any) -> None:
    http = HttpServer(*flags)
    http.start()

    try:
        server = McpServerConfig(label="files", url=http.url, require_approval="never")
        async with gateway(server, backoff=NO_BACKOFF) as opened, open_toolset(opened) as made:
            assert await made.call_tool(call("files__add", a=1, b=2)) == "3"
            await asyncio.to_thread(http.kill)
            gone = error_message(await made.call_tool(call("files__add", a=1, b=2)))
            assert gone.startswith("The MCP server 'files' is not available: ")
            await asyncio.to_thread(http.start)
            assert await made.call_tool(call("files__add", a=1, b=2)) == "3"
    finally:
        http.kill()


@pytest.mark.parametrize("flags", [(), ("--old",), ("--json",)])
async def test_an_http_server_that_dies_in_a_call(flags: Any) -> None:
    http = HttpServer(*flags)
    http.start()

    try:
        server = McpServerConfig(label="files", url=http.url, require_approval="never")
        async with gateway(server) as opened, open_toolset(opened) as made:
            sleeping = asyncio.create_task(made.call_tool(call("files__sleep")))
            await made.call_tool(call("files__wait_for", what="began"))
            await asyncio.to_thread(http.kill)
            lost = error_message(await sleeping)
            assert lost.startswith("The MCP server 'files' is not available: the connection")
            assert lost.endswith("Whether the call had an effect is not known.")
    finally:
        http.kill()
