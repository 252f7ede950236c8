"""The tools of MCP servers in a turn: what is shown, who answers, and with what."""

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

Reached = tuple[list[McpServerConfig], McpServerRequest]


@pytest.fixture(scope="module")
def http() -> Iterator[dict[str, HttpServer]]:
    """They may be shared: only one test each asks for what they remember."""
    with http_server() as new, http_server("--old") as old, http_server("--json") as whole:
        yield {"http": new, "old http": old, "json http": whole}


WAYS = ["stdio", "old stdio", "http", "old http", "json http"]


@pytest.fixture(params=WAYS)
def reached(request: pytest.FixtureRequest, http: dict[str, HttpServer]) -> Reached:
    """A server named files, by every way there is."""
    way = str(request.param)
    if way in http:
        return [], server_request(url=http[way].url)
    return [stdio_config("files", *(["--old"] if "old" in way else []))], server_request()


def far(http: dict[str, HttpServer], **fields: Any) -> McpServerConfig:
    """A configured server that is up already."""
    return McpServerConfig(
        label="files", url=http["http"].url, **{"require_approval": "never", **fields}
    )


def answers(reached: Reached, *calls: FunctionCall) -> list[str | None]:
    async def run() -> list[str | None]:
        servers, asked = reached
        async with gateway(*servers) as opened, open_toolset(opened, asked) as made:
            return [await made.call_tool(one) for one in calls]

    return asyncio.run(run())


