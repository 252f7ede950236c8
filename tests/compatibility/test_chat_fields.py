"""Fields of ``/v1/chat/completions`` besides the messages: every form with one meaning is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.scenario import (
    DONE,
    LOOKUP,
    Scenario,
    answer_hello,
    chunk,
    end,
    nested,
    scenario,
    stream_of,
    whole,
)

Json = dict[str, Any]

HI: Json = {"role": "user", "content": "Hi"}
CALL: Json = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "lookup", "arguments": '{"c":1}'},
}


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as made:
        made.upstream_answers(answer_hello)
        yield made


#: Fields of a request besides the messages, and what the upstream is sent besides its own.
FUNCTION = nested(LOOKUP)
CHOSEN: Json = {"type": "function", "function": {"name": "lookup"}}
SCHEMA: Json = {"type": "object", "properties": {"a": {"type": "string"}}}
FIELDS: dict[str, tuple[Json, Json]] = {
    "cursor-flat-tools": ({"tools": [LOOKUP]}, {"tools": [FUNCTION]}),
    "cursor-nested-tools": ({"tools": [FUNCTION]}, {"tools": [FUNCTION]}),
    "tools-mixed": (
        {"tools": [LOOKUP, {**FUNCTION, "function": {**FUNCTION["function"], "name": "b"}}]},
        {"tools": [FUNCTION, {**FUNCTION, "function": {**FUNCTION["function"], "name": "b"}}]},
    ),
    "tools-without-type": ({"tools": [{"function": FUNCTION["function"]}]}, {"tools": [FUNCTION]}),
    "tools-cache-control": (
        {"tools": [{**FUNCTION, "cache_control": {"type": "ephemeral"}}]},
        {"tools": [FUNCTION]},
    ),
    "tools-nulls": (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "description": None, "parameters": None},
                    "cache_control": None,
                },
                None,
            ]
        },
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
                }
            ]
        },
    ),
    "tools-empty": ({"tools": [], "tool_choice": None}, {}),
    "tools-null": ({"tools": None, "tool_choice": "auto"}, {}),
    "tools-empty-object": ({"tools": {}, "tool_choice": {}, "functions": []}, {}),
    "choice-nested": (
        {"tools": [FUNCTION], "tool_choice": CHOSEN},
        {"tools": [FUNCTION], "tool_choice": CHOSEN},
    ),
    "choice-flat": (
        {"tools": [LOOKUP], "tool_choice": {"type": "function", "name": "lookup"}},
        {"tools": [FUNCTION], "tool_choice": CHOSEN},
    ),
    "choice-without-type": (
        {"tools": [LOOKUP], "tool_choice": {"function": {"name": "lookup"}}},
        {"tools": [FUNCTION], "tool_choice": CHOSEN},
    ),
    "choice-name": (
        {"tools": [LOOKUP], "tool_choice": "lookup"},
        {"tools": [FUNCTION], "tool_choice": CHOSEN},
    ),
    "choice-any": (
        {"tools": [LOOKUP], "tool_choice": "any"},
        {"tools": [FUNCTION], "tool_choice": "required"},
    ),
    "choice-object-auto": (
        {"tools": [LOOKUP], "tool_choice": {"type": "auto"}},
        {"tools": [FUNCTION]},
    ),
    "chat-legacy-functions": (
        {"functions": [FUNCTION["function"]]},
        {"tools": [FUNCTION], "parallel_tool_calls": False},
    ),
    "chat-legacy-choice": (
        {"functions": [FUNCTION["function"]], "function_call": {"name": "lookup"}},
        {"tools": [FUNCTION], "tool_choice": CHOSEN, "parallel_tool_calls": False},
    ),
    "legacy-choice-none": (
        {"functions": [FUNCTION["function"]], "function_call": "none"},
        {"tools": [FUNCTION], "tool_choice": "none", "parallel_tool_calls": False},
    ),
    "legacy-nulls": ({"functions": None, "function_call": None}, {}),
    "chat-logprobs": (
        {"logprobs": True, "top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 2},
    ),
    "logprobs-alone": ({"logprobs": True}, {"logprobs": True}),
    "logprobs-off": ({"logprobs": False, "top_logprobs": None}, {}),
    "logprobs-null": ({"logprobs": None, "top_logprobs": None}, {}),
    "numbers-float-limit": ({"max_tokens": 1000.0}, {"max_tokens": 1000}),
    "numbers-text": ({"temperature": "0.5", "n": "1"}, {"temperature": 0.5}),
    "numbers-no-limit": ({"max_tokens": -1, "seed": 7.0}, {"seed": 7}),
    "fields-null": (
        dict.fromkeys(
            (
                *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "n"),
                *("tools", "tool_choice", "parallel_tool_calls", "response_format", "user"),
                *("metadata", "stream_options", "seed", "logit_bias", "reasoning_effort"),
                *("functions", "function_call", "logprobs", "top_logprobs", "store", "audio"),
            )
        ),
        {},
    ),
    "fields-empty": (
        {"metadata": {}, "stop": [], "response_format": {}, "stream_options": {}, "user": ""},
        {"user": ""},
    ),
    "stop-with-nulls": ({"stop": [None, "", "x"]}, {"stop": ["x"]}),
    "metadata-of-numbers": ({"metadata": {"a": 1, "b": None, "c": ["d"]}}, {}),
    "user-number": ({"user": 7}, {"user": "7"}),
    "format-word": (
        {"response_format": "json_object"},
        {"response_format": {"type": "json_object"}},
    ),
    "format-flat": (
        {"response_format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": SCHEMA},
            }
        },
    ),
    "format-object-with-schema": (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": SCHEMA},
            }
        },
    ),
    "format-unnamed": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": SCHEMA},
            }
        },
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields(world: Scenario, name: str) -> None:
    fields, shown = FIELDS[name]
    world.chat("Hi", stream=False, **fields).expect("stop", "Hello")
    assert world.requests[-1] == {"model": "m", "messages": [HI], **shown}


def test_instructions_are_a_system_message(world: Scenario) -> None:
    world.chat("Hi", instructions="Be kind.").expect("stop", "Hello")
    assert world.requests[-1]["messages"] == [{"role": "system", "content": "Be kind."}, HI]


#: Bodies of the other interface.
RESPONSES_BODIES: dict[str, Json] = {
    "cursor-input": {"input": "Hi"},
    "cursor-input-items": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]
    },
    "cursor-input-and-no-messages": {"input": "Hi", "messages": []},
    "cursor-input-null-messages": {"input": [HI], "messages": None},
    "cursor-input-tools": {"input": [HI], "tools": [LOOKUP], "store": True},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", RESPONSES_BODIES)
def test_a_body_of_the_other_interface(world: Scenario, name: str, stream: bool) -> None:
    body = {"model": "m", "stream": stream, **RESPONSES_BODIES[name]}
    answer = world.server.request("POST", "/v1/chat/completions", body)
    assert answer.status == 200, answer.json
    assert b"chat.completion" in answer.body
    assert world.requests[-1]["messages"] == [HI]
    assert ("tools" in world.requests[-1]) is ("tools" in body)


LOGPROB: Json = {"token": "Hello", "logprob": -0.5, "bytes": [72], "top_logprobs": []}


def test_logprobs_are_shown() -> None:
    logprobs = {"content": [LOGPROB]}
    with scenario() as world:
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        body = json.dumps({"choices": [choice]}).encode()
        world.upstream_sends(
            [
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            ],
            stream_of(chunk({"content": "Hello"}, logprobs=logprobs), end(), DONE),
        )
        once = world.chat(stream=False, logprobs=True).expect("stop", "Hello")
        assert once.body["choices"][0]["logprobs"]["content"] == [LOGPROB]
        streamed = world.chat(logprobs=True).expect("stop", "Hello")
        shown = [one["choices"][0]["logprobs"] for one in streamed.events]
        assert [one["content"] for one in shown if one] == [[LOGPROB]]


#: A custom tool, flat and nested.
CUSTOM: dict[str, Json] = {
    "custom-nested": {"type": "custom", "custom": {"name": "patch"}},
    "custom-flat": {"type": "custom", "name": "patch"},
    "custom-grammar": {
        "type": "custom",
        "custom": {
            "name": "patch",
            "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s: /a/"}},
        },
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CUSTOM)
def test_custom_tools_are_offered_and_called(name: str, stream: bool) -> None:
    made = {**CALL, "index": 0, "function": {"name": "patch", "arguments": '{"input":"a\\nb"}'}}
    message = {"role": "assistant", "tool_calls": [made]}
    sent = stream_of(chunk(message), end("tool_calls"), DONE) if stream else whole(message)
    with scenario() as world:
        world.upstream_sends(sent)
        body = {"model": "m", "messages": [HI], "tools": [CUSTOM[name]], "stream": stream}
        answer = world.server.request("POST", "/v1/chat/completions", body)
        assert world.requests[-1]["tools"][0]["function"]["name"] == "patch"
        called = b'"type":"custom","custom":{"name":"patch","input":"a\\nb"}'
        assert called in answer.body
        assert b'"finish_reason":"tool_calls"' in answer.body


def test_tools_that_a_server_would_run_are_left_out(world: Scenario) -> None:
    tools = [LOOKUP, {"type": "web_search"}, {"type": "image_generation"}]
    world.chat("Hi", stream=False, tools=tools).expect("stop", "Hello")
    assert world.requests[-1]["tools"] == [FUNCTION]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_a_legacy_function_is_shown_as_one(stream: bool) -> None:
    called = {"role": "assistant", "tool_calls": [{**CALL, "index": 0}]}
    sent = stream_of(chunk(called), end("tool_calls"), DONE) if stream else whole(called, "stop")
    with scenario() as world:
        world.upstream_sends(sent)
        functions = [FUNCTION["function"]]
        outcome = world.chat(stream=stream, functions=functions).expect("function_call")
        message = outcome.body["choices"][0]["message"]
        assert message["function_call"] == CALL["function"]
        assert "tool_calls" not in message
