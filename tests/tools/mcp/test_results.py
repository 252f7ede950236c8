"""MCP results: converted to one text for the model."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import types

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.tools.mcp.errors import SecretRedactor
from antiphon.tools.mcp.results import MAX_OUTPUT_LENGTH, result_text

REDACTOR = SecretRedactor(McpServerConfig(label="a"))


def result(*texts: str, structured: Any = None, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(text=text) for text in texts],
        structured_content=structured,
        is_error=is_error,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
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
def test_result_content_becomes_text(given: types.CallToolResult, expected: str) -> None:
    assert result_text("tool", given, REDACTOR) == expected


def test_too_long_result_is_truncated_with_a_note() -> None:
    assert result_text("tool", result("x" * MAX_OUTPUT_LENGTH), REDACTOR) == "x" * MAX_OUTPUT_LENGTH
    expected = result_text("tool", result("x" * (MAX_OUTPUT_LENGTH + 7)), REDACTOR)
    assert expected.startswith("x" * MAX_OUTPUT_LENGTH + "\n[Cut here: ")
    assert f"of {MAX_OUTPUT_LENGTH + 7} characters" in expected
    assert len(expected) < MAX_OUTPUT_LENGTH + 100


def test_long_error_is_truncated() -> None:
    assert len(result_text("tool", result("x" * MAX_OUTPUT_LENGTH, is_error=True), REDACTOR)) < 2000
