"""What is sent again to an upstream that does not know a type of tool."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.models.openai.tool_type_rules import refused_tool_types, without_tool_type

Json = dict[str, Any]

FUNCTION: Json = {"type": "function", "name": "f", "parameters": {}, "strict": False}
CUSTOM: Json = {"type": "custom", "name": "patch", "description": "Patches."}
SEARCH: Json = {"type": "web_search"}
REQUEST: Json = {
    "model": "m",
    "tools": [FUNCTION, CUSTOM, SEARCH, {"type": "x_search"}],
    "input": [
        {"type": "message", "role": "user", "content": "Hi"},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'a "b"'},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "Done."},
        {"role": "user", "content": "And?"},
    ],
    "tool_choice": "auto",
}


@pytest.mark.parametrize(
    ("message", "types"),
    [
        ("'type' of tool must be 'function'", ["custom", "web_search", "x_search"]),
        ("Invalid value: 'custom'. Supported values are: 'function', 'web_search'.", ["custom"]),
        ("unknown variant `custom`, expected one of `function`, `web_search`", ["custom"]),
        ("Hosted tool 'web_search' is not supported with this model.", ["web_search"]),
        ("Unsupported tool type: x_search", ["x_search"]),
        ("input[1]: unknown item type 'web_search_call'", ["web_search"]),
        ("Only function tools are available.", ["custom", "web_search", "x_search"]),
        (
            "tools.1: Input tag 'custom' found using 'type' does not match any of the expected"
            " tags: 'function', 'web_search'",
            ["custom"],
        ),
        ("Invalid 'tools[2].filters': unknown field", []),
        ("The model is overloaded.", []),
        ("Unknown parameter: 'top_k'.", []),
    ],
)
def test_which_types_a_refusal_is_about(message: str, types: list[str]) -> None:
    assert refused_tool_types(REQUEST, message) == types


def test_requests_without_such_tools_stay_as_they_are() -> None:
    for request in ({"messages": [], "tools": [CUSTOM]}, {"input": [], "tools": [FUNCTION]}):
        assert refused_tool_types(request, "Unsupported tool type") == []
        assert without_tool_type(request, "web_search") == request


def test_tools_that_only_the_upstream_runs_are_left_out_with_their_items() -> None:
    fitted = without_tool_type({**REQUEST, "tool_choice": {"type": "web_search"}}, "web_search")
    assert [one["type"] for one in fitted["tools"]] == ["function", "custom", "x_search"]
    assert fitted["input"] == [REQUEST["input"][0], *REQUEST["input"][2:]]
    assert "tool_choice" not in fitted
    alone = {"input": [], "tools": [SEARCH], "tool_choice": "required", "max_tool_calls": 1}
    assert without_tool_type(alone, "web_search") == {"input": []}


def test_custom_tools_become_functions() -> None:
    choice = {"type": "custom", "name": "patch"}
    fitted = without_tool_type({**REQUEST, "tool_choice": choice}, "custom")
    assert fitted["tool_choice"] == {"type": "function", "name": "patch"}
    tool = fitted["tools"][1]
    assert (tool["type"], tool["name"], tool["description"]) == ("function", "patch", "Patches.")
    assert list(tool["parameters"]["properties"]) == ["input"]
    assert fitted["input"][2:4] == [
        {
            "type": "function_call",
            "call_id": "c",
            "name": "patch",
            "arguments": '{"input":"a \\"b\\""}',
        },
        {"type": "function_call_output", "call_id": "c", "output": "Done."},
    ]
