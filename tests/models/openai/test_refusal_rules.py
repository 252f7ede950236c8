"""Refusal rules: which rule a refusal calls for, in the words of many upstreams."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelError,
    UpstreamRateLimitError,
)
from antiphon.models.openai.refusal_rules import LearnedRules, candidate_rules, repair_request

FIELDS = {"model", "messages", "stream", "stream_options", "top_k", "temperature", "max_tokens"}

#: The words of refusals, and the rule that is tried first.
FIRST: dict[str, str | None] = {
    "System message must be at the beginning.": "single-system-message",
    "messages: Only one system message is allowed": "single-system-message",
    "The system role must come first": "single-system-message",
    "system messages are only allowed as the first message": "single-system-message",
    "Unexpected role 'system' after role 'user'": "single-system-message",
    "Multiple system messages are not supported": "single-system-message",
    "System role not supported": "no-system-role",
    "role 'system' is not supported": "no-system-role",
    "Developer instruction is not enabled for models/gemma-3-27b-it": "no-system-role",
    "Only user and assistant roles are supported!": "no-system-role",
    "Invalid role: system": "no-system-role",
    "Conversation roles must alternate user/assistant/user/assistant/...": "alternating-roles",
    'roles must alternate between "user" and "assistant"': "alternating-roles",
    "Please ensure that multiturn requests alternate between user and model.": "alternating-roles",
    "consecutive messages of the same role are not allowed": "alternating-roles",
    "Unexpected role 'user' after role 'tool'": "assistant-after-tool",
    "No user query found in messages.": "user-message-required",
    "messages: at least one message is required": "user-message-required",
    "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.": (
        "nine-character-call-ids"
    ),
    "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'": (
        "plain-call-ids"
    ),
    "Invalid 'messages[2].tool_call_id': string too long": "plain-call-ids",
    "This response_format type is unavailable now": "json-object-format",
    "response_format: json_schema is not supported": "json-object-format",
    "Function calling with a response mime type: 'application/json' is unsupported": (
        "json-object-format"
    ),
    "text content blocks must be non-empty": "no-empty-messages",
    "messages[1]: content cannot be empty": "no-empty-messages",
    "Assistant message must have either content or tool_calls, but not none.": "no-empty-messages",
    "property 'reasoning' is unsupported": "no-thoughts",
    "Extra inputs are not permitted: reasoning_content": "no-thoughts",
    "messages.0.name: Extra inputs are not permitted": "no-names",
    "tools.0.function.strict: Extra inputs are not permitted": "no-strict",
    "Unrecognized request argument supplied: top_k": "without-field:top_k",
    "Unknown parameter: 'stream_options'.": "without-field:stream_options",
    "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.": (
        "max-completion-tokens"
    ),
    "Unknown name \"$schema\" at 'tools[0].function_declarations[0].parameters'": (
        "without-schema-keyword:$schema"
    ),
    "This model only support stream mode, please enable the stream parameter.": "always-stream",
    "parameter.enable_thinking must be set to false for non-streaming calls": "always-stream",
    "Your organization must be verified to stream this model.": "never-stream",
    "streaming is not supported for this model": "never-stream",
    "Bedrock doesn't support tool calling without `tools=` param specified.": "tools-of-history",
    "Invalid value: 'original'. Supported values are: 'low', 'high', and 'auto'.": (
        "no-image-detail"
    ),
    "Include 'reasoning.encrypted_content' is not supported": "no-encrypted-reasoning",
    # What is for the client to see.
    "Unsupported value: 'temperature' does not support 0.2 with this model.": None,
    "Invalid schema for response_format 'x': 'additionalProperties' is required": None,
    "'messages' must contain the word 'json' to use 'response_format'": None,
    "max_tokens is too large: 99999. This model supports at most 16384 completion tokens": None,
    "You exceeded your current quota": None,
    "The model `x` does not exist": None,
    "": None,
}


@pytest.mark.parametrize("words", FIRST)
def test_the_rule_that_is_tried_first(words: str) -> None:
    candidates = list(candidate_rules(InvalidRequestError(words), FIELDS))
    wanted = FIRST[words]
    if wanted is None:
        # Of messages with such fields alone these would change something.
        assert set(candidates) <= {"no-provider-fields", "no-thoughts"}
    else:
        assert candidates[0] == wanted


REQUEST: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "S"}],
    "top_k": 1,
}
BODY = json.dumps(REQUEST).encode()
NONE: frozenset[str] = frozenset()


def test_a_rule_that_changes_nothing_is_passed_over() -> None:
    error = InvalidRequestError("roles must alternate, and the system message comes first")
    repaired = repair_request(BODY, NONE, error)
    assert repaired is not None
    body, rules = repaired
    assert rules == {"single-system-message"}
    assert [one["role"] for one in json.loads(body)["messages"]] == ["system", "user"]
    assert repair_request(body, rules, InvalidRequestError("Tool call ids: length of 9")) is None


def test_rules_add_up() -> None:
    first = frozenset({"without-field:top_k"})
    repaired = repair_request(BODY, first, InvalidRequestError("System message must be first"))
    assert repaired is not None
    assert repaired[1] == {"without-field:top_k", "single-system-message"}
    assert "top_k" not in json.loads(repaired[0])


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRateLimitError("the system is busy, only one request at a time"),
        ContextLengthExceededError("The system message is too long, must be at the beginning"),
        ModelError("The system role is first.", code="upstream_disconnected"),
    ],
)
def test_other_errors_are_no_refusals(error: AntiphonError) -> None:
    assert repair_request(BODY, NONE, error) is None


def test_a_template_that_fails_with_500_is_a_refusal() -> None:
    error = ModelError("127.0.0.1 answered 500: System message must be at the beginning.")
    assert repair_request(BODY, NONE, error) is not None


def test_stale_reasoning_is_left_out_once() -> None:
    items = [{"type": "reasoning", "summary": []}, {"type": "message", "role": "user"}]
    body = json.dumps({"model": "m", "input": items}).encode()
    error = InvalidRequestError("It cannot be read.", code="invalid_encrypted_content")
    repaired = repair_request(body, NONE, error)
    assert repaired is not None
    assert json.loads(repaired[0])["input"] == items[1:]
    learned = LearnedRules("h")
    learned.remember("m", repaired[1])
    assert learned.of("m") == set()


def test_what_was_learnt_is_of_one_model(caplog: pytest.LogCaptureFixture) -> None:
    learned = LearnedRules("api.example", ["no-names"])
    assert learned.of("m") == {"no-names"}
    for _ in range(2):
        learned.remember("m", frozenset({"no-names", "max-tokens"}))
    assert learned.of("m") == {"no-names", "max-tokens"}
    assert learned.of("other") == {"no-names"}
    (record,) = caplog.records
    assert "max-tokens" in record.getMessage()
    assert "no-names" not in record.getMessage()


def test_the_rules_of_many_models_are_bounded() -> None:
    learned = LearnedRules("h")
    for number in range(2500):
        learned.remember(f"m{number}", frozenset({"max-tokens"}))
    assert sum(bool(learned.of(f"m{number}")) for number in range(2500)) <= 1000
