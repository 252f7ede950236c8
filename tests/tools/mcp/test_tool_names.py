"""MCP tool names: valid for models, unique per tool, and stable."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.mcp_servers import MAX_LABEL_LENGTH, tool_name_without_label
from antiphon.tools.mcp.toolset import qualified_tool_name, tool_name_prefix

LABELS = st.text(min_size=1, max_size=MAX_LABEL_LENGTH)
VALID_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@given(LABELS, st.text(max_size=200), st.sets(st.text(max_size=20)))
def test_qualified_name_is_valid_and_unused(label: str, tool: str, taken: set[str]) -> None:
    name = qualified_tool_name(label, tool, taken)
    assert VALID_NAME.fullmatch(name)
    assert name.startswith(tool_name_prefix(label))
    assert name not in taken


@given(LABELS, st.lists(st.text(max_size=80), min_size=2, max_size=20, unique=True))
def test_qualified_names_of_a_server_are_unique(label: str, tools: list[str]) -> None:
    assert len({qualified_tool_name(label, tool) for tool in tools}) == len(tools)


def test_valid_name_is_unchanged() -> None:
    assert qualified_tool_name("files", "read_file-2") == "files__read_file-2"
    assert tool_name_without_label("files", "files__read_file-2") == "read_file-2"


def test_changed_name_never_collides() -> None:
    assert qualified_tool_name("files", "a.b").startswith("files__a_b_")
    assert qualified_tool_name("files", "a_b") == "files__a_b"
    # Two servers whose qualified names collide.
    first = qualified_tool_name("a", "b__c")
    assert qualified_tool_name("a__b", "c", {first}) not in (
        first,
        qualified_tool_name("a__b", "c"),
    )


@given(LABELS)
def test_name_without_label_starts_with_the_tool_name(label: str) -> None:
    assert tool_name_without_label(label, qualified_tool_name(label, "read")).startswith("read")
