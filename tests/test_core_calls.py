"""Which tools may be called, and which calls wait for a person."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.core.items import FunctionCall
from antiphon.core.tool_rules import ANY, full_name, may_call, needs_approval, own_name
from antiphon.core.turns import McpTool, Options

READ = FunctionCall("c", "files__read", "{}", server="files")


def test_names() -> None:
    assert full_name("files", "read") == READ.name
    assert own_name(READ) == "read"
    assert own_name(FunctionCall("c", "files__read", "{}")) == "files__read"


@pytest.mark.parametrize(
    ("require", "exempt", "asked"),
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
def test_which_calls_wait(require: Any, exempt: tuple[str, ...], asked: bool) -> None:
    server = McpTool("files", require_approval=require, exempt=exempt)
    assert needs_approval((McpTool("mail", require_approval="never"), server), READ) is asked


def test_whose_calls_never_wait() -> None:
    plain = FunctionCall("c", "files__read", "{}")
    assert not needs_approval((McpTool("files"),), plain)
    assert not needs_approval((McpTool("mail"),), READ)


@pytest.mark.parametrize(
    ("allowed", "may"),
    [
        (None, True),
        ((), False),
        (("read",), False),
        (("files__read",), True),
        (("f", full_name("files", ANY)), True),
        ((full_name("file", ANY),), False),
        ((full_name("mail", ANY),), False),
    ],
)
def test_which_tools_may_be_called(allowed: tuple[str, ...] | None, may: bool) -> None:
    assert may_call(Options(allowed_tools=allowed), "files__read") is may
