"""What is sent upstream of tools: arguments, outputs with pictures, and schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.turns import Options
from antiphon.models.openai.chat_completions import ChatCompletionsEncoder
from antiphon.models.openai.responses import ResponsesEncoder
from support.mcp_toolsets import gateway, open_toolset, server_request
from support.model_calls import call_with_messages
from support.raw_mcp_server import Raw, answering, reply, usual
from support.scenario import DONE, LOOKUP, call, end, nested, scenario, stream_of, whole
from support.strict_upstreams import (
    CALL,
    IMAGE,
    OUTPUT,
    PICTURE,
    ROUND,
    Json,
    all_words,
    answer_hello,
    part,
    strict,
    user,
)

# ---- arguments


def _is_object(text_: str) -> bool:
    try:
        return isinstance(json.loads(text_), dict)
    except ValueError:
        return False


def arguments_are_objects(request: Json) -> str | None:
    for one in request["messages"]:
        for made in one.get("tool_calls") or ():
            if not _is_object(made["function"]["arguments"]):
                return "invalid tool call arguments"
    return None


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_arguments_that_were_empty_are_an_object(stream: bool) -> None:
    function = {"name": "lookup", "arguments": ""}
    made = {"index": 0, "id": "call_1", "type": "function", "function": function}
    calls = (
        stream_of(call(made), end("tool_calls"), DONE)
        if stream
        else whole({"content": None, "tool_calls": [made]}, "tool_calls")
    )
    with scenario() as world:
        world.upstream_sends(calls)
        first = world.respond(stream=stream, tools=[LOOKUP])
        world.upstream_answers(strict(arguments_are_objects))
        again = world.respond([OUTPUT], previous_response_id=first.body["id"], stream=stream)
        again.expect("completed", "Hello")
        assert len(world.requests) == 2
        assert world.requests[-1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


BROKEN = [
    "",
    " ",
    "null",
    '{"c": 1',
    "{",
    "[1]",
    "5",
    '"Rome"',
    '{"c": NaN}',
    "Rome & Oslo",
    "{}{}",
]


@pytest.mark.parametrize("arguments", BROKEN)
def test_arguments_that_are_no_object_do_not_spoil_the_conversation(arguments: str) -> None:
    broken = {**CALL, "arguments": arguments}
    history = [
        user("Look."),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "lookup", "arguments": arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Found."},
    ]
    with scenario() as world:
        world.upstream_answers(strict(arguments_are_objects))
        first = world.respond([user("Look."), broken, OUTPUT]).expect("completed", "Hello")
        world.respond("And?", previous_response_id=first.body["id"]).expect("completed", "Hello")
        world.chat(history).expect("stop", "Hello")
        assert len(world.requests) == 3
        for sent in world.requests:
            shown = json.loads(sent["messages"][1]["tool_calls"][0]["function"]["arguments"])
            words = arguments.strip()
            assert shown == {} if words in ("", "null") else arguments in shown.values()


@pytest.mark.parametrize("arguments", ['{"c": 1}', '{"c":1,"c":2}', "{ }", '{"x":"\\u2028"}'])
def test_arguments_that_are_an_object_are_sent_as_they_are(arguments: str) -> None:
    with scenario() as world:
        world.upstream_answers(strict(arguments_are_objects))
        world.respond([user("Look."), {**CALL, "arguments": arguments}, OUTPUT])
        made = world.requests[0]["messages"][1]["tool_calls"][0]
        assert made["function"]["arguments"] == arguments


# ---- outputs of tools


def tools_speak_text(request: Json) -> str | None:
    for one in request["messages"]:
        if one["role"] == "tool" and not isinstance(one["content"], str):
            return "Image URLs are only allowed for messages with role 'user'"
    return None


OUTPUTS: dict[str, tuple[Any, str | None, list[Json]]] = {
    "picture-of-tool": ([part("A chart."), IMAGE], "A chart.", [IMAGE]),
    "picture-only-of-tool": ([IMAGE], None, [IMAGE]),
    "parts-of-tool": ([part("A "), part("chart.")], "A chart.", []),
    "picture-first": ([IMAGE, part("A chart.")], "A chart.", [IMAGE]),
    "two-pictures": ([IMAGE, part("Two."), IMAGE], "Two.", [IMAGE, IMAGE]),
    "detail": ([part("A."), {**IMAGE, "detail": "low"}], "A.", [IMAGE]),
    "empty-text": ([part(""), IMAGE], None, [IMAGE]),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_pictures_of_tools_are_a_user_message(name: str, stream: bool) -> None:
    output, words, pictures = OUTPUTS[name]
    given = [user("Look."), CALL, {**OUTPUT, "output": output}]
    with scenario() as world:
        world.upstream_answers(strict(tools_speak_text))
        first = world.respond(given, stream=stream).expect("completed", "Hello")
        again = world.respond("And?", previous_response_id=first.body["id"], stream=stream)
        again.expect("completed", "Hello")
        assert len(world.requests) == 2
        for sent in world.requests:
            tool, *rest = sent["messages"][2:]
            assert tool["content"] == words if words else tool["content"]
            if pictures:
                assert rest[0]["role"] == "user"
                kinds = [one["type"] for one in rest[0]["content"]]
                assert kinds == ["image_url"] * len(pictures)


def test_pictures_come_behind_all_outputs_of_a_round() -> None:
    second = {**CALL, "call_id": "call_2"}
    outputs = [
        {**OUTPUT, "call_id": one, "output": [part(f"Of {one}."), IMAGE]}
        for one in ("call_2", "call_1")
    ]
    with scenario() as world:
        world.upstream_answers(strict(tools_speak_text))
        world.respond([user("Look."), CALL, second, *outputs, user("And?")])
        sent = world.requests[0]["messages"]
        assert [one["role"] for one in sent] == [
            "user",
            "assistant",
            "tool",
            "tool",
            "user",
            "user",
        ]
        assert [one["content"] for one in sent[2:4]] == ["Of call_1.", "Of call_2."]
        shown = [one.get("text", "picture") for one in sent[4]["content"]]
        assert shown == [
            "Output of the call call_1:",
            "picture",
            "Output of the call call_2:",
            "picture",
        ]
        assert sent[5] == user("And?")


def test_pictures_of_the_next_turn_come_behind_its_outputs() -> None:
    function = {"name": "lookup", "arguments": "{}"}
    made = [{"index": index, "id": f"call_{index}", "function": function} for index in range(2)]
    with scenario() as world:
        world.upstream_sends(stream_of(call(*made), end("tool_calls"), DONE))
        first = world.respond("Look.", tools=[LOOKUP])
        world.upstream_answers(strict(tools_speak_text))
        outputs = [{**OUTPUT, "call_id": f"call_{index}", "output": [IMAGE]} for index in (1, 0)]
        again = world.respond([*outputs, user("And?")], previous_response_id=first.body["id"])
        again.expect("completed", "Hello")
        roles = [one["role"] for one in world.requests[-1]["messages"]]
        assert roles == ["user", "assistant", "tool", "tool", "user", "user"]


def test_a_responses_upstream_gets_pictures_as_outputs_until_it_refuses_them() -> None:
    given = [user("Look."), CALL, {**OUTPUT, "output": [part("A."), IMAGE]}]

    def check(request: Json) -> str | None:
        wrong = any(isinstance(one.get("output"), list) for one in request["input"])
        return "Invalid type for 'input[2].output': expected a string" if wrong else None

    with scenario("responses") as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond(given, stream=False).expect("completed", "Hello")
        assert world.requests[0]["input"][2]["output"][1]["type"] == "input_image"
        world.upstream_answers(strict(check))
        world.respond(given, stream=False).expect("completed", "Hello")
        output, moved = world.requests[-1]["input"][2:]
        assert output["output"] == "A."
        assert (moved["type"], moved["role"]) == ("message", "user")
        assert [one["type"] for one in moved["content"]] == ["input_image"]


# ---- schemas


@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_schemas_of_functions_are_complete(kind: str) -> None:
    schemas: list[tuple[Any, Any]] = [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        (
            {"type": "object", "properties": {"a": {"type": "array"}, "o": {"type": "object"}}},
            {
                "type": "object",
                "properties": {
                    "a": {"type": "array", "items": {}},
                    "o": {"type": "object", "properties": {}},
                },
            },
        ),
    ]
    tools = [
        {"type": "function", "name": f"f{n}", "parameters": given}
        for n, (given, _) in enumerate(schemas)
    ]
    with scenario(kind) as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond(tools=tools, stream=False).expect("completed", "Hello")
        world.chat(tools=[nested(one) for one in tools], stream=False).expect("stop", "Hello")
        for request in world.requests:
            sent = [one.get("function", one) for one in request["tools"]]
            assert [one["parameters"] for one in sent] == [wanted for _, wanted in schemas]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (
            'Invalid JSON payload received. Unknown name "$schema" at '
            "'tools[0].function_declarations[0].parameters': Cannot find field.",
            "$schema",
        ),
        ('Unknown name "additionalProperties" at tools[0].parameters', "additionalProperties"),
        ("body.tools.0.function.strict: Extra inputs are not permitted", "strict"),
    ],
)
def test_keywords_that_an_upstream_does_not_know_are_left_out(words: str, key: str) -> None:
    tool = {
        "type": "function",
        "name": "f",
        "strict": True,
        "parameters": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"$schema": {"type": "string"}},
            "additionalProperties": False,
        },
    }

    def check(request: Json) -> str | None:
        function = request["tools"][0]["function"]
        return words if key in function or key in function["parameters"] else None

    with scenario() as world:
        world.upstream_answers(strict(check))
        world.respond(tools=[tool]).expect("completed", "Hello")
        function = world.requests[-1]["tools"][0]["function"]
        assert function["parameters"]["properties"] == {"$schema": {"type": "string"}}


# ---- models without tools


@pytest.mark.parametrize(
    "words",
    [
        "Only user and assistant roles are supported!",
        "role 'tool' is not supported by this model",
        "Unknown role: tool",
    ],
)
def test_calls_are_words_for_a_model_without_tools(words: str) -> None:
    def check(request: Json) -> str | None:
        roles = {one["role"] for one in request["messages"]}
        has_calls = any(one.get("tool_calls") for one in request["messages"])
        return words if "tool" in roles or has_calls else None

    with scenario() as world:
        world.upstream_answers(strict(check))
        given = [user("Look."), CALL, {**OUTPUT, "output": [part("Found."), IMAGE]}, user("And?")]
        world.respond(given).expect("completed", "Hello")
        sent = all_words(world.requests[-1])
        assert all(one in sent for one in ("Look.", "lookup", "{}", "Found.", "And?"))
        assert PICTURE in json.dumps(world.requests[-1])


def test_functions_of_the_history_are_offered_where_they_have_to_be() -> None:
    words = "Requests which have tool calls need the tools param."

    def check(request: Json) -> str | None:
        calls = any(one.get("tool_calls") for one in request["messages"])
        return words if calls and not request.get("tools") else None

    with scenario() as world:
        world.upstream_answers(strict(check))
        world.respond(ROUND).expect("completed", "Hello")
        sent = world.requests[-1]
        assert [one["function"]["name"] for one in sent["tools"]] == ["lookup"]
        assert sent["tool_choice"] == "none"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_an_upstream_that_always_or_never_streams(stream: bool) -> None:
    words = "Streaming is not supported." if stream else "This model only supports streaming."

    def check(request: Json) -> str | None:
        return words if bool(request.get("stream")) is stream else None

    with scenario() as world:
        world.upstream_answers(strict(check))
        world.respond(stream=stream).expect("completed", "Hello")
        world.chat(stream=stream).expect("stop", "Hello")
        assert len(world.requests) == 3


async def test_mcp_schemas() -> None:
    """Of an MCP server's tool, too, whatever its author left out."""
    tools = [
        {"name": "plain", "inputSchema": {"type": "object"}},
        {"name": "list", "inputSchema": {"type": "object", "properties": {"a": {"type": "array"}}}},
    ]

    def answer(request: Json) -> Raw:
        if request["method"] == "tools/list":
            page = {"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
            return reply(request, page)
        return usual(request)

    async with answering(answer) as url:
        server = McpServerConfig(label="raw", url=url, require_approval="never")
        async with (
            gateway(server) as opened,
            open_toolset(opened, server_request("raw")) as toolset,
        ):
            options = Options(tools=tuple(toolset.functions))
    sent = [
        json.loads(encoder.encode(call_with_messages("m", b"[]", options, stream=False)))["tools"]
        for encoder in (
            ChatCompletionsEncoder(upstream_name=None, openai=False),
            ResponsesEncoder(upstream_name=None, host="h"),
        )
    ]
    for functions in sent:
        schemas = {one.get("function", one)["name"]: one.get("function", one) for one in functions}
        assert schemas["raw__plain"]["parameters"] == {"type": "object", "properties": {}}
        properties = schemas["raw__list"]["parameters"]["properties"]
        assert properties == {"a": {"type": "array", "items": {}}}


def test_pictures_of_tools_over_chat_completions() -> None:
    picture = {"type": "image_url", "image_url": {"url": PICTURE}}
    content = [{"type": "text", "text": "A chart."}, picture]
    function = {"name": "lookup", "arguments": "{}"}
    given = [
        user("Look."),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": content},
    ]
    with scenario() as world:
        world.upstream_answers(strict(tools_speak_text))
        world.chat(given).expect("stop", "Hello")
        tool, shown = world.requests[-1]["messages"][2:]
        assert (tool["content"], shown) == ("A chart.", user([picture]))
