"""A response as the Responses API shows it."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given, settings
from openai.types.responses import Response as OpenAIResponse

from antiphon.api.http.item_bodies import input_items
from antiphon.api.http.responses_codec import encode_response, response_body
from antiphon.core.items import FunctionCall, Item, Message, Reasoning, SummaryText
from antiphon.core.turns import (
    End,
    FunctionTool,
    Header,
    Options,
    Response,
    TurnError,
    Usage,
)
from support.api_strategies import ID, check_response, ends, options, output_items


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


#: Every key of the specification's response object, and what OpenAI's has besides.
FILLED = words(
    """id object created_at status model output tools tool_choice truncation parallel_tool_calls
    text top_p presence_penalty frequency_penalty top_logprobs temperature store background
    service_tier metadata"""
)
NULLABLE = words(
    """completed_at incomplete_details previous_response_id instructions error reasoning usage
    max_output_tokens max_tool_calls safety_identifier prompt_cache_key user conversation
    expires_at"""
)
ENDS = [
    None,
    End("completed", 1700000009.9, Usage(5, 7, 3, 2)),
    End("completed", 1700000009.9),
    End("incomplete", 1700000009.9, Usage(1, 1), reason="max_output_tokens"),
    End("failed", 1700000009.9, error=TurnError("upstream_error", "It broke.")),
    End("cancelled", 1700000009.9),
]
OUTPUT: tuple[Item, ...] = (
    Reasoning((SummaryText("Hm."),)),
    Message("assistant", "Hello"),
    FunctionCall("c", "f", "{}"),
)
FULL = Options(
    temperature=0.0,
    top_p=0.0,
    max_output_tokens=5,
    frequency_penalty=0.5,
    presence_penalty=-0.5,
    tools=(FunctionTool("f", "Does it.", {"type": "object"}, True), FunctionTool("g")),
    tool_choice="function:f",
    parallel_tool_calls=False,
    max_tool_calls=4,
    text_format={"type": "json_schema", "name": "a", "schema": {"type": "object"}},
    verbosity="low",
    reasoning_effort="low",
    reasoning_summary="concise",
    top_logprobs=2,
    include=("reasoning.encrypted_content",),
    service_tier="priority",
    prompt_cache_key="k",
    safety_identifier="s",
    truncation="auto",
    metadata={"a": "b"},
    user="u",
)


def response(
    end: End | None = None, options: Options | None = None, output: tuple[Item, ...] = OUTPUT
) -> Response:
    header = Header("m", "Be brief.", options or Options())
    return Response(ID, 1700000000.7, header, (Message("user", "Hi"),), output, end)


@pytest.mark.parametrize("options", [Options(), FULL])
@pytest.mark.parametrize("end", ENDS)
def test_every_key_is_there_and_typed(end: End | None, options: Options) -> None:
    body = json.loads(encode_response(response(end, options)))
    assert set(body) == FILLED | NULLABLE
    assert {name for name, value in body.items() if value is None} <= NULLABLE
    if body["error"]:
        # Its list of codes is OpenAI's own; ours says more.
        body["error"]["code"] = "server_error"
    OpenAIResponse.model_validate(body, strict=True)
    assert type(body["created_at"]) is int
    for number in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        assert type(body[number]) is float


@settings(deadline=None)
@given(ends, options, output_items)
def test_both_apis_know_every_response(
    end: End | None, options: Options, output: tuple[Item, ...]
) -> None:
    body = json.loads(encode_response(response(end, options, output)))
    assert set(body) == FILLED | NULLABLE
    check_response(body)


@pytest.mark.parametrize("end", ENDS)
def test_how_it_stands(end: End | None) -> None:
    body = response_body(response(end))
    status = end.status if end else "in_progress"
    assert body["status"] == status
    assert body["completed_at"] == (1700000009 if status == "completed" else None)
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
    assert body["incomplete_details"] == reason
    error = {"code": "upstream_error", "message": "It broke."} if status == "failed" else None
    assert body["error"] == error
    # Only a turn that still runs can wait for its beginning.
    queued = response_body(response(end), queued=True)["status"]
    assert queued == (status if end else "queued")


def test_where_it_lies() -> None:
    header = Header("m", conversation="conv_1", background=True)
    kept = Response(ID, 1700000000.7, header, (), (), None)
    body = response_body(msgspec.structs.replace(kept, expires_at=1702592000.9))
    assert body["conversation"] == {"id": "conv_1"}
    assert (body["background"], body["expires_at"]) == (True, 1702592000)
    plain = response_body(response())
    assert (plain["conversation"], plain["background"], plain["expires_at"]) == (None, False, None)


def test_usage() -> None:
    assert response_body(response(ENDS[1]))["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    assert response_body(response(ENDS[2]))["usage"] is None


def test_what_was_asked_is_shown() -> None:
    body = response_body(response(options=FULL))
    assert (body["temperature"], body["top_p"], body["max_output_tokens"]) == (0.0, 0.0, 5)
    assert (body["frequency_penalty"], body["presence_penalty"]) == (0.5, -0.5)
    assert (body["max_tool_calls"], body["top_logprobs"]) == (4, 2)
    assert [tool["name"] for tool in body["tools"]] == ["f", "g"]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["text"] == {
        "format": {
            "type": "json_schema",
            "name": "a",
            "schema": {"type": "object"},
            "description": None,
            "strict": False,
        },
        "verbosity": "low",
    }
    assert body["reasoning"] == {"effort": "low", "summary": "concise"}
    assert (body["truncation"], body["service_tier"]) == ("auto", "priority")
    assert (body["prompt_cache_key"], body["safety_identifier"]) == ("k", "s")
    assert (body["metadata"], body["user"], body["instructions"]) == ({"a": "b"}, "u", "Be brief.")


def test_what_was_not_asked_is_shown_as_it_is_done() -> None:
    body = response_body(response())
    assert (body["temperature"], body["top_p"], body["tool_choice"]) == (1.0, 1.0, "auto")
    assert body["text"] == {"format": {"type": "text"}}
    assert (body["service_tier"], body["top_logprobs"]) == ("default", 0)


def test_a_turns_items_count_on_from_its_input() -> None:
    shown = response(ENDS[1])
    names = [item["id"] for item in input_items(shown)] + [
        item["id"] for item in response_body(shown)["output"]
    ]
    assert [name.partition("_")[0] for name in names] == ["msg", "rs", "msg", "fc"]
    assert len(set(names)) == 4
    assert all(ID[5:] in name for name in names)
