"""MCP connections: a server that dies is restarted, with a backoff if it keeps dying."""

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
def test_backoff_delay_grows_up_to_the_cap(failures: int) -> None:
    backoff = Backoff()
    assert backoff.delay(0) == 0.0
    assert backoff.delay(failures) <= backoff.delay(failures + 1) <= backoff.cap
    assert backoff.delay(1) == backoff.base


@pytest.mark.parametrize("flags", [(), ("--old",)])
async def test_program_that_dies_during_a_call_is_restarted(tmp_path: Path, flags: Any) -> None:
    starts = tmp_path / "starts"
    server = stdio_config("files", *flags, "--count", str(starts))
    async with gateway(server) as manager, open_toolset(manager) as toolset:
        lost_error = error_message(await toolset.call_tool(call("files__die")))
        assert lost_error == (
            "The MCP server 'files' is not available: the connection was lost."
            " Whether the call had an effect is not known."
        )
        assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"
        async with open_toolset(manager) as second_toolset:
            assert await second_toolset.call_tool(call("files__say", text="back")) == "back"
    assert len(starts.read_text().split()) == 2


async def test_other_running_calls_fail_when_the_program_dies() -> None:
    async with gateway(stdio_config()) as manager, open_toolset(manager) as toolset:
        sleeping = asyncio.create_task(toolset.call_tool(call("files__sleep")))
        await toolset.call_tool(call("files__wait_for", what="began"))
        await toolset.call_tool(call("files__die"))
        assert "the connection was lost" in error_message(await sleeping)


async def test_idle_program_that_dies_is_restarted_on_the_next_call(tmp_path: Path) -> None:
    async with gateway(stdio_config()) as manager, open_toolset(manager) as toolset:
        (connection,) = manager._connections.values()
        session = connection._session
        assert session is not None
        await toolset.call_tool(call("files__die"))
        # Its end is noticed and cleaned up without another request.
        await wait_until(lambda: session.is_closed)
        assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"


async def test_program_that_cannot_start_is_retried_after_a_backoff(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    server = stdio_config("files", "--die", "--count", str(starts))
    async with gateway(server, backoff=Backoff(base=50.0)) as manager:
        for _ in range(3):
            with pytest.raises(ToolServerUnavailableError) as caught:
                await manager.open_toolset([server_request()])
            assert "it ended before it answered" in caught.value.message
        assert "it is tried again in " in caught.value.message
    # The tool list may be requested again, but the program is not started again.
    assert len(starts.read_text().split()) == 1


async def test_short_backoff_is_waited_for(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    server = stdio_config("files", "--die", "--count", str(starts))
    async with gateway(server, backoff=Backoff(base=0.01)) as manager:
        for _ in range(3):
            with pytest.raises(ToolServerUnavailableError, match="ended before it answered"):
                await manager.open_toolset([server_request()])
    assert len(starts.read_text().split()) == 3


@pytest.mark.parametrize("flags", [(), ("--old",), ("--json",)])
async def test_http_server_is_reconnected_after_a_restart(flags: Any) -> None:
    http = HttpServer(*flags)
    http.start()

    try:
        server = McpServerConfig(label="files", url=http.url, require_approval="never")
        async with gateway(server, backoff=NO_BACKOFF) as manager, open_toolset(manager) as toolset:
            assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"
            await asyncio.to_thread(http.kill)
            lost_error = error_message(await toolset.call_tool(call("files__add", a=1, b=2)))
            assert lost_error.startswith("The MCP server 'files' is not available: ")
            await asyncio.to_thread(http.start)
            assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"
    finally:
        http.kill()


@pytest.mark.parametrize("flags", [(), ("--old",), ("--json",)])
async def test_call_fails_when_the_http_server_dies(flags: Any) -> None:
    http = HttpServer(*flags)
    http.start()

    try:
        server = McpServerConfig(label="files", url=http.url, require_approval="never")
        async with gateway(server) as manager, open_toolset(manager) as toolset:
            sleeping = asyncio.create_task(toolset.call_tool(call("files__sleep")))
            await toolset.call_tool(call("files__wait_for", what="began"))
            await asyncio.to_thread(http.kill)
            lost_error = error_message(await sleeping)
            assert lost_error.startswith("The MCP server 'files' is not available: the connection")
            assert lost_error.endswith("Whether the call had an effect is not known.")
    finally:
        http.kill()
