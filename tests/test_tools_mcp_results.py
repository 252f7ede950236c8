"""Results of the protocol, as the one text that the model reads."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import types

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.mcp.errors import Veil
from antiphon.tools.mcp.results import MOST, spoken

VEIL = Veil(McpServerConfig(label="a"))


def result(*texts: str, structured: Any = None, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(text=text) for text in texts],
        structured_content=structured,
        is_error=is_error,
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (result("a", "b"), "a\nb"),
        (result(), ""),
        (result(structured={"a": 1}), '{"a":1}'),
        (result('{"a": 1}', structured={"a": 1}), '{"a":1}'),
        (result("3", structured={"result": 3}), "3"),
        (result("words", structured={"result": "words"}), "words"),
        (result("1", "2", structured={"result": [1, 2]}), "[1,2]"),
        (result("a", "b", structured={"result": ["a", "b"]}), '["a","b"]'),
        (result("Two.", structured={"n": 2}), 'Two.\n{"n":2}'),
        (result("no", is_error=True), '{"error":"no"}'),
        (result(is_error=True), '{"error":"tool failed and did not say why."}'),
    ],
)
def test_what_is_said(given: types.CallToolResult, said: str) -> None:
    assert spoken("tool", given, VEIL) == said


def test_what_is_too_long_is_cut_and_says_so() -> None:
    assert spoken("tool", result("x" * MOST), VEIL) == "x" * MOST
    said = spoken("tool", result("x" * (MOST + 7)), VEIL)
    assert said.startswith("x" * MOST + "\n[Cut here: ")
    assert f"of {MOST + 7} characters" in said
    assert len(said) < MOST + 100


def test_a_long_error_is_short() -> None:
    assert len(spoken("tool", result("x" * MOST, is_error=True), VEIL)) < 2000