def test_every_kind_of_result_by_every_way(reached: Reached) -> None:
    added, image, weather, numbers, summary, files, controls = answers(
        reached,
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


def test_what_goes_wrong_is_an_error_output(reached: Reached) -> None:
    failed, wrong, unread, nothing, huge = answers(
        reached,
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


async def test_strange_names_become_names_that_models_take(reached: Reached) -> None:
    servers, asked = reached
    async with gateway(*servers) as opened, open_toolset(opened, asked) as made:
        shown = sorted(name for name in function_names(made) if "strange" in name)
        plain, strange = sorted(shown, key=len)
        assert plain == "files__strange_name__"
        assert await made.call_tool(call(plain)) == "plain"
        assert await made.call_tool(call(strange)) == "strange"
        (listed,) = made.tool_listings
        assert {tool["name"] for tool in listed.tools} >= {"strange name/ü", "strange_name__"}


async def test_what_the_model_is_shown(http: dict[str, HttpServer]) -> None:
    async with gateway(far(http)) as opened, open_toolset(opened) as made:
        (function,) = (one for one in made.functions if one.name == "files__add")
        assert function.description == "Add two numbers."
        assert function.parameters is not None
        assert function.parameters["required"] == ["a", "b"]
        (listed,) = made.tool_listings
        assert (listed.server_label, listed.error) == ("files", None)
        (shown,) = (tool for tool in listed.tools if tool["name"] == "add")
        assert set(shown) == {"name", "description", "input_schema", "annotations"}
        assert shown["input_schema"] == function.parameters
        json.dumps(listed.tools)


async def test_calls_of_others_are_left_to_them(http: dict[str, HttpServer]) -> None:
    taken = ["files__add", "files__mine"]
    async with gateway(far(http)) as opened, open_toolset(opened, taken=taken) as made:
        assert await made.call_tool(call("get_weather")) is None
        assert await made.call_tool(call("files__mine")) is None
        assert await made.call_tool(call("files__add", a=1, b=2)) is None
        assert made.server_of("files__add") is None
        assert made.server_of("get_weather") is None
        assert made.server_of("files__say") == "files"
        assert made.server_of("files__unknown") == "files"
        (ours,) = (name for name in function_names(made) if name.startswith("files__add_"))
        assert await made.call_tool(call(ours, a=1, b=2)) == "3"


async def test_two_servers_whose_names_run_together() -> None:
    servers = (
        stdio_config("a", allowed_tools=("say",)),
        stdio_config("a__b", allowed_tools=("say",)),
    )
    asked = server_request("a"), server_request("a__b")
    async with gateway(*servers) as opened, open_toolset(opened, *asked) as made:
        assert function_names(made) == {"a__say", "a__b__say"}
        assert made.server_of("a__b__say") == "a__b"
        # Agreed to as a tool of the other server.
        other = replace(call("a__b__say", text="x"), server="a")
        assert "no tool" in error_message(await made.call_tool(other, approved=True))


@pytest.mark.parametrize(
    ("configured", "asked", "needs"),
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
async def test_the_rules_of_approval(
    http: dict[str, HttpServer], configured: dict[str, Any], asked: dict[str, Any], needs: set[str]
) -> None:
    async with (
        gateway(far(http, **configured)) as opened,
        open_toolset(opened, server_request(**asked)) as made,
    ):
        calls = {"add": call("files__add", a=1, b=2), "say": call("files__say", text="x")}
        shown = [McpTool("files", require_approval=made.approvals["files"])]
        told = {
            name
            for name, one in calls.items()
            if needs_approval(shown, replace(one, server="files"))
        }
        waits = {name for name, one in calls.items() if await made.call_tool(one) is None}
        assert waits == told == needs
        given = [await made.call_tool(one, approved=True) for one in calls.values()]
        assert given == ["3", "x"]


@pytest.mark.parametrize(
    ("configured", "asked", "left"),
    [
        (("add", "say"), None, {"files__add", "files__say"}),
        (None, ("add",), {"files__add"}),
        (("add", "say"), ("say", "fail"), {"files__say"}),
        (None, (), set()),
    ],
)
async def test_only_allowed_tools_are_there(
    http: dict[str, HttpServer],
    configured: tuple[str, ...] | None,
    asked: tuple[str, ...] | None,
    left: set[str],
) -> None:
    server = far(http, allowed_tools=configured)
    wanted = server_request(allowed_tools=asked)
    async with gateway(server) as opened, open_toolset(opened, wanted) as made:
        assert function_names(made) == left
        (listed,) = made.tool_listings
        assert len(listed.tools) == len(left)
        assert "no tool" in error_message(await made.call_tool(call("files__huge", size=1)))


def test_a_tool_that_is_not_there_waits_where_every_tool_does(http: dict[str, HttpServer]) -> None:
    async def run() -> None:
        nothing = call("files__nothing")
        async with (
            gateway(far(http, require_approval="always")) as opened,
            open_toolset(opened) as made,
        ):
            assert made.approvals == {"files": "always"}
            assert await made.call_tool(nothing) is None
            assert "no tool" in error_message(await made.call_tool(nothing, approved=True))
        async with (
            gateway(far(http, require_approval=("add",))) as opened,
            open_toolset(opened) as made,
        ):
            assert made.approvals == {"files": ("add",)}
            assert "no tool" in error_message(await made.call_tool(nothing))

    asyncio.run(run())


async def test_rules_of_approval_name_tools_as_the_server_does(http: dict[str, HttpServer]) -> None:
    server = far(http, require_approval=("strange name/ü",))
    async with gateway(server) as opened, open_toolset(opened) as made:
        (rule,) = tuple(made.approvals["files"])
        strange = call(f"files__{rule}")
        assert await made.call_tool(strange) is None
        assert await made.call_tool(strange, approved=True) == "strange"
        assert await made.call_tool(call("files__strange_name__")) == "plain"


async def test_a_call_that_takes_too_long() -> None:
    async with gateway(stdio_config(timeout=0.3)) as opened, open_toolset(opened) as made:
        late = error_message(await made.call_tool(call("files__sleep")))
        assert late == "files__sleep did not finish within 0.3 s."


# An answer in one piece leaves that server no way to notice.
@pytest.mark.parametrize("reached", WAYS[:-1], indirect=True)
async def test_a_cancelled_call_is_cancelled_there(reached: Reached) -> None:
    servers, asked = reached
    async with gateway(*servers) as opened, open_toolset(opened, asked) as made:
        sleeping = asyncio.create_task(made.call_tool(call("files__sleep")))
        assert await made.call_tool(call("files__wait_for", what="began")) == "began"
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        told = await made.call_tool(call("files__wait_for", what="cancelled"))
        assert told == "cancelled"


async def test_calls_run_side_by_side(reached: Reached) -> None:
    servers, asked = reached
    async with gateway(*servers) as opened, open_toolset(opened, asked) as made:
        both = await asyncio.gather(*(made.call_tool(call("files__meet")) for _ in range(2)))
        assert both == ["met", "met"]


async def test_two_turns_share_the_session_of_a_configured_server() -> None:
    async with (
        gateway(stdio_config()) as opened,
        open_toolset(opened) as one,
        open_toolset(opened) as other,
    ):
        both = await asyncio.gather(*(made.call_tool(call("files__meet")) for made in (one, other)))
        assert both == ["met", "met"]
        await one.aclose()
        assert await other.call_tool(call("files__say", text="still here")) == "still here"


def test_it_works_on_uvloop(http: dict[str, HttpServer]) -> None:
    import uvloop

    async def run() -> None:
        async with gateway(stdio_config()) as opened:
            asked = server_request(), server_request("far", url=http["http"].url)
            async with open_toolset(opened, *asked) as made:
                assert await made.call_tool(call("files__add", a=1, b=2)) == "3"
                assert await made.call_tool(call("far__add", a=1, b=2)) == "3"

    uvloop.run(run())


async def test_closing_twice_does_no_harm(http: dict[str, HttpServer]) -> None:
    async with gateway() as opened:
        made = await opened.open_toolset([server_request(url=http["old http"].url)])
        await made.aclose()
        await made.aclose()
        gone = error_message(await made.call_tool(call("files__add", a=1, b=2)))
        assert "'files' is not available" in gone
