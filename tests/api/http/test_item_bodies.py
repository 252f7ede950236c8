"""Items as the Responses API shows them."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings

from antiphon.api.common.call_ids import distinguish_calls
from antiphon.api.common.input_items import decode_items
from antiphon.api.http.item_bodies import (
    McpCallPairing,
    input_items,
    item_bodies,
    item_body,
    output_items,
)
from antiphon.core.items import (
    ApprovedCall,
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    Item,
    McpApproval,
    McpListTools,
    Message,
    Reasoning,
    ReasoningText,
)
from antiphon.core.turns import End, Header, McpTool, Options, Response
from support.api_strategies import ID, check_item, plain, single, turns

CALL = FunctionCall("call_1", "files__read", '{"path":"a"}', server="files")
ASKING = Options(mcp_servers=(McpTool("files"),))
TRUSTING = Options(mcp_servers=(McpTool("files", require_approval="never"),))
DONE = End("completed", 1700000009.0)


def shown(
    *output: Item, options: Options = TRUSTING, end: End | None = DONE
) -> list[dict[str, Any]]:
    return output_items(response(output=output, options=options, end=end))


def response(
    *given: Item,
    output: tuple[Item, ...] = (),
    options: Options = TRUSTING,
    end: End | None = DONE,
) -> Response:
    return Response(ID, 1700000000.0, Header("m", None, options), given, output, end)


@settings(deadline=None)
@given(single)
def test_an_item_that_was_shown_can_be_sent_again(item: Item) -> None:
    body = plain(item_body(item, "msg_1", include_encrypted=True))
    assert decode_items([body], "input").items == (item,)
    nulls = {**body, **{name: None for name in ("phase", "name") if name not in body}}
    assert decode_items([nulls], "input").items == (item,)


@settings(deadline=None)
@given(turns)
def test_an_output_that_was_shown_can_be_sent_again(items: tuple[Item, ...]) -> None:
    """All of it: calls with their outputs, and approvals; only ids are others."""
    bodies, twice = (
        plain(item_bodies(McpCallPairing(ID, lambda call: False, include_encrypted=True), items, 0))
        for _ in range(2)
    )
    assert bodies == twice
    again = decode_items(bodies, "input").items
    assert _told(again) == _told(tuple(distinguish_calls(items)))


def _told(items: tuple[Item, ...]) -> list[Any]:
    """Items without ids, each call of a server followed by what came of it."""
    told: list[Any] = []
    known = {item.call_id for item in items if isinstance(item, FunctionCall) and item.server}
    outputs = {item.call_id: item for item in items if isinstance(item, FunctionCallOutput)}
    for item in items:
        match item:
            case FunctionCall(server=str()):
                told.append(msgspec.structs.replace(item, call_id=""))
                result = outputs.get(item.call_id)
                told.append((result.output, result.is_error) if result else _UNFINISHED)
            case FunctionCallOutput(approved_call=ApprovedCall(call=call)):
                told.append(msgspec.structs.replace(call, call_id=""))
                told.append((item.output, item.is_error))
            case FunctionCallOutput(call_id=call_id) if call_id in known:
                pass
            case ErasedItem():
                pass
            case _:
                told.append(item)
    return told


_UNFINISHED = ("The call was interrupted before it gave a result.", True)


@settings(deadline=None)
@given(turns)
def test_both_apis_know_every_item(items: tuple[Item, ...]) -> None:
    for asks in (True, False):
        pairs = McpCallPairing(ID, lambda call, asks=asks: asks, include_encrypted=asks)  # type: ignore[misc]
        bodies = item_bodies(pairs, items, 3)
        for body in plain(bodies):
            check_item(body)
        ids = [body["id"] for body in bodies]
        assert len(set(ids)) == len(ids)


def test_a_server_call_and_its_output_are_one() -> None:
    other = FunctionCall("call_2", "files__write", "{}", server="files")
    bodies = shown(
        CALL,
        other,
        FunctionCallOutput("call_2", "Disk full.", is_error=True),
        FunctionCallOutput("call_1", "Hi."),
        Message("assistant", "There."),
    )
    assert [body["id"][:-34] for body in bodies] == ["mcp_", "mcp_", "msg_"]
    assert bodies[0] == {
        "id": f"mcp_{ID[5:]}00",
        "type": "mcp_call",
        "status": "completed",
        "server_label": "files",
        "name": "read",
        "arguments": '{"path":"a"}',
        "output": "Hi.",
        "error": None,
        "approval_request_id": None,
    }
    assert (bodies[1]["status"], bodies[1]["output"]) == ("failed", None)
    assert bodies[1]["error"] == {
        "type": "mcp_tool_execution_error",
        "content": [{"type": "text", "text": "Disk full."}],
    }
    # Positions are those of the store, whatever is shown.
    assert bodies[2]["id"] == f"msg_{ID[5:]}04"


def test_a_call_whose_output_did_not_come() -> None:
    assert [body["status"] for body in shown(CALL)] == ["incomplete"]
    assert [body["status"] for body in shown(CALL, end=None)] == ["in_progress"]


def test_a_call_that_waits_for_a_person() -> None:
    (body,) = shown(CALL, options=ASKING)
    assert body == {
        "id": f"mcpr_{ID[5:]}00",
        "type": "mcp_approval_request",
        "status": "completed",
        "server_label": "files",
        "name": "read",
        "arguments": '{"path":"a"}',
    }
    cut = msgspec.structs.replace(CALL, status="incomplete")
    assert shown(cut, options=ASKING)[0]["status"] == "incomplete"


def test_what_came_of_an_approved_call() -> None:
    request = f"mcpr_{'cd' * 16}01"
    (body,) = shown(FunctionCallOutput("call_1", "Hi.", approved_call=ApprovedCall(request, CALL)))
    assert (body["id"], body["type"]) == (f"mcp_{ID[5:]}00", "mcp_call")
    assert (body["name"], body["output"]) == ("read", "Hi.")
    assert body["approval_request_id"] == request
    # In the same turn, too, the request stays what it was.
    asked, done = shown(CALL, FunctionCallOutput("call_1", "Hi."), options=ASKING)
    assert (asked["type"], done["type"]) == ("mcp_approval_request", "mcp_call")
    assert done["approval_request_id"] == asked["id"]


def test_a_plain_call_and_its_output_stay_two() -> None:
    bodies = shown(FunctionCall("c", "f", "{}"), FunctionCallOutput("c", "1"))
    assert [body["type"] for body in bodies] == ["function_call", "function_call_output"]


def test_what_was_erased_is_left_out() -> None:
    bodies = shown(ErasedItem(), Message("assistant", "Hi"), ErasedItem())
    assert [body["id"] for body in bodies] == [f"msg_{ID[5:]}01"]
    # Half of a pair is shown as what it is.
    assert (
        shown(ErasedItem(), FunctionCallOutput("call_1", "x"))[0]["type"] == "function_call_output"
    )
    assert shown(CALL, ErasedItem())[0]["status"] == "incomplete"


def test_input_items() -> None:
    decision = McpApproval("mcpr_1", approve=False, reason="No.")
    asked = FunctionCall("mcpr_1", "files__read", "{}", server="files")
    bodies = input_items(
        response(
            Message("user", "Hi"), ErasedItem(), CALL, FunctionCallOutput("call_1", "x"), asked
        )
    )
    assert [(body["type"], body["id"][-2:]) for body in bodies] == [
        ("message", "00"),
        ("mcp_call", "02"),
        ("mcp_approval_request", "04"),
    ]
    assert item_body(decision, "mcpa_1") == {
        "id": "mcpa_1",
        "type": "mcp_approval_response",
        "approval_request_id": "mcpr_1",
        "approve": False,
        "reason": "No.",
    }


def test_fields_that_are_not_there_are_left_out() -> None:
    message = item_body(Message("user", (InputFile(file_data="x"),)), "msg_1")
    assert message["content"] == [{"type": "input_file", "file_data": "x"}]
    assert set(item_body(Reasoning(), "rs_1")) == {"id", "type", "status", "summary"}
    thought = item_body(Reasoning(content=(ReasoningText("Hm."),)), "rs_1")
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert item_body(Compaction("So far.", 1, 2), "cmp_1") == {
        "id": "cmp_1",
        "type": "compaction",
        "encrypted_content": "So far.",
    }
    listed = item_body(McpListTools("files", ({"name": "read", "input_schema": {}},)), "mcpl_1")
    assert (listed["server_label"], listed["error"]) == ("files", None)
