"""The way from turns to servers: what is refused, what is asked once, what is told of failures."""

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
    PROGRAM,
    call,
    function_names,
    gateway,
    http_server,
    open_toolset,
    server_request,
    stdio_config,
    wait_until,
)

HERE = Secret("http://127.0.0.1:1/mcp")
CANARY = "canary-0123456789-canary"


def refused(*asked: McpServerRequest) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        McpServerManager([McpServerConfig(label="files", command=("x",))], LOCAL_URLS).validate(
            asked
        )
    assert CANARY not in str(caught.value)
    return caught.value


def unavailable(asked: McpServerRequest, *servers: McpServerConfig, **options: Any) -> str:
    async def run() -> str:
        async with gateway(*servers, **options) as opened:
            with pytest.raises(ToolServerUnavailableError) as caught:
                await opened.open_toolset([asked])
            return caught.value.message

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("asked", "code", "param"),
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
        (server_request("x" * 41, url=HERE), "invalid_value", "server_label"),
        (server_request("a\nb", url=HERE), "invalid_value", "server_label"),
        (server_request(headers={"A": Secret(CANARY)}), "invalid_value", "headers"),
        (
            server_request(url=HERE, headers={"A": Secret(f"{CANARY}\r\nB: c")}),
            "invalid_value",
            "headers",
        ),
        (
            server_request(url=HERE, headers={"A": Secret(f"{CANARY}ü€")}),
            "invalid_value",
            "headers",
        ),
        (
            server_request(url=HERE, headers={f"A {CANARY}": Secret("b")}),
            "invalid_value",
            "headers",
        ),
        (
            server_request(url=HERE, headers={"Host": Secret("inner.test")}),
            "invalid_value",
            "headers",
        ),
    ],
)
def test_what_a_request_cannot_have(asked: McpServerRequest, code: str, param: str) -> None:
    error = refused(asked)
    assert (error.code, error.param) == (code, f"tools[0].{param}")


def test_two_servers_of_one_label() -> None:
    assert refused(server_request(), server_request()).code == "server_label_duplicate"


def test_no_url_is_called_unless_it_is_allowed() -> None:
    with pytest.raises(InvalidRequestError):
        McpServerManager().validate([server_request(url=HERE)])


async def test_source_checks_as_well() -> None:
    async with gateway() as opened:
        with pytest.raises(InvalidRequestError):
            await opened.open_toolset([server_request("other")])


def test_a_rule_that_is_none() -> None:
    with pytest.raises(ConfigError):
        McpServerManager([], ["not a host"])


