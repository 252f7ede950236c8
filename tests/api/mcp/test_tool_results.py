"""Results as they are shown."""

from __future__ import annotations

import msgspec

from antiphon.api.mcp.tool_results import chat_result, reasoning_text, result_body, retrieve_result
from antiphon.core.items import Message, Reasoning, ReasoningText, SummaryText
from antiphon.core.turns import End, Header, Response, TurnError, Usage


def response(end: End | None) -> Response:
    said = Message("assistant", "Yes.")
    asked = Message("user", "Is it?")
    return Response(
        "resp_1", 0.0, Header("m"), (asked,), (said,), end, "resp_0", expires_at=86400.9
    )


def test_a_turn_is_shown_whole() -> None:
    end = End("completed", 1.0, Usage(10, 5, 2, 3))
    shown = msgspec.json.decode(msgspec.json.encode(result_body(retrieve_result(response(end)))))
    assert shown == {
        "content": "Yes.",
        "status": "completed",
        "model": "m",
        "usage": {
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "cached_tokens": 2,
            "reasoning_tokens": 3,
        },
        "response_id": "resp_1",
        "stored_until": "1970-01-02T00:00:00Z",
        "continued_from": "resp_0",
        "created_at": "1970-01-01T00:00:00Z",
        "prompt": "Is it?",
        "error": None,
        "warnings": [],
    }


def test_what_keeps_it_from_being_whole_is_said() -> None:
    for end, word in (
        (End("incomplete", 1.0, reason="max_output_tokens"), "cut off"),
        (End("incomplete", 1.0, reason="content_filter"), "broke off"),
        (End("cancelled", 1.0), "stopped"),
        (None, "still writing"),
    ):
        (warning,) = chat_result(response(end)).warnings
        assert word in warning
    failed = retrieve_result(response(End("failed", 1.0, error=TurnError("x", "It broke."))))
    assert (failed.error, failed.warnings) == ("It broke.", ())


def test_reasoning_text_prefers_summaries() -> None:
    both = Reasoning((SummaryText("Short."),), (ReasoningText("Long."),))
    raw = Reasoning(content=(ReasoningText("Raw."),))
    assert reasoning_text((both, raw)) == "Short.\n\nRaw."
    assert reasoning_text((Reasoning(encrypted_content="x"), Message("assistant", "Hi"))) is None
