"""Tool rules: allowed tools, and calls that need approval."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.core.items import FunctionCall
from antiphon.core.tool_rules import (
    ALL_TOOLS,
    is_tool_allowed,
    needs_approval,
    qualified_name,
    unqualified_name,
)
from antiphon.core.turns import McpTool, Options

READ = FunctionCall("c", "files__read", "{}", server="files")


def test_qualified_and_unqualified_names() -> None:
    assert qualified_name("files", "read") == READ.name
    assert unqualified_name(READ) == "read"
    assert unqualified_name(FunctionCall("c", "files__read", "{}")) == "files__read"


@pytest.mark.parametrize(
    ("require", "exempt", "expected"),
    [
        ("always", (), True),
        ("always", ("read",), False),
        ("always", ("write",), True),
        ("never", (), False),
        (("read",), (), True),
        (("read",), ("read",), False),
        (("write",), (), False),
        ((), (), False),
    ],
)
def test_needs_approval_follows_the_server_rules(
    require: Any, exempt: tuple[str, ...], expected: bool
) -> None:
    server = McpTool("files", require_approval=require, exempt=exempt)
    assert needs_approval((McpTool("mail", require_approval="never"), server), READ) is expected


def test_calls_of_other_servers_need_no_approval() -> None:
    plain = FunctionCall("c", "files__read", "{}")
    assert not needs_approval((McpTool("files"),), plain)
    assert not needs_approval((McpTool("mail"),), READ)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (None, True),
        ((), False),
        (("read",), False),
        (("files__read",), True),
        (("f", qualified_name("files", ALL_TOOLS)), True),
        ((qualified_name("file", ALL_TOOLS),), False),
        ((qualified_name("mail", ALL_TOOLS),), False),
    ],
)
def test_is_tool_allowed(allowed: tuple[str, ...] | None, expected: bool) -> None:
    assert is_tool_allowed(Options(allowed_tools=allowed), "files__read") is expected
