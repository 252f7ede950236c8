"""Client tool definitions: normalized, named, and offered to a model."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.items import ForeignItem, Message
from antiphon.core.tool_definitions import (
    MAX_OFFERED_NAME_LENGTH,
    ClientTool,
    NamespaceToolParam,
    added_tools,
    as_function,
    normalize_tool,
    offered_name,
    offered_tools,
    tool_finder,
)
from antiphon.core.turns import FunctionTool

F = {"type": "function", "name": "f"}
NAMES = st.text("ab_-", min_size=1, max_size=40)


def tools_of(*definitions: dict[str, Any]) -> list[FunctionTool]:
    return offered_tools([msgspec.convert(one, ClientTool) for one in definitions])


@pytest.mark.parametrize(
    "given",
    [
        {"type": "function", "name": "f"},
        {"type": "function", "function": {"name": "f"}},
        {"function": {"name": "f"}},
        {"name": "f"},
        {"name": "f", "description": None},
        {"type": "function", "function": {"name": "f", "strict": None}},
        {"type": None, "name": "f"},
    ],
)
def test_function_definitions_are_normalized(given: dict[str, Any]) -> None:
    assert normalize_tool(given) == F


def test_namespace_members_are_normalized() -> None:
    nested = {"type": "namespace", "name": "n", "tools": [{"function": {"name": "f"}}, 1]}
    assert normalize_tool(nested) == {"type": "namespace", "name": "n", "tools": [F, 1]}


@given(st.lists(st.tuples(st.none() | NAMES, NAMES), unique=True, max_size=8))
def test_offered_names_are_unique_and_resolve_to_their_tool(
    names: list[tuple[str | None, str]],
) -> None:
    definitions = [
        {"type": "function", "name": name}
        if namespace is None
        else {"type": "namespace", "name": namespace, "tools": [{**F, "name": name}]}
        for namespace, name in names
    ]
    tools = tools_of(*definitions)
    offered = [tool.name for tool in tools]
    assert len(set(offered)) == len(names)
    find = tool_finder(tools)
    for tool, (namespace, name) in zip(tools, names, strict=True):
        if namespace is not None:
            assert len(tool.name) <= MAX_OFFERED_NAME_LENGTH
            assert (tool.namespace, tool.local_name) == (namespace, name)
            assert find(tool.name) == tool
        else:
            assert tool.name == name


@pytest.mark.parametrize(
    ("namespace", "name", "offered"),
    [
        (None, "f", "f"),
        ("files", "read", "files__read"),
        ("mcp__files", "read", "mcp__files__read"),
        ("mcp__files__", "read", "mcp__files__read"),
    ],
)
def test_namespace_and_name_are_joined(namespace: str | None, name: str, offered: str) -> None:
    assert offered_name(namespace, name) == offered


def test_too_long_or_invalid_names_stay_unique() -> None:
    given = [("n" * 63, "a"), ("n" * 64, "a"), ("my files", "a"), ("my_files ", "a")]
    names = {offered_name(*one) for one in given}
    assert len(names) == len(given)
    assert all(len(name) <= MAX_OFFERED_NAME_LENGTH for name in names)


def test_ambiguous_local_name_is_not_resolved() -> None:
    spaces = [NamespaceToolParam(name, None, []) for name in ("a", "b")]
    tools = tools_of(*({**msgspec.to_builtins(one), "tools": [F]} for one in spaces))
    find = tool_finder(tools)
    assert find("f") is None
    assert find("a.f") == find("a__f") == tools[0]


def test_added_tools_come_from_items() -> None:
    body = {"type": "additional_tools", "tools": [F, {"type": "shell"}, {"type": "custom"}, 1]}
    found = ForeignItem({**body, "type": "tool_search_output", "tools": [{**F, "name": "g"}]})
    other = ForeignItem({**body, "type": "web_search_call"})
    items = (Message("user", "Hi"), ForeignItem(body), found, other)
    assert [tool.name for tool in added_tools(items)] == ["f", "g"]
    invalid_values: list[Any] = [None, {}, "x", [[]]]
    for invalid in invalid_values:
        assert added_tools([ForeignItem({**body, "tools": invalid})]) == ()


def test_custom_tool_is_offered_as_a_function() -> None:
    (tool,) = tools_of({"type": "custom", "name": "p", "format": {"type": "text"}})
    assert as_function(FunctionTool("f")) == FunctionTool("f")
    schema = as_function(tool).parameters
    assert schema is not None
    assert schema["required"] == ["input"]