async def test_the_sdk_is_not_loaded_before_it_is_needed() -> None:
    program = (
        "import sys\n"
        "from antiphon.tools.mcp.manager import McpServerManager\n"
        "from antiphon.core.mcp_servers import McpServerConfig\n"
        "McpServerManager([McpServerConfig(label='a', command=('x',))], ['*'])\n"
        "assert not {'mcp', 'httpx2', 'anyio'} & sys.modules.keys()\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert (await process.wait()) == 0


def test_a_list_is_asked_for_once_and_again_when_it_changed() -> None:
    async def run(*flags: str) -> None:
        async with gateway(stdio_config("files", *flags)) as opened:
            async with open_toolset(opened) as before:
                assert "files__late" not in function_names(before)
                link = peer_of(opened)._session
                assert link is not None
                async with open_toolset(opened) as again:
                    # What was known is what is used: the very same objects.
                    assert again._servers[0].tools is link.tools
                assert await before.call_tool(call("files__grow", name="late")) == "grown"
                await told(opened)
            async with open_toolset(opened) as after:
                assert "files__late" in function_names(after)
                assert await after.call_tool(call("files__late")) == "late"

    asyncio.run(run())
    asyncio.run(run("--old"))


def peer_of(opened: McpServerManager) -> Any:
    (peer,) = opened._connections.values()
    return peer


async def told(opened: McpServerManager) -> None:
    """Until the news of a change is here: it comes beside the answer, before or after it."""
    await wait_until(lambda: peer_of(opened)._session.tools is None)


def test_a_list_over_http_is_renewed_too() -> None:
    async def run(server: McpServerConfig) -> None:
        async with gateway(server) as opened:
            async with open_toolset(opened) as before:
                assert await before.call_tool(call("files__grow", name="late")) == "grown"
                await told(opened)
            async with open_toolset(opened) as after:
                assert "files__late" in function_names(after)

    for flags in ((), ("--old",)):
        with http_server(*flags) as http:
            asyncio.run(run(McpServerConfig(label="files", url=http.url, require_approval="never")))


def test_why_a_server_did_not_say_what_tools_it_has() -> None:
    gone = "The MCP server 'files' did not say what tools it has: "
    nothing = McpServerConfig(label="files", command=("/no/such/program", CANARY))
    assert unavailable(server_request(), nothing) == (
        f"{gone}its program could not be run: No such file or directory."
    )
    ended = McpServerConfig(label="files", command=(*PROGRAM, "stdio", "--die"))
    assert unavailable(server_request(), ended) == f"{gone}it ended before it answered."
    nobody = server_request(url=Secret(f"http://127.0.0.1:1/{CANARY}?key={CANARY}"))
    assert unavailable(nobody) == f"{gone}it could not be reached."


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from antiphon.tools.mcp import client

    monkeypatch.setattr(client, "OPEN_TIMEOUT", 0.5)
    silent = McpServerConfig(label="files", command=(*PROGRAM, "stdio", "--hang"))
    assert "it did not answer within" in unavailable(server_request(), silent)


async def test_one_server_that_fails_closes_the_others() -> None:

    with http_server("--old") as http:
        url = http.url
        async with gateway() as opened:
            with pytest.raises(ToolServerUnavailableError, match="'other'"):
                await opened.open_toolset(
                    [server_request(url=url), server_request("other", url=HERE)]
                )
            assert opened._request_connections == set()


async def test_a_turn_that_is_cancelled_while_a_server_starts_leaves_it_starting() -> None:
    async with gateway(stdio_config()) as opened:
        waiting = asyncio.create_task(opened.open_toolset([server_request()]))
        await wait_until(lambda: peer_of(opened)._session is not None)
        starting = peer_of(opened)._session
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with open_toolset(opened) as made:
            assert await made.call_tool(call("files__add", a=1, b=2)) == "3"
        assert peer_of(opened)._session is starting


def test_closing_while_a_server_starts() -> None:
    async def run() -> None:
        opened = McpServerManager([stdio_config()])
        waiting = asyncio.create_task(opened.open_toolset([server_request()]))
        await wait_until(lambda: peer_of(opened)._session is not None)
        await opened.close()
        with pytest.raises(ToolServerUnavailableError):
            await waiting
        with pytest.raises(ToolServerUnavailableError, match="being closed"):
            await opened.open_toolset([server_request()])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_loop_that_ends_takes_its_servers_along(tmp_path: Path) -> None:
    async def run() -> Any:
        opened = McpServerManager([stdio_config()])
        await opened.open_toolset([server_request()])
        return peer_of(opened)._session

    assert asyncio.run(run()).is_closed


def test_keys_are_nowhere_but_on_the_way(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(0)
    seen: list[object] = []

    async def run(url: str) -> None:
        key = {"Authorization": Secret(f"Bearer {CANARY}"), "X-Key": Secret(CANARY)}
        asked = server_request(url=Secret(f"{url}?key={CANARY}"), headers=key)
        async with gateway() as opened:
            made = await opened.open_toolset([asked])
            seen.extend((asked, repr(made), repr(opened), made.functions, made.tool_listings))
            for one in (
                call("files__header", name="authorization"),
                call("files__header", name="x-key"),
                call("files__leak"),
                call("files__say", text=f"the key is {CANARY}"),
                call(CANARY),
                call("files__add", a=CANARY),
            ):
                output = await made.call_tool(one)
                seen.append(output)
            assert seen[-6] == "[hidden]"
            assert seen[-3] == "the key is [hidden]"
            await made.aclose()
            assert opened._request_connections == set()

    async def program() -> None:
        env = {"TOKEN": Secret(CANARY)}
        async with gateway(stdio_config(env=env)) as opened, open_toolset(opened) as made:
            assert await made.call_tool(call("files__variable", name="TOKEN")) == "[hidden]"
            seen.extend([env, await made.call_tool(call("files__leak"))])

    with http_server("--old") as http:
        asyncio.run(run(http.url.reveal()))
    asyncio.run(program())
    assert CANARY not in repr(seen)
    assert CANARY not in caplog.text


async def test_a_program_gets_the_variables_it_was_given_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XAI_API_KEY", CANARY)
    async with (
        gateway(stdio_config(env={"MODE": Secret("quick")})) as opened,
        open_toolset(opened) as made,
    ):
        assert await made.call_tool(call("files__variable", name="MODE")) == "quick"
        assert await made.call_tool(call("files__variable", name="XAI_API_KEY")) == "not set"


async def test_it_is_what_a_turn_wants() -> None:
    async with gateway(stdio_config()) as opened:
        servers: McpToolProvider = opened
        made: McpToolset = await servers.open_toolset([server_request()], reserved_names=[])
        assert made.approvals == {"files": "never"}
    assert issubclass(ToolServerUnavailableError, AntiphonError)
