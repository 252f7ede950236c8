"""The MCP server manager: refused requests, cached tool lists, failures, and secrets."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.mcp_servers import McpServerConfig, McpServerRequest
from antiphon.core.secrets import Secret
from antiphon.errors import (
    AntiphonError,
    ConfigError,
    InvalidRequestError,
    ToolServerUnavailableError,
)
from antiphon.tools.mcp.manager import McpServerManager
from antiphon.turn.protocols import McpToolProvider, McpToolset
from support.mcp_toolsets import (
    LOCAL_URLS,
    call,
    function_names,
    gateway,
    http_server,
    open_toolset,
    server_request,
    stdio_command,
    stdio_config,
    wait_until,
)

UNREACHABLE_URL = Secret("http://127.0.0.1:1/mcp")
CANARY = "canary-0123456789-canary"


def validation_error(*server_spec: McpServerRequest) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        McpServerManager([McpServerConfig(label="files", command=("x",))], LOCAL_URLS).validate(
            server_spec
        )
    assert CANARY not in str(caught.value)
    return caught.value


def unavailable(server_spec: McpServerRequest, *servers: McpServerConfig, **options: Any) -> str:
    async def run() -> str:
        async with gateway(*servers, **options) as manager:
            with pytest.raises(ToolServerUnavailableError) as caught:
                await manager.open_toolset([server_spec])
            return caught.value.message

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("server_spec", "code", "param"),
    [
        (
            server_request(url=Secret(f"https://a.test/{CANARY}")),
            "server_url_not_allowed",
            "server_url",
        ),
        (server_request(url=Secret("file:///etc/passwd")), "server_url_not_allowed", "server_url"),
        (
            server_request(url=Secret(f"http://x:{CANARY}@127.0.0.1/")),
            "server_url_not_allowed",
            "server_url",
        ),
        (server_request("other"), "mcp_server_not_found", "server_label"),
        (server_request(""), "invalid_value", "server_label"),
        (server_request("x" * 41, url=UNREACHABLE_URL), "invalid_value", "server_label"),
        (server_request("a\nb", url=UNREACHABLE_URL), "invalid_value", "server_label"),
        (server_request(headers={"A": Secret(CANARY)}), "invalid_value", "headers"),
        (
            server_request(url=UNREACHABLE_URL, headers={"A": Secret(f"{CANARY}\r\nB: c")}),
            "invalid_value",
            "headers",
        ),
        (
            server_request(url=UNREACHABLE_URL, headers={"A": Secret(f"{CANARY}ü€")}),
            "invalid_value",
            "headers",
        ),
        (
            server_request(url=UNREACHABLE_URL, headers={f"A {CANARY}": Secret("b")}),
            "invalid_value",
            "headers",
        ),
        (
            server_request(url=UNREACHABLE_URL, headers={"Host": Secret("inner.test")}),
            "invalid_value",
            "headers",
        ),
    ],
)
def test_invalid_server_requests_are_refused(
    server_spec: McpServerRequest, code: str, param: str
) -> None:
    error = validation_error(server_spec)
    assert (error.code, error.param) == (code, f"tools[0].{param}")


def test_duplicate_server_label_is_refused() -> None:
    assert validation_error(server_request(), server_request()).code == "server_label_duplicate"


def test_urls_are_refused_by_default() -> None:
    with pytest.raises(InvalidRequestError):
        McpServerManager().validate([server_request(url=UNREACHABLE_URL)])


async def test_open_toolset_validates_requests() -> None:
    async with gateway() as manager:
        with pytest.raises(InvalidRequestError):
            await manager.open_toolset([server_request("other")])


def test_invalid_url_rule_is_refused() -> None:
    with pytest.raises(ConfigError):
        McpServerManager([], ["not a host"])


async def test_mcp_sdk_is_imported_on_first_use() -> None:
    program = (
        "import sys\n"
        "from antiphon.tools.mcp.manager import McpServerManager\n"
        "from antiphon.core.mcp_servers import McpServerConfig\n"
        "McpServerManager([McpServerConfig(label='a', command=('x',))], ['*'])\n"
        "assert not {'mcp', 'httpx2', 'anyio'} & sys.modules.keys()\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert (await process.wait()) == 0


@pytest.mark.slow
def test_tool_list_is_cached_until_it_changes() -> None:
    async def run(*flags: str) -> None:
        async with gateway(stdio_config("files", *flags)) as manager:
            async with open_toolset(manager) as before:
                assert "files__late" not in function_names(before)
                session = connection_of(manager)._session
                assert session is not None
                async with open_toolset(manager) as second_toolset:
                    # The cached tool list is used: the same objects.
                    assert second_toolset._servers[0].tools is session.tools
                assert await before.call_tool(call("files__grow", name="late")) == "grown"
                await wait_for_list_change(manager)
            async with open_toolset(manager) as after:
                assert "files__late" in function_names(after)
                assert await after.call_tool(call("files__late")) == "late"

    asyncio.run(run())
    asyncio.run(run("--old"))


def connection_of(manager: McpServerManager) -> Any:
    (connection,) = manager._connections.values()
    return connection


async def wait_for_list_change(manager: McpServerManager) -> None:
    """Waits for the list-changed notification, which may come before or after the answer."""
    await wait_until(lambda: connection_of(manager)._session.tools is None)


@pytest.mark.slow
def test_tool_list_over_http_is_refreshed_after_a_change() -> None:
    async def run(server: McpServerConfig) -> None:
        async with gateway(server) as manager:
            async with open_toolset(manager) as before:
                assert await before.call_tool(call("files__grow", name="late")) == "grown"
                await wait_for_list_change(manager)
            async with open_toolset(manager) as after:
                assert "files__late" in function_names(after)

    for flags in ((), ("--old",)):
        with http_server(*flags) as http:
            asyncio.run(run(McpServerConfig(label="files", url=http.url, require_approval="never")))


def test_listing_failures_are_explained() -> None:
    prefix = "The MCP server 'files' did not say what tools it has: "
    nothing = McpServerConfig(label="files", command=("/no/such/program", CANARY))
    assert unavailable(server_request(), nothing) == (
        f"{prefix}its program could not be run: No such file or directory."
    )
    ended = McpServerConfig(label="files", command=stdio_command("--die"))
    assert unavailable(server_request(), ended) == f"{prefix}it ended before it answered."
    unreachable = server_request(url=Secret(f"http://127.0.0.1:1/{CANARY}?key={CANARY}"))
    assert unavailable(unreachable) == f"{prefix}it could not be reached."


def test_server_that_does_not_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from antiphon.tools.mcp import client

    monkeypatch.setattr(client, "OPEN_TIMEOUT", 0.5)
    hanging = McpServerConfig(label="files", command=stdio_command("--hang"))
    assert "it did not answer within" in unavailable(server_request(), hanging)


async def test_failing_server_closes_the_other_connections() -> None:

    with http_server("--old") as http:
        url = http.url
        async with gateway() as manager:
            with pytest.raises(ToolServerUnavailableError, match="'other'"):
                await manager.open_toolset(
                    [server_request(url=url), server_request("other", url=UNREACHABLE_URL)]
                )
            assert manager._request_connections == set()


async def test_cancelled_turn_does_not_stop_a_starting_server() -> None:
    async with gateway(stdio_config()) as manager:
        waiting = asyncio.create_task(manager.open_toolset([server_request()]))
        await wait_until(lambda: connection_of(manager)._session is not None)
        starting = connection_of(manager)._session
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with open_toolset(manager) as toolset:
            assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"
        assert connection_of(manager)._session is starting


def test_closing_while_a_server_starts() -> None:
    async def run() -> None:
        manager = McpServerManager([stdio_config()])
        waiting = asyncio.create_task(manager.open_toolset([server_request()]))
        await wait_until(lambda: connection_of(manager)._session is not None)
        await manager.close()
        with pytest.raises(ToolServerUnavailableError):
            await waiting
        with pytest.raises(ToolServerUnavailableError, match="being closed"):
            await manager.open_toolset([server_request()])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_event_loop_end_closes_servers(tmp_path: Path) -> None:
    async def run() -> Any:
        manager = McpServerManager([stdio_config()])
        await manager.open_toolset([server_request()])
        return connection_of(manager)._session

    assert asyncio.run(run()).is_closed


def test_secrets_are_in_no_output_or_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(0)
    exposed: list[object] = []

    async def run(url: str) -> None:
        key = {"Authorization": Secret(f"Bearer {CANARY}"), "X-Key": Secret(CANARY)}
        server_spec = server_request(url=Secret(f"{url}?key={CANARY}"), headers=key)
        async with gateway() as manager:
            toolset = await manager.open_toolset([server_spec])
            exposed.extend(
                (
                    server_spec,
                    repr(toolset),
                    repr(manager),
                    toolset.functions,
                    toolset.tool_listings,
                )
            )
            for one in (
                call("files__header", name="authorization"),
                call("files__header", name="x-key"),
                call("files__leak"),
                call("files__say", text=f"the key is {CANARY}"),
                call(CANARY),
                call("files__add", a=CANARY),
            ):
                output = await toolset.call_tool(one)
                exposed.append(output)
            assert exposed[-6] == "[hidden]"
            assert exposed[-3] == "the key is [hidden]"
            await toolset.aclose()
            assert manager._request_connections == set()

    async def program() -> None:
        env = {"TOKEN": Secret(CANARY)}
        async with gateway(stdio_config(env=env)) as manager, open_toolset(manager) as toolset:
            assert await toolset.call_tool(call("files__variable", name="TOKEN")) == "[hidden]"
            exposed.extend([env, await toolset.call_tool(call("files__leak"))])

    with http_server("--old") as http:
        asyncio.run(run(http.url.reveal()))
    asyncio.run(program())
    assert CANARY not in repr(exposed)
    assert CANARY not in caplog.text


async def test_program_gets_only_its_configured_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XAI_API_KEY", CANARY)
    async with (
        gateway(stdio_config(env={"MODE": Secret("quick")})) as manager,
        open_toolset(manager) as toolset,
    ):
        assert await toolset.call_tool(call("files__variable", name="MODE")) == "quick"
        assert await toolset.call_tool(call("files__variable", name="XAI_API_KEY")) == "not set"


async def test_manager_implements_the_tool_provider_protocol() -> None:
    async with gateway(stdio_config()) as manager:
        servers: McpToolProvider = manager
        toolset: McpToolset = await servers.open_toolset([server_request()], reserved_names=[])
        assert toolset.approvals == {"files": "never"}
    assert issubclass(ToolServerUnavailableError, AntiphonError)
