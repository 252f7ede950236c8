"""A turn's events where tools of MCP servers are called, and the order of all events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import given, settings

from antiphon.api.http.responses_codec import response_body
from antiphon.api.http.stream_events import DONE, EventEncoder
from antiphon.core.events import (
    ArgumentsDelta,
    Created,
    Ended,
    Event,
    ItemAdded,
    ItemDone,
    TextDelta,
)
from antiphon.core.items import (
    ApprovedCall,
    FunctionCall,
    FunctionCallOutput,
    Item,
    McpListTools,
    Message,
)
from antiphon.core.replay_trace import replay_events
from antiphon.core.turns import End, Header, McpTool, Options, Response
from support.api_strategies import ID, check_event, ends, options, output_items, plain
from support.http_server import parse_events

READ = FunctionCall("call_1", "files__read", '{"a":1}', server="files")
WRITE = FunctionCall("call_2", "files__write", "{}", server="files")
DONE_WELL = End("completed", 1700000009.0)


def opening(rules: McpTool) -> Response:
    header = Header("m", None, Options(mcp_servers=(rules,)))
    return Response(ID, 1700000000.0, header, (Message("user", "Hi"),))


ASKING = opening(McpTool("files", require_approval=("write",)))


def encoded(events: Iterable[Event], start: Response = ASKING) -> list[dict[str, Any]]:
    shown = parse_events(EventEncoder(start).encode(events) + DONE)
    for event in shown:
        check_event(event)
    return shown


def told(*output: Item, end: End = DONE_WELL) -> list[dict[str, Any]]:
    """A turn's events without those of the response itself."""
    response = msgspec.structs.replace(ASKING, output=output, end=end)
    shown = encoded(replay_events(response))
    assert shown[-1]["response"] == plain(response_body(response))
    return shown[2:-1]


def kinds(events: Iterable[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["type"].removeprefix("response."), event["output_index"]) for event in events]


