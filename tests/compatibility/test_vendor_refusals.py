"""What providers and gateways refuse, in their own words: the turn is answered all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.misbehaving_upstream import Behaviour, Request
from support.request_faults import (
    EMPTY,
    NAMED,
    PARALLEL,
    SCHEMA,
    STRICT,
    SYSTEM,
    TOOLS,
    TURNS,
    WHOLE,
    Fault,
    begins_otherwise,
    calls_without_tools,
    does_not_alternate,
    ends_otherwise,
    formats_other_than,
    has,
    has_blank,
    has_blank_beside_calls,
    has_call_without_thoughts,
    has_odd_name,
    has_parallel_calls,
    has_strict,
    has_system,
    lacks,
)
from support.scenario import Json, body_of, scenario
from support.strict_upstreams import (
    CALL,
    OUTPUT,
    ROUND,
    all_words,
    answer_hello,
    messages_of,
    said,
    user,
)

#: What is refused, the input, further fields of the request, and the words of providers.
REFUSALS: dict[str, tuple[Fault, Any, Json, list[str]]] = {
    "turns": (
        does_not_alternate,
        TURNS,
        {},
        [
            "After the (optional) system message(s), user or tool message(s) should alternate with "
            "assistant message(s).",
            "After the (optional) system message(s), user and assistant roles should be "
            "alternating.",
            "Conversation roles must alternate user/assistant/user/assistant/... at row 1",
            "the role of message with odd index in the messages must be user or function",
            "the length of messages must be an odd number",
        ],
    ),
    "beginning": (
        begins_otherwise,
        [said("I am Bo."), user("Hi")],
        {},
        [
            "A conversation must start with a user message. Try again with a conversation that "
            "starts with a user message.",
        ],
    ),
    "beginning-with-a-call": (
        begins_otherwise,
        [CALL, OUTPUT, user("And?")],
        {},
        [
            "Please ensure that function call turn comes immediately after a user turn or after a "
            "function response turn.",
        ],
    ),
    "end": (
        ends_otherwise,
        [user("One."), said("Begin")],
        {},
        [
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
            "assistant",
            "last message role must be user",
            "The final message must be a user message",
            "This model does not support assistant message prefill. The conversation must end with "
            "a user message.",
            "messages 最后一个角色必须为 user 或 tool",
        ],
    ),
    "system": (
        has_system,
        SYSTEM,
        {},
        [
            "Please use a valid role: user, model.",
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "invalid params, invalid message role: system (2013)",
            "Unsupported role system: only user and assistant allowed",
        ],
    ),
    "calls-without-tools": (
        calls_without_tools,
        ROUND,
        {},
        [
            "The toolConfig field must be defined when using toolUse and toolResult blocks.",
            "litellm.UnsupportedParamsError: Bedrock doesn't support tool calling without `tools=` "
            "param specified. Pass `tools=` param OR set `litellm.modify_params = True`",
            "Requests which include `tool_use` or `tool_result` blocks must define tools",
            "No function declarations were provided, but a function call is in the history",
        ],
    ),
    "signatures": (
        lambda request: "thought_signature" not in str(request),
        ROUND,
        {},
        [
            "Function call is missing a thought_signature in functionCall parts. This is required "
            "for tools to work correctly.",
        ],
    ),
    "names-of-outputs": (
        lambda request: any(
            "name" not in it for it in messages_of(request) if it["role"] == "tool"
        ),
        ROUND,
        {},
        [
            "* GenerateContentRequest.contents[2].parts[0].function_response.name: is empty.",
            "messages.2: tool message must have a name",
        ],
    ),
    "content-and-calls": (
        lambda request: any(
            it.get("content") and "tool_calls" in it for it in messages_of(request)
        ),
        [user("Look."), said("I look."), CALL, OUTPUT, user("And?")],
        {},
        [
            "Assistant message must have either content or tool_calls, but not both.",
            "An assistant message with 'tool_calls' must not have 'content'",
        ],
    ),
    "parallel-calls": (
        has_parallel_calls,
        PARALLEL,
        {},
        [
            "This model only supports single tool-calls at once!",
            "Parallel tool calls are not supported: one tool call per message",
        ],
    ),
    "names-of-functions": (
        has_odd_name,
        NAMED,
        {},
        [
            "Invalid 'messages[1].tool_calls[0].function.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
            "Invalid function name. Must start with a letter or an underscore.",
            "messages.1.content.0.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]+$'",
            "Value 'functions.lookup v2' at 'messages.1.member.content.1.member.toolUse.name' "
            "failed to satisfy constraint: Member must satisfy regular expression pattern",
        ],
    ),
    "empty": (
        has_blank,
        EMPTY,
        {},
        [
            "Each message must have at least one content element.",
            "messages 参数非法。请检查文档。",
            "invalid params, chat content is empty (2013)",
            "invalid request: message must be at least 1 token long or tool results must be "
            "specified.",
            "Unable to submit request because it must have a text parameter",
            "invalid message content type: <nil>",
            "<400> InternalError.Algo.InvalidParameter: The content field is a required field.",
        ],
    ),
    "empty-beside-calls": (
        has_blank_beside_calls,
        ROUND,
        {},
        ["The text field in the ContentBlock object at messages.1.content.0 is blank."],
    ),
    "thoughts": (
        has_call_without_thoughts,
        ROUND,
        {},
        [
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
            "thinking is enabled but reasoning_content is missing in assistant tool call message "
            "at index 2",
        ],
    ),
    "stream_options": (
        has("stream_options"),
        "One.",
        {"stream": True},
        [
            "Unrecognized request argument supplied: stream_options",
            "unexpected keyword argument 'stream_options'",
            'json: unknown field "stream_options"',
            "不支持的参数 stream_options",
            "stream_options is illegal",
        ],
    ),
    "parallel_tool_calls": (
        lambda request: "parallel_tool_calls" in request,
        "One.",
        {**TOOLS, "parallel_tool_calls": False},
        ["`parallel_tool_calls` is not supported with this model"],
    ),
    "strict": (
        has_strict,
        "One.",
        STRICT,
        [
            "unknown field: parameter 'strict' is not a valid field. For proper usage, please "
            "refer to the reference",
            "Unknown name \"strict\" at 'tools[0].function_declarations[0]': Cannot find field.",
        ],
    ),
    "only-streams": (
        lacks("stream"),
        "One.",
        WHOLE,
        [
            "parameter.enable_thinking must be set to false for non-streaming calls",
            "Stream must be set to true",
            "Streaming is required for this operation that may take longer than 10 minutes",
        ],
    ),
    "never-streams": (
        has("stream"),
        "One.",
        {**TOOLS, "stream": True},
        ["Cannot use tools with stream", "The model is unsupported for streaming"],
    ),
    "format": (
        formats_other_than(None),
        "One.",
        SCHEMA,
        [
            "json mode cannot be combined with tool/function calling",
            "Function calling with a response mime type: 'application/json' is unsupported",
            'invalid format: expected "json" or a JSON schema',
        ],
    ),
    "schema": (
        formats_other_than("json_object", None),
        "One.",
        SCHEMA,
        ["response_format: Input should be 'text' or 'json_object'"],
    ),
}
#: The words that reach the model, where they are not the first message's.
WORDS = {
    "turns": ["One.", "Two.", "Sys.", "Three."],
    "beginning": ["I am Bo.", "Hi"],
    "beginning-with-a-call": ["Found.", "And?"],
    "end": ["One.", "Begin"],
    "system": ["Sys.", "One."],
    "content-and-calls": ["I look.", "Found.", "And?"],
    "parallel-calls": ["Found.", "Second.", "And?"],
    "empty": ["One.", "Two."],
}
NAMES = [(name, number) for name, row in REFUSALS.items() for number in range(len(row[3]))]


def models(url: str) -> Mapping[str, Model]:
    """A model for each refusal: each learns by itself."""
    return {
        f"{name}-{number}": ChatCompletionsModel(
            ModelInfo("m"), url, retry=RetryPolicy(base=0.0), read_timeout=10.0
        )
        for name, number in NAMES
    }


@pytest.mark.parametrize("status", [400, 500])
def test_the_next_request_is_one_that_the_provider_takes(status: int) -> None:
    def behave(request: Request) -> Behaviour:
        name, _, number = request.json["model"].rpartition("-")
        fault, _, _, words = REFUSALS[name]
        if not fault(request.json):
            return answer_hello(request.json)
        error = {"message": words[int(number)], "type": "invalid_request_error"}
        return body_of({"error": error}, status)

    with scenario(models=models) as world:
        world.upstream_answers(behave)
        for name, number in NAMES:
            _, given, fields, words = REFUSALS[name]
            before = len(world.requests)
            model = f"{name}-{number}"
            outcome = world.respond(given, model=model, **{"stream": False, **fields})
            assert outcome.status == "completed", (words[number], outcome.error)
            said_last = all_words(world.requests[-1])
            assert all(one in said_last for one in WORDS.get(name, ())), words[number]
            assert len(world.requests) - before <= 4, words[number]
            # From then on it takes one request.
            before = len(world.requests)
            world.respond(given, model=model, **{"stream": False, **fields}).expect("completed")
            assert len(world.requests) - before == 1, words[number]


def test_calls_one_by_one_keep_their_outputs_and_their_order() -> None:
    with scenario(quirks=("single-calls",)) as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond(PARALLEL, stream=False).expect("completed", "Hello")
        sent = world.requests[-1]["messages"]
        assert [one["role"] for one in sent] == [
            *("user", "assistant", "tool", "assistant", "tool", "user"),
        ]
        for made, output in (sent[1:3], sent[3:5]):
            assert [one["id"] for one in made["tool_calls"]] == [output["tool_call_id"]]


def test_a_malformed_call_is_requested_again() -> None:
    error = {
        "message": "tool call validation failed: parameters for tool lookup did not match schema: "
        "additionalProperties 'x' not allowed",
        "code": "tool_use_failed",
        "failed_generation": "<function=lookup>",
    }
    with scenario() as world:
        world.upstream_sends(body_of({"error": error}, 400))
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond("Hi", stream=False, **TOOLS).expect("completed", "Hello")
        # Nothing was learnt of it: the same request was sent again.
        assert world.requests[0] == world.requests[1]


@pytest.mark.parametrize("place", ["detail", "message", "error"])
def test_a_field_is_named_by_its_place_alone(place: str) -> None:
    detail = [
        {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Not permitted"}
    ]
    body = {"detail": detail} if place == "detail" else {place: {"detail": detail}}

    def behave(request: Request) -> Behaviour:
        if "stream_options" in request.json:
            return body_of(body, 422)
        return answer_hello(request.json)

    with scenario() as world:
        world.upstream_answers(behave)
        world.respond("Hi").expect("completed", "Hello")


# ---- upstreams of the Responses API

#: What is refused, the input, further fields, and the words.
RESPONSES_REFUSALS: dict[str, tuple[Fault, Any, Json, str]] = {
    "include": (has("include"), "Hi", {}, "Unknown parameter: 'include'."),
    "truncation": (has("truncation"), "Hi", {}, "Unknown parameter: 'truncation'"),
    "store": (
        lambda request: "store" in request,
        "Hi",
        {},
        "store: Extra inputs are not permitted",
    ),
    "service_tier": (
        has("service_tier"),
        "Hi",
        {"service_tier": "flex"},
        "Unknown parameter: 'service_tier'",
    ),
    "contents": (
        lambda request: any(isinstance(one.get("content"), list) for one in request["input"]),
        [user("Hi"), said("Yo"), user("And?")],
        {},
        "assistant content must be string",
    ),
    "ids": (
        lambda request: any("id" not in one for one in request["input"]),
        ROUND,
        {},
        "Missing required parameter: 'input[1].id'.",
    ),
    "status": (
        lambda request: any("status" not in one for one in request["input"]),
        ROUND,
        {},
        "input.1.status: Field required",
    ),
    "custom-tools": (
        lambda request: any(one["type"] == "custom" for one in request.get("tools", ())),
        "Hi",
        {"tools": [{"type": "custom", "name": "p"}]},
        "Invalid value: 'custom'. Supported values are: 'function' and 'mcp'.",
    ),
}


def test_the_next_request_is_one_that_a_responses_upstream_takes() -> None:
    for name, (fault, given, fields, words) in RESPONSES_REFUSALS.items():

        def behave(request: Request, fault: Fault = fault, words: str = words) -> Behaviour:
            if fault(request.json):
                return body_of({"error": {"message": words}}, 400)
            return answer_hello(request.json)

        with scenario("responses") as world:
            world.upstream_answers(behave)
            outcome = world.respond(given, stream=False, **fields)
            assert outcome.status == "completed", (name, outcome.error)
            assert len(world.requests) <= 4, name


def test_an_upstream_that_insists_on_storing_is_not_used() -> None:
    def behave(request: Request) -> Behaviour:
        if "store" in request.json:
            return body_of({"error": {"message": "store=false is not supported"}}, 400)
        return answer_hello(request.json)

    with scenario("responses") as world:
        world.upstream_answers(behave)
        outcome = world.respond("Hi", stream=False)
        assert outcome.http == 400
        assert all(one["store"] is False for one in world.requests)
