"""MCP toolsets in a turn: offered tools, results, errors, and approvals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.core.items import FunctionCall
from antiphon.core.mcp_servers import McpServerConfig, McpServerRequest
from antiphon.core.tool_rules import needs_approval
from antiphon.core.turns import McpTool
from antiphon.tools.mcp.results import MAX_OUTPUT_LENGTH
from support.mcp_toolsets import (
    HttpServer,
    call,
    error_message,
    function_names,
    gateway,
    http_server,
    open_toolset,
    server_request,
    stdio_config,
)

ServerSetup = tuple[list[McpServerConfig], McpServerRequest]


@pytest.fixture(scope="module")
def http() -> Iterator[dict[str, HttpServer]]:
    """HTTP servers shared by the module: each of their states is used by one test only."""
    with http_server() as new, http_server("--old") as old, http_server("--json") as whole:
        yield {"http": new, "old http": old, "json http": whole}


TRANSPORTS = ["stdio", "old stdio", "http", "old http", "json http"]


@pytest.fixture(params=TRANSPORTS)
def server_setup(request: pytest.FixtureRequest, http: dict[str, HttpServer]) -> ServerSetup:
    """A server named files, over every transport."""
    transport = str(request.param)
    if transport in http:
        return [], server_request(url=http[transport].url)
    return [stdio_config("files", *(["--old"] if "old" in transport else []))], server_request()


def http_config(http: dict[str, HttpServer], **fields: Any) -> McpServerConfig:
    """The config of a server that is already running."""
    return McpServerConfig(
        label="files", url=http["http"].url, **{"require_approval": "never", **fields}
    )


def answers(server_setup: ServerSetup, *calls: FunctionCall) -> list[str | None]:
    async def run() -> list[str | None]:
        servers, server_spec = server_setup
        async with gateway(*servers) as manager, open_toolset(manager, server_spec) as toolset:
            return [await toolset.call_tool(one) for one in calls]

    return asyncio.run(run())


def test_all_kinds_of_results_over_all_transports(server_setup: ServerSetup) -> None:
    added, image, weather, numbers, summary, files, controls = answers(
        server_setup,
        call("files__add", a=1, b=2),
        call("files__image"),
        call("files__weather", city="Rome"),
        call("files__numbers"),
        call("files__summary"),
        call("files__files"),
        call("files__controls"),
    )
    assert added == "3"
    assert image == "A pixel:\n[An image that cannot be shown here: image/png, 108 bytes.]"
    assert weather == '{"city":"Rome","degrees":21.5}'
    assert numbers == "[1,2,3]"
    assert summary == 'Two orders.\n{"orders":[1,2]}'
    assert files == (
        "words of a file\n[A file that cannot be shown here: file:///b.bin, 4 bytes.]\n"
        "[A resource named report: file:///c.pdf]\n"
        "[A sound that cannot be played here: audio/wav, 3 bytes.]"
    )
    assert controls == "a\ufffdb\ufffd[31mc\ufffdd\te\n"


def test_failures_are_error_outputs(server_setup: ServerSetup) -> None:
    failed, wrong, unread, nothing, huge = answers(
        server_setup,
        call("files__fail", why="no luck"),
        call("files__add", a="one"),
        FunctionCall("call_1", "files__add", "{not json"),
        call("files__delete"),
        call("files__huge", size=MAX_OUTPUT_LENGTH + 1),
    )
    assert "no luck" in error_message(failed)
    assert "valid integer" in error_message(wrong)
    assert "not valid JSON" in error_message(unread)
    assert "no tool named 'files__delete'" in error_message(nothing)
    assert huge is not None
    assert "[Cut here:" in huge[MAX_OUTPUT_LENGTH:]


async def test_invalid_tool_names_are_converted(server_setup: ServerSetup) -> None:
    servers, server_spec = server_setup
    async with gateway(*servers) as manager, open_toolset(manager, server_spec) as toolset:
        shown = sorted(name for name in function_names(toolset) if "strange" in name)
        plain, strange = sorted(shown, key=len)
        assert plain == "files__strange_name__"
        assert await toolset.call_tool(call(plain)) == "plain"
        assert await toolset.call_tool(call(strange)) == "strange"
        (listed,) = toolset.tool_listings
        assert {tool["name"] for tool in listed.tools} >= {"strange name/ü", "strange_name__"}


async def test_offered_functions_and_listings(http: dict[str, HttpServer]) -> None:
    async with gateway(http_config(http)) as manager, open_toolset(manager) as toolset:
        (function,) = (one for one in toolset.functions if one.name == "files__add")
        assert function.description == "Add two numbers."
        assert function.parameters is not None
        assert function.parameters["required"] == ["a", "b"]
        (listed,) = toolset.tool_listings
        assert (listed.server_label, listed.error) == ("files", None)
        (shown,) = (tool for tool in listed.tools if tool["name"] == "add")
        assert set(shown) == {"name", "description", "input_schema", "annotations"}
        assert shown["input_schema"] == function.parameters
        json.dumps(listed.tools)


async def test_calls_of_other_tools_are_not_answered(http: dict[str, HttpServer]) -> None:
    taken = ["files__add", "files__mine"]
    async with gateway(http_config(http)) as manager, open_toolset(manager, taken=taken) as toolset:
        assert await toolset.call_tool(call("get_weather")) is None
        assert await toolset.call_tool(call("files__mine")) is None
        assert await toolset.call_tool(call("files__add", a=1, b=2)) is None
        assert toolset.server_of("files__add") is None
        assert toolset.server_of("get_weather") is None
        assert toolset.server_of("files__say") == "files"
        assert toolset.server_of("files__unknown") == "files"
        (renamed,) = (name for name in function_names(toolset) if name.startswith("files__add_"))
        assert await toolset.call_tool(call(renamed, a=1, b=2)) == "3"


async def test_two_servers_with_colliding_names() -> None:
    servers = (
        stdio_config("a", allowed_tools=("say",)),
        stdio_config("a__b", allowed_tools=("say",)),
    )
    server_spec = server_request("a"), server_request("a__b")
    async with gateway(*servers) as manager, open_toolset(manager, *server_spec) as toolset:
        assert function_names(toolset) == {"a__say", "a__b__say"}
        assert toolset.server_of("a__b__say") == "a__b"
        # Approved as a tool of the other server.
        other = replace(call("a__b__say", text="x"), server="a")
        assert "no tool" in error_message(await toolset.call_tool(other, approved=True))


@pytest.mark.parametrize(
    ("configured", "server_spec", "needs"),
    [
        ({"require_approval": None}, {}, {"add", "say"}),
        ({"require_approval": None}, {"require_approval": "never"}, set()),
        ({"require_approval": None}, {"require_approval": ("add",)}, {"add"}),
        ({"require_approval": None}, {"exempt": ("add",)}, {"say"}),
        ({"require_approval": "never"}, {}, set()),
        ({"require_approval": "never"}, {"require_approval": "always"}, {"add", "say"}),
        ({"require_approval": "always"}, {"require_approval": "never"}, {"add", "say"}),
        ({"require_approval": "always"}, {"exempt": ("add",)}, {"add", "say"}),
        ({"require_approval": ("add",)}, {"require_approval": "never"}, {"add"}),
        ({"require_approval": ("add",)}, {}, {"add"}),
    ],
)
async def test_approval_rules_of_server_and_request(
    http: dict[str, HttpServer],
    configured: dict[str, Any],
    server_spec: dict[str, Any],
    needs: set[str],
) -> None:
    async with (
        gateway(http_config(http, **configured)) as manager,
        open_toolset(manager, server_request(**server_spec)) as toolset,
    ):
        calls = {"add": call("files__add", a=1, b=2), "say": call("files__say", text="x")}
        shown = [McpTool("files", require_approval=toolset.approvals["files"])]
        approval_names = {
            name
            for name, one in calls.items()
            if needs_approval(shown, replace(one, server="files"))
        }
        unanswered = {name for name, one in calls.items() if await toolset.call_tool(one) is None}
        assert unanswered == approval_names == needs
        outputs = [await toolset.call_tool(one, approved=True) for one in calls.values()]
        assert outputs == ["3", "x"]


@pytest.mark.parametrize(
    ("configured", "server_spec", "expected"),
    [
        (("add", "say"), None, {"files__add", "files__say"}),
        (None, ("add",), {"files__add"}),
        (("add", "say"), ("say", "fail"), {"files__say"}),
        (None, (), set()),
    ],
)
async def test_only_allowed_tools_are_offered(
    http: dict[str, HttpServer],
    configured: tuple[str, ...] | None,
    server_spec: tuple[str, ...] | None,
    expected: set[str],
) -> None:
    server = http_config(http, allowed_tools=configured)
    wanted = server_request(allowed_tools=server_spec)
    async with gateway(server) as manager, open_toolset(manager, wanted) as toolset:
        assert function_names(toolset) == expected
        (listed,) = toolset.tool_listings
        assert len(listed.tools) == len(expected)
        assert "no tool" in error_message(await toolset.call_tool(call("files__huge", size=1)))


def test_unknown_tool_needs_approval_if_every_tool_does(http: dict[str, HttpServer]) -> None:
    async def run() -> None:
        nothing = call("files__nothing")
        async with (
            gateway(http_config(http, require_approval="always")) as manager,
            open_toolset(manager) as toolset,
        ):
            assert toolset.approvals == {"files": "always"}
            assert await toolset.call_tool(nothing) is None
            assert "no tool" in error_message(await toolset.call_tool(nothing, approved=True))
        async with (
            gateway(http_config(http, require_approval=("add",))) as manager,
            open_toolset(manager) as toolset,
        ):
            assert toolset.approvals == {"files": ("add",)}
            assert "no tool" in error_message(await toolset.call_tool(nothing))

    asyncio.run(run())


async def test_approval_rules_use_the_servers_tool_names(http: dict[str, HttpServer]) -> None:
    server = http_config(http, require_approval=("strange name/ü",))
    async with gateway(server) as manager, open_toolset(manager) as toolset:
        (rule,) = tuple(toolset.approvals["files"])
        strange = call(f"files__{rule}")
        assert await toolset.call_tool(strange) is None
        assert await toolset.call_tool(strange, approved=True) == "strange"
        assert await toolset.call_tool(call("files__strange_name__")) == "plain"


async def test_call_that_times_out() -> None:
    async with gateway(stdio_config(timeout=0.3)) as manager, open_toolset(manager) as toolset:
        late = error_message(await toolset.call_tool(call("files__sleep")))
        assert late == "files__sleep did not finish within 0.3 s."


# A server that answers with plain JSON cannot notice a cancellation.
@pytest.mark.parametrize("server_setup", TRANSPORTS[:-1], indirect=True)
async def test_cancelled_call_is_cancelled_on_the_server(server_setup: ServerSetup) -> None:
    servers, server_spec = server_setup
    async with gateway(*servers) as manager, open_toolset(manager, server_spec) as toolset:
        sleeping = asyncio.create_task(toolset.call_tool(call("files__sleep")))
        assert await toolset.call_tool(call("files__wait_for", what="began")) == "began"
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        cancelled = await toolset.call_tool(call("files__wait_for", what="cancelled"))
        assert cancelled == "cancelled"


async def test_calls_run_in_parallel(server_setup: ServerSetup) -> None:
    servers, server_spec = server_setup
    async with gateway(*servers) as manager, open_toolset(manager, server_spec) as toolset:
        both = await asyncio.gather(*(toolset.call_tool(call("files__meet")) for _ in range(2)))
        assert both == ["met", "met"]


async def test_two_turns_share_the_session_of_a_configured_server() -> None:
    async with (
        gateway(stdio_config()) as manager,
        open_toolset(manager) as one,
        open_toolset(manager) as other,
    ):
        both = await asyncio.gather(
            *(toolset.call_tool(call("files__meet")) for toolset in (one, other))
        )
        assert both == ["met", "met"]
        await one.aclose()
        assert await other.call_tool(call("files__say", text="still here")) == "still here"


def test_toolset_works_on_uvloop(http: dict[str, HttpServer]) -> None:
    import uvloop

    async def run() -> None:
        async with gateway(stdio_config()) as manager:
            server_spec = server_request(), server_request("far", url=http["http"].url)
            async with open_toolset(manager, *server_spec) as toolset:
                assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"
                assert await toolset.call_tool(call("far__add", a=1, b=2)) == "3"

    uvloop.run(run())


async def test_closing_twice_is_allowed(http: dict[str, HttpServer]) -> None:
    async with gateway() as manager:
        toolset = await manager.open_toolset([server_request(url=http["old http"].url)])
        await toolset.aclose()
        await toolset.aclose()
        lost_error = error_message(await toolset.call_tool(call("files__add", a=1, b=2)))
        assert "'files' is not available" in lost_error