def test_a_call_and_its_output_are_one_item() -> None:
    shown = told(READ, FunctionCallOutput("call_1", "Hello."), Message("assistant", "Done."))
    assert kinds(shown)[:7] == [
        ("output_item.added", 0),
        ("mcp_call.in_progress", 0),
        ("mcp_call_arguments.delta", 0),
        ("mcp_call_arguments.done", 0),
        ("mcp_call.completed", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
    ]
    name = f"mcp_{ID[5:]}01"
    assert {event.get("item_id", name) for event in shown[:6]} == {name}
    added, done = shown[0]["item"], shown[5]["item"]
    assert added == {**done, "status": "in_progress", "arguments": "", "output": None}
    assert (done["name"], done["status"], done["output"]) == ("read", "completed", "Hello.")
    assert shown[3]["arguments"] == shown[2]["delta"] == '{"a":1}'


def test_calls_side_by_side_end_in_any_order() -> None:
    trusting = opening(McpTool("files", require_approval="never"))
    outputs = (FunctionCallOutput("call_2", "2", is_error=True), FunctionCallOutput("call_1", "1"))
    events: list[Event] = [
        Created(trusting),
        ItemAdded(0, msgspec.structs.replace(READ, arguments="")),
        ItemAdded(1, msgspec.structs.replace(WRITE, arguments="")),
        ArgumentsDelta(0, '{"a":1}'),
        ArgumentsDelta(1, "{}"),
        ItemDone(0, READ),
        ItemDone(1, WRITE),
        ItemAdded(2, outputs[0]),
        ItemDone(2, outputs[0]),
        ItemAdded(3, outputs[1]),
        ItemDone(3, outputs[1]),
        ItemAdded(4, Message("assistant", "")),
        TextDelta(4, "Hi"),
        ItemDone(4, Message("assistant", "Hi")),
    ]
    response = msgspec.structs.replace(
        trusting, output=(READ, WRITE, *outputs, Message("assistant", "Hi")), end=DONE_WELL
    )
    shown = encoded([*events, Ended(response)], trusting)
    assert kinds(shown[8:13]) == [
        ("mcp_call_arguments.done", 0),
        ("mcp_call_arguments.done", 1),
        ("mcp_call.failed", 1),
        ("output_item.done", 1),
        ("mcp_call.completed", 0),
    ]
    assert shown[11]["item"]["error"]["content"] == [{"type": "text", "text": "2"}]
    # What is shown is counted without gaps, whatever the store holds.
    assert [event["output_index"] for event in shown[14:-1]] == [2] * 6
    assert shown[16]["item_id"] == f"msg_{ID[5:]}05"


def test_a_call_that_waits_for_a_person() -> None:
    shown = told(WRITE)
    assert kinds(shown) == [("output_item.added", 0), ("output_item.done", 0)]
    assert shown[0]["item"] == {
        **shown[1]["item"],
        "status": "in_progress",
        "arguments": "",
    }
    assert shown[1]["item"]["type"] == "mcp_approval_request"
    assert shown[1]["item"]["arguments"] == "{}"


def test_what_came_of_an_approved_call() -> None:
    approved = ApprovedCall(f"mcpr_{'cd' * 17}", WRITE)
    shown = told(FunctionCallOutput("call_2", "Done.", approved_call=approved))
    assert kinds(shown) == [
        ("output_item.added", 0),
        ("mcp_call.in_progress", 0),
        ("mcp_call_arguments.done", 0),
        ("mcp_call.completed", 0),
        ("output_item.done", 0),
    ]
    assert (shown[0]["item"]["output"], shown[4]["item"]["output"]) == (None, "Done.")
    assert shown[4]["item"]["approval_request_id"] == approved.request_id


def test_a_call_whose_output_never_came_is_done_before_the_turn() -> None:
    shown = told(READ, Message("assistant", "x"), end=End("cancelled", 1700000009.0))
    assert kinds(shown)[-1] == ("output_item.done", 0)
    assert shown[-1]["item"]["status"] == "incomplete"


def test_a_list_of_tools() -> None:
    tools = ({"name": "read", "input_schema": {}},)
    shown = told(McpListTools("files", tools), McpListTools("mail", (), "It did not answer."))
    assert kinds(shown) == [
        ("output_item.added", 0),
        ("mcp_list_tools.in_progress", 0),
        ("mcp_list_tools.completed", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("mcp_list_tools.in_progress", 1),
        ("mcp_list_tools.failed", 1),
        ("output_item.done", 1),
    ]
    assert (shown[0]["item"]["tools"], shown[3]["item"]["tools"]) == ([], list(tools))
    assert (shown[4]["item"]["error"], shown[7]["item"]["error"]) == (None, "It did not answer.")


@settings(deadline=None)
@given(output_items, options, ends)
def test_the_order_of_all_events(
    output: tuple[Item, ...], options: Options, end: End | None
) -> None:
    """Gapless numbers; each item begins, grows and ends; the items are the response's."""
    start = msgspec.structs.replace(ASKING, header=Header("m", None, options))
    response = msgspec.structs.replace(start, output=output, end=end or DONE_WELL)
    shown = encoded(replay_events(response), start)
    assert [event["sequence_number"] for event in shown] == list(range(len(shown)))
    open_items: dict[int, set[str]] = {}
    done: dict[int, Any] = {}
    for event in shown[2:-1]:
        index, kind = event["output_index"], event["type"]
        if kind == "response.output_item.added":
            assert index == len(open_items), "items begin one after another"
            open_items[index] = set()
            continue
        parts = open_items[index]
        assert index not in done, "nothing comes after an item's end"
        if kind == "response.output_item.done":
            assert not parts, "its parts are over"
            done[index] = event["item"]
        elif kind.endswith("part.added"):
            parts.add(_place(event))
        elif kind.endswith("part.done"):
            parts.remove(_place(event))
        elif "content_index" in event or "summary_index" in event:
            assert _place(event) in parts, "a text grows inside its part"
    assert set(done) == set(open_items)
    assert [done[index] for index in sorted(done)] == shown[-1]["response"]["output"]
    assert shown[-1]["response"] == plain(response_body(response))


def _place(event: dict[str, Any]) -> str:
    at = "summary_index" if "summary_index" in event else "content_index"
    return f"{at} {event[at]}"
