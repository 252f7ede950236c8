"""Input items: the shapes they come in, and what is wrong with the rest."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.api.common.body import MAX_DEPTH
from antiphon.api.common.input_items import DecodedInput, decode_items
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    InputVideo,
    Item,
    McpApproval,
    McpListTools,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
)
from antiphon.core.tool_rules import DENIED_OUTPUT
from antiphon.core.turns import ItemReference
from antiphon.errors import InvalidRequestError


def decoded(*given: Any) -> tuple[Item, ...]:
    return intake(*given).items


def intake(*given: Any) -> DecodedInput:
    return decode_items(given, "input")


def refused(*given: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode_items(given, "input")
    return caught.value


PICTURE = "data:image/png;base64,"
ASKED = {
    "type": "mcp_approval_request",
    "id": "mcpr_1",
    "server_label": "files",
    "name": "read",
    "arguments": "{}",
    "status": "completed",
}
ASKED_CALL = FunctionCall("mcpr_1", "files__read", "{}", server="files")
CALLED = {
    "type": "mcp_call",
    "id": "mcp_1",
    "server_label": "files",
    "name": "read",
    "arguments": "{}",
    "status": "completed",
    "output": "Hi.",
    "error": None,
    "approval_request_id": None,
}


def parts(role: str, *content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content)}


@pytest.mark.parametrize(
    ("given", "item"),
    [
        ({"role": "user", "content": "Hi"}, Message("user", "Hi")),
        (parts("user", {"type": "input_text", "text": "Hi"}), Message("user", "Hi")),
        ({"role": "developer", "content": "x"}, Message("developer", "x")),
        ({"role": "system", "content": "x"}, Message("system", "x")),
        (
            {"role": "user", "content": "Hi", "status": "in_progress", "id": "msg_1"},
            Message("user", "Hi"),
        ),
        (
            {"role": "assistant", "content": "Four.", "phase": "final_answer"},
            Message("assistant", "Four.", phase="final_answer"),
        ),
        (
            parts(
                "assistant",
                {"type": "output_text", "text": "a", "annotations": None, "logprobs": None},
            ),
            Message("assistant", "a"),
        ),
        (
            parts("assistant", {"type": "output_text", "text": "a", "logprobs": [{"token": "a"}]}),
            Message("assistant", (OutputText("a", (), ({"token": "a"},)),)),
        ),
        (
            parts("assistant", {"type": "refusal", "refusal": "No."}),
            Message("assistant", (Refusal("No."),)),
        ),
        (
            parts(
                "user",
                {"type": "input_text", "text": "Look:"},
                {"type": "input_image", "image_url": PICTURE, "detail": None, "file_id": None},
            ),
            Message("user", (InputText("Look:"), InputImage(PICTURE))),
        ),
        (
            parts("user", {"type": "input_file", "filename": "a.pdf", "file_data": "x"}),
            Message("user", (InputFile("a.pdf", "x"),)),
        ),
        (
            parts("user", {"type": "input_video", "video_url": "https://example.com/a.mp4"}),
            Message("user", (InputVideo("https://example.com/a.mp4"),)),
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{", "id": "fc_1"},
            FunctionCall("c", "f", "{"),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "3", "id": None},
            FunctionCallOutput("c", "3"),
        ),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "3"}],
            },
            FunctionCallOutput("c", "3"),
        ),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_image", "image_url": PICTURE}],
            },
            FunctionCallOutput("c", (InputImage(PICTURE),)),
        ),
        (
            {"type": "reasoning", "summary": [], "content": None, "encrypted_content": None},
            Reasoning(),
        ),
        (
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "content": [{"type": "reasoning_text", "text": "Hmm."}],
                "encrypted_content": "x",
            },
            Reasoning((SummaryText("Hm."),), (ReasoningText("Hmm."),), "x"),
        ),
        (
            # As the specification's own example has it.
            {"type": "reasoning", "content": [{"type": "output_text", "text": "Hmm."}]},
            Reasoning(content=(ReasoningText("Hmm."),)),
        ),
        (
            {"type": "compaction", "id": "cmp_1", "encrypted_content": "So far."},
            Compaction("So far."),
        ),
        (
            {
                "type": "mcp_list_tools",
                "server_label": "files",
                "tools": [{"name": "read", "input_schema": {}, "annotations": None, "x": 1}],
            },
            McpListTools("files", ({"name": "read", "input_schema": {}},)),
        ),
        (
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
            McpApproval("mcpr_1", approve=True),
        ),
        (ASKED, ASKED_CALL),
    ],
)
def test_the_shapes_an_item_comes_in(given: dict[str, Any], item: Item) -> None:
    assert decoded(given) == (item,)


def test_what_only_we_can_say_is_not_heard() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "server": "x"}
    assert decoded(call) == (FunctionCall("c", "f", "{}"),)
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    ours = {"failed": True, "approved": {"request_id": "r", "call": call}}
    assert decoded({**output, **ours}) == (FunctionCallOutput("c", "x"),)
    summary = {"type": "compaction", "encrypted_content": "x", "kept": 5, "replaced": 9}
    assert decoded({**summary, "summary": "y"}) == (Compaction("x"),)
    thought = {"type": "reasoning", "summary": [], "encrypted_content": "x", "origin": "host/m"}
    assert decoded(thought) == (Reasoning(encrypted_content="x"),)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({}, "role"),
        ({"role": "user"}, "content"),
        ({"role": "tool", "content": "x"}, "call_id"),
        ({"role": "narrator", "content": "x"}, "role"),
        ({"role": "user", "content": [1]}, "content[0]"),
        (parts("user", {"type": "audio"}), "content[0].type"),
        (parts("user", {"type": "input_text"}), "content[0].text"),
        (
            parts("user", {"type": "input_image", "image_url": {"url": 1}}),
            "content[0].image_url",
        ),
        (parts("user", {"type": "input_image", "file_id": "x"}), "content[0].image_url"),
        (parts("user", {"type": "input_file", "file_id": "x"}), "content[0].file_data"),
        (parts("user", {"type": "input_video"}), "content[0].video_url"),
        ({"type": 3}, "type"),
        ({"type": ["message"]}, "type"),
        ({"type": "web_search"}, "type"),
        ({"type": "erased"}, "type"),
        ({"type": "item_reference"}, "id"),
        ({"type": "item_reference", "id": 1}, "id"),
        ({"type": "function_call", "call_id": "c"}, "name"),
        ({"type": "custom_tool_call", "name": "f", "input": "x"}, "call_id"),
        ({"type": "additional_tools", "tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"type": "additional_tools"}, "tools"),
        ({"type": "function_call_output", "output": "x"}, "call_id"),
        ({"type": "reasoning", "summary": [1]}, "summary[0]"),
        ({"type": "reasoning", "content": [{"type": "image", "text": "x"}]}, "content[0].type"),
        ({"type": "compaction"}, "encrypted_content"),
        ({"type": "mcp_list_tools", "server_label": "a"}, "tools"),
        ({"type": "mcp_list_tools", "server_label": "a", "tools": [{}]}, "tools[0].name"),
        ({"type": "mcp_call", "name": "f", "arguments": ""}, "server_label"),
        ({**CALLED, "output": 1}, "output"),
        ({**ASKED, "id": None}, "id"),
        ({"type": "mcp_approval_response", "approve": True}, "approval_request_id"),
        (
            {"type": "mcp_approval_response", "approval_request_id": "x", "approve": "yes"},
            "approve",
        ),
    ],
)
def test_the_item_at_fault_is_named(item: Any, param: str) -> None:
    assert refused({"role": "user", "content": "Hi"}, item).param == f"input[1].{param}"


def test_what_would_be_kept_may_not_be_too_deep() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    part = {"type": "output_text", "text": "Hi", "annotations": deep}
    assert refused(parts("assistant", part)).param == "input[0].content[0]"
    tools = {"type": "mcp_list_tools", "server_label": "a", "tools": deep}
    assert refused(tools).param == "input[0].tools"


def test_items_that_are_only_named() -> None:
    named = {"type": "item_reference", "id": "msg_1"}
    found = intake(
        named, {"role": "user", "content": "Hi"}, {"id": "fc_2"}, {**named, "id": "rs_3"}
    )
    assert found.items == (Message("user", "Hi"),)
    assert found.references == (
        ItemReference("msg_1", 0, "input[0]"),
        ItemReference("fc_2", 1, "input[2]"),
        ItemReference("rs_3", 1, "input[3]"),
    )


def test_a_server_call_becomes_a_call_and_its_output() -> None:
    call = FunctionCall("mcp_1", "files__read", "{}", server="files")
    assert decoded(CALLED) == (call, FunctionCallOutput("mcp_1", "Hi."))
    unnamed, output = decoded({**CALLED, "id": None})
    assert isinstance(unnamed, FunctionCall)
    assert isinstance(output, FunctionCallOutput)
    assert unnamed.call_id == output.call_id
    assert decoded({**CALLED, "id": None})[0] != unnamed


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("Disk full.", "Disk full."),
        ({"type": "http_error", "code": 500, "message": "Disk full."}, "Disk full."),
        (
            {
                "type": "mcp_tool_execution_error",
                "content": [{"type": "text", "text": "Disk "}, {"text": "full."}, {"a": 1}, 2],
            },
            "Disk full.",
        ),
        ({"type": "mcp_tool_execution_error", "content": "x"}, ""),
        (7, "The tool failed."),
        (None, "The call was interrupted before it gave a result."),
    ],
)
def test_a_server_call_that_failed(error: Any, text: str) -> None:
    _, output = decoded({**CALLED, "output": None, "error": error})
    assert output == FunctionCallOutput("mcp_1", text, is_error=True)


def said(approve: bool, reason: str | None = None) -> dict[str, Any]:
    body = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": approve}
    return {**body, "id": "mcpa_1", "reason": reason}


def test_a_call_that_the_same_input_approves() -> None:
    found = intake(ASKED, said(True))
    assert found.items == (ASKED_CALL, McpApproval("mcpr_1", approve=True))
    assert found.approved_calls == (ASKED_CALL,)
    assert intake(ASKED, said(True), said(True)).approved_calls == (ASKED_CALL,)
    # It has been run already.
    done = {**CALLED, "approval_request_id": "mcpr_1"}
    found = intake(ASKED, said(True), done)
    assert found.items[2:] == (FunctionCallOutput("mcpr_1", "Hi."),)
    assert found.approved_calls == ()
    # Another's approval is for the service to look up.
    assert intake(said(True), {**ASKED, "id": "mcpr_2"}).approved_calls == ()


def test_a_call_that_the_same_input_denies() -> None:
    found = intake(ASKED, said(False, "Not that file."))
    assert found.items == (
        ASKED_CALL,
        FunctionCallOutput("mcpr_1", f"{DENIED_OUTPUT} Not that file."),
        McpApproval("mcpr_1", approve=False, reason="Not that file."),
    )
    assert found.approved_calls == intake(ASKED, said(True), said(False)).approved_calls == ()
