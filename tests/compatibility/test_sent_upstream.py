"""What is sent upstream: strict upstreams refuse some requests, and get what they take.

Each upstream here is a function of the request: it answers 400 to what it does not take, in its
own words, and well to all else.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour, Request
from support.scenario import (
    DONE,
    LOOKUP,
    body_of,
    call,
    end,
    nested,
    scenario,
    stream_of,
    text,
    whole,
)

Json = dict[str, Any]
Check = Callable[[Json], str | None]
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def answer_hello(request: Json) -> Behaviour:
    """ "Hello", in the dialect and form that the request wants."""
    if "input" in request:
        part = {"type": "output_text", "text": "Hello"}
        return body_of({"status": "completed", "output": [{"type": "message", "content": [part]}]})
    if request.get("stream"):
        return stream_of(text("Hello"), end(), DONE)
    return whole({"role": "assistant", "content": "Hello"})


def strict(check: Check, status: int = 400) -> Callable[[Request], Behaviour]:
    """An upstream that refuses what a check finds fault with; the fault is its words."""

    def behave(request: Request) -> Behaviour:
        fault = check(request.json)
        if fault is not None:
            error = {"message": fault, "type": "invalid_request_error"}
            return body_of({"error": error}, status)
        return answer_hello(request.json)

    return behave


def messages_of(request: Json) -> list[Json]:
    given: list[Json] = request["messages"] if "messages" in request else request["input"]
    return given


def texts(value: Any) -> Iterator[str]:
    """Every text of the messages of a request."""
    if isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, dict):
        for key in ("content", "output", "text", "arguments", "function", "tool_calls", "name"):
            yield from texts(value.get(key))
    elif isinstance(value, str):
        yield value


def all_words(request: Json) -> str:
    return "\n".join(texts(messages_of(request)))


# ---- system messages


def only_first_is_system(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = [one.get("role") for one in messages_of(request)]
        fine = not {"system", "developer"} & set(roles[1:]) and "developer" not in roles
        return None if fine else words

    return check


def no_system(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = {one.get("role") for one in messages_of(request)}
        return words if {"system", "developer"} & roles else None

    return check


def developer(words: Any) -> Json:
    return {"role": "developer", "content": words}


def system(words: Any) -> Json:
    return {"role": "system", "content": words}


def user(words: Any = "Hi") -> Json:
    return {"role": "user", "content": words}


def said(words: Any = "Yes.") -> Json:
    return {"role": "assistant", "content": words}


#: Messages in which system messages stand anywhere, and further fields.
SYSTEM_MESSAGES: dict[str, tuple[list[Json], Json]] = {
    "system-developer-beside-instructions": (
        [developer("Be kind."), user()],
        {"instructions": "Be brief."},
    ),
    "system-two-in-input": ([system("Be kind."), system("Be brief."), user()], {}),
    "system-parts": (
        [
            system(
                [{"type": "input_text", "text": "Be"}, {"type": "input_text", "text": " kind."}]
            ),
            developer([{"type": "input_text", "text": "Be brief."}]),
            user(),
        ],
        {},
    ),
    "system-developer-between": ([user("One"), said(), developer("Be kind."), user("Two")], {}),
    "system-developer-last": ([user("One"), developer("Be kind.")], {}),
    "system-developer-alone": ([developer("Be kind.")], {}),
    "three-and-instructions": (
        [system("A."), user("One"), developer("B."), said(), system("C."), user("Two")],
        {"instructions": "Be brief."},
    ),
}

SYSTEM_REFUSALS: dict[str, Check] = {
    "qwen": only_first_is_system("System message must be at the beginning."),
    "single": only_first_is_system("Only a single system message is supported."),
    "mistral": only_first_is_system("Unexpected role 'system' after role 'user'"),
    "multiple": only_first_is_system("Multiple system messages are not allowed"),
    "jinja": only_first_is_system(
        "Error rendering prompt with jinja template: raise_exception('bad message order')"
    ),
    "gemma": no_system("System role not supported"),
    "gemini": no_system("Developer instruction is not enabled for models/gemma-3"),
    "only-two-roles": no_system("Only user and assistant roles are supported!"),
}


def expected_words(given: list[Json], fields: Json) -> list[str]:
    return [one for one in texts([*given, {"content": fields.get("instructions", "")}]) if one]


@pytest.mark.parametrize("refusal", SYSTEM_REFUSALS)
@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_system_messages_reach_a_template_that_takes_one(refusal: str, kind: str) -> None:
    for name, (given, fields) in SYSTEM_MESSAGES.items():
        with scenario(kind) as world:
            world.upstream_answers(strict(SYSTEM_REFUSALS[refusal]))
            for stream in (False, True) if kind == "chat_completions" else (False,):
                outcome = world.respond(given, stream=stream, **fields)
                outcome.expect("completed", "Hello")
                words = all_words(world.requests[-1])
                missing = [one for one in expected_words(given, fields) if one not in words]
                assert missing == [], name


CHAT_SYSTEM_MESSAGES: dict[str, list[Json]] = {
    "system-two-chat": [system("Be kind."), system("Be brief."), user()],
    "two-kinds": [system("Be kind."), developer("Be brief."), user()],
    "parts": [system([{"type": "text", "text": "Be kind."}]), system("Be brief."), user()],
    "last": [user("One"), said("Two"), user("Three"), system("Be brief.")],
    "with-a-name": [{**system("Be kind."), "name": "ann"}, system("Be brief."), user()],
}


@pytest.mark.parametrize("refusal", SYSTEM_REFUSALS)
def test_system_messages_of_chat_completions_reach_it(refusal: str) -> None:
    for given in CHAT_SYSTEM_MESSAGES.values():
        with scenario() as world:
            world.upstream_answers(strict(SYSTEM_REFUSALS[refusal]))
            for stream in (False, True):
                world.chat(given, stream=stream).expect("stop", "Hello")
                words = all_words(world.requests[-1])
                assert all(one in words for one in expected_words(given, {}))


def test_system_in_later_turn() -> None:
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        first = world.respond("One", instructions="Be brief.").expect("completed", "Hello")
        later = [developer("Be kind."), user("Two")]
        outcome = world.respond(later, previous_response_id=first.body["id"])
        outcome.expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [
            system("Be kind."),
            user("One"),
            said("Hello"),
            user("Two"),
        ]


def test_a_rule_is_remembered_for_its_model() -> None:
    given = [user("One"), developer("Be kind.")]
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        counts = []
        for _ in range(3):
            world.respond(given).expect("completed", "Hello")
            counts.append(len(world.requests))
        assert counts == [2, 3, 4]


def test_a_configured_rule_needs_no_refusal() -> None:
    with scenario(quirks=["single-system-message"]) as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        world.respond([user("One"), developer("Be kind.")]).expect("completed", "Hello")
        assert len(world.requests) == 1


def test_what_no_rule_helps_against_is_shown_as_the_upstream_says_it() -> None:
    with scenario() as world:
        world.upstream_answers(strict(lambda _: "System message must be at the beginning."))
        outcome = world.respond([user("One"), developer("Be kind.")], stream=False)
        assert (outcome.http, outcome.status) == (400, "error")
        assert "at the beginning" in (outcome.error or {})["message"]
        # Nothing was learnt of it.
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond([user("One"), developer("Be kind.")]).expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [user("One"), system("Be kind.")]


# ---- the order of roles


def alternates(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = [one["role"] for one in request["messages"] if one["role"] != "system"]
        fine = roles[:1] == ["user"] and all(a != b for a, b in itertools.pairwise(roles))
        return None if fine else words

    return check


@pytest.mark.parametrize(
    "words",
    [
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "After the optional system message, conversation roles must alternate user and assistant",
        'messages: roles must alternate between "user" and "assistant", but found multiple '
        '"user" roles in a row',
        "First message must be from user and there must not be consecutive messages of one role.",
    ],
)
@pytest.mark.parametrize(
    "given",
    [
        [user("One"), user("Two")],
        [said("Before."), user("One")],
        [system("S."), said("Before."), said("And."), user("One"), user("Two")],
        [{**user("One"), "name": "ann"}, {**user("Two"), "name": "bob"}],
        [user("One"), user([{"type": "input_image", "image_url": PICTURE}])],
    ],
)
def test_roles_alternate_where_they_have_to(words: str, given: list[Json]) -> None:
    with scenario() as world:
        world.upstream_answers(strict(alternates(words)))
        world.respond(given).expect("completed", "Hello")
        sent = all_words(world.requests[-1])
        assert all(one in sent for one in texts(given))
        assert json.dumps(given).count(PICTURE) == json.dumps(world.requests[-1]).count(PICTURE)


CALL: Json = {"type": "function_call", "call_id": "call_1", "name": "lookup", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "call_1", "output": "Found."}
ROUND: list[Json] = [user("Look."), CALL, OUTPUT, user("And?")]


def no_user_after_tool(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = [one["role"] for one in request["messages"]]
        wrong = ("tool", "user") in itertools.pairwise(roles)
        return words if wrong else None

    return check


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("Unexpected role 'user' after role 'tool'", id="user-after-tool"),
        "Expected last role to be assistant after tool but got user",
        "messages with role 'tool' must be followed by a message of role 'assistant'",
        "Invalid conversation: a user message may not come directly after a tool message",
    ],
)
def test_user_after_tool(words: str) -> None:
    with scenario() as world:
        world.upstream_answers(strict(no_user_after_tool(words)))
        for stream in (True, False):
            world.respond(ROUND, stream=stream).expect("completed", "Hello")
            assert all(one in all_words(world.requests[-1]) for one in texts(ROUND))
        pictured = [user("Look."), CALL, {**OUTPUT, "output": [IMAGE]}]
        world.respond(pictured).expect("completed", "Hello")
        assert PICTURE in json.dumps(world.requests[-1])


# ---- ids of calls


def ids_are(pattern: str, words: str) -> Check:
    def check(request: Json) -> str | None:
        made: list[str] = []
        for one in messages_of(request):
            ids = [it["id"] for it in one.get("tool_calls") or ()]
            ids += [one["call_id"]] if one.get("type") == "function_call" else []
            if any(not re.fullmatch(pattern, it) or it in made for it in ids):
                return words.format(id=ids[0])
            made += ids
            answered = one.get("tool_call_id") or (
                one["call_id"] if one.get("type") == "function_call_output" else None
            )
            if answered is not None and answered not in made:
                return f"no call {answered}"
        return None

    return check


ID_REFUSALS = {
    "ids-of-nine": ids_are(
        "[a-zA-Z0-9]{9}",
        "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9.",
    ),
    "nine-characters": ids_are("[a-zA-Z0-9]{9}", "tool_call_id must be exactly nine characters"),
    "pattern": ids_are(
        "[a-zA-Z0-9_-]+",
        "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    ),
    "forty": ids_are(
        ".{1,40}",
        "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with "
        "maximum length 40, but got a string with length 66 instead.",
    ),
    "unique": ids_are(".*", "Duplicate tool call id {id}"),
}


@pytest.mark.parametrize("refusal", ID_REFUSALS)
@pytest.mark.parametrize("call_id", ["call_1", "functions.lookup:0", "x" * 66, "abcdefghi"])
def test_ids_of_calls(refusal: str, call_id: str) -> None:
    round_ = [{**CALL, "call_id": call_id}, {**OUTPUT, "call_id": call_id}]
    with scenario() as world:
        world.upstream_answers(strict(ID_REFUSALS[refusal]))
        given = [user("Look."), *round_, said(), user("Again."), *round_]
        world.respond(given).expect("completed", "Hello")
        assert "Found." in all_words(world.requests[-1])


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


# ---- empty messages


def nothing_is_empty(request: Json) -> str | None:
    for one in request["messages"]:
        if one["role"] == "assistant" and not one.get("content") and not one.get("tool_calls"):
            return "message must have either content or tool_calls, but not neither"
    return None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([], id="empty-assistant-list"),
        pytest.param("", id="empty-assistant-string"),
        pytest.param(None, id="empty-assistant-null"),
        pytest.param([{"type": "text", "text": ""}], id="empty-part"),
    ],
)
def test_an_assistant_that_said_nothing_is_left_out(content: Any) -> None:
    given = [user("One"), said(content), user("Two")]
    with scenario() as world:
        world.upstream_answers(strict(nothing_is_empty))
        for stream in (True, False):
            world.chat(given, stream=stream).expect("stop", "Hello")
        assert world.requests[0]["messages"] == [user("One"), user("Two")]
        assert len(world.requests) == 2


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_empty_assistant_turn(stream: bool) -> None:
    nothing = stream_of(end(), DONE) if stream else whole({"role": "assistant", "content": ""})
    with scenario() as world:
        world.upstream_sends(nothing)
        first = world.respond("One", stream=stream).expect("completed", "")
        world.upstream_answers(strict(nothing_is_empty))
        for _ in range(2):
            again = world.respond("Two", previous_response_id=first.body["id"], stream=stream)
            again.expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [user("One"), user("Two")]


@pytest.mark.parametrize(
    "words",
    [
        "messages.1: user messages must have non-empty content",
        "text content blocks must be non-empty",
        "Invalid request: message content cannot be empty",
        "messages[1].content: field required",
    ],
)
def test_other_empty_messages_are_left_out_where_they_are_refused(words: str) -> None:
    def check(request: Json) -> str | None:
        return words if any(one.get("content") == "" for one in request["messages"]) else None

    given = [user(""), user("One"), CALL, {**OUTPUT, "output": ""}]
    with scenario() as world:
        world.upstream_answers(strict(check))
        world.respond(given).expect("completed", "Hello")
        roles = [one["role"] for one in world.requests[-1]["messages"]]
        assert roles == ["user", "assistant", "tool"]


# ---- outputs of tools

IMAGE: Json = {"type": "input_image", "image_url": PICTURE}


def tools_speak_text(request: Json) -> str | None:
    for one in request["messages"]:
        if one["role"] == "tool" and not isinstance(one["content"], str):
            return "Image URLs are only allowed for messages with role 'user'"
    return None


def part(words: str) -> Json:
    return {"type": "input_text", "text": words}


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


# ---- formats of answers

SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}}
JSON_SCHEMA: Json = {"type": "json_schema", "name": "place", "schema": SCHEMA}


def formats(words: str, *taken: str | None) -> Check:
    def check(request: Json) -> str | None:
        given = request.get("response_format") or (request.get("text") or {}).get("format") or {}
        return None if given.get("type") in taken else words

    return check


FORMAT_REFUSALS = {
    "format-refused": formats(
        "This response_format type is unavailable now", "json_object", "text", None
    ),
    "groq": formats(
        "This model does not support response format `json_schema`. See supported models",
        "json_object",
        None,
    ),
    "azure": formats(
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this "
        "model.",
        "json_object",
        None,
    ),
    "neither": formats("response_format is not supported by this model", None),
    "no-structured-output": formats("This model does not support structured output.", None),
}


@pytest.mark.parametrize("refusal", FORMAT_REFUSALS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("instructions", [None, "Be brief."])
def test_a_schema_goes_in_words(refusal: str, stream: bool, instructions: str | None) -> None:
    with scenario() as world:
        world.upstream_answers(strict(FORMAT_REFUSALS[refusal]))
        for _ in range(2):
            outcome = world.respond(
                stream=stream, text={"format": JSON_SCHEMA}, instructions=instructions
            )
            outcome.expect("completed", "Hello")
            first, *_rest = world.requests[-1]["messages"]
            assert first["role"] == "system"
            assert json.dumps(SCHEMA, separators=(",", ":")) in first["content"]
            assert "json" in first["content"].lower()
            assert first["content"].startswith(instructions or "Answer")
        given = {"name": "place", "schema": SCHEMA}
        world.chat(
            stream=stream, response_format={"type": "json_schema", "json_schema": given}
        ).expect("stop", "Hello")


def test_a_schema_goes_in_words_to_a_responses_upstream() -> None:
    check = formats("text.format.type json_schema is not supported", "json_object", "text", None)
    with scenario("responses") as world:
        world.upstream_answers(strict(check))
        outcome = world.respond(stream=False, text={"format": JSON_SCHEMA, "verbosity": "low"})
        outcome.expect("completed", "Hello")
        sent = world.requests[-1]
        assert sent["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
        assert "city" in sent["input"][0]["content"]


def test_json_objects_are_a_schema_where_only_that_is_taken() -> None:
    words = "'response_format.type' must be 'json_schema' or 'text'"
    with scenario() as world:
        world.upstream_answers(strict(formats(words, "json_schema", "text", None)))
        world.respond(text={"format": {"type": "json_object"}}).expect("completed", "Hello")
        assert world.requests[-1]["response_format"]["type"] == "json_schema"


def test_a_fault_of_the_schema_is_for_its_author() -> None:
    words = "Invalid schema for response_format 'place': 'additionalProperties' is required"
    with scenario() as world:
        world.upstream_answers(strict(formats(words, None)))
        outcome = world.respond(stream=False, text={"format": JSON_SCHEMA})
        assert (outcome.http, len(world.requests)) == (400, 1)


# ---- fields

REFUSED_FIELDS = {
    "openai": "Unrecognized request argument supplied: {}",
    "openai-new": "Unknown parameter: '{}'.",
    "groq": "property '{}' is unsupported",
    "pydantic": "body.{}: Extra inputs are not permitted",
    "fireworks": "Extra inputs are not permitted, field: '{}', value: 5",
    "google": 'Invalid JSON payload received. Unknown name "{}": Cannot find field.',
    "anthropic": "{}: Extra inputs are not permitted",
}


@pytest.mark.parametrize("refusal", REFUSED_FIELDS)
@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_fields_that_an_upstream_does_not_know_are_left_out(refusal: str, kind: str) -> None:
    unknown: Json = {"top_k": 5, "min_p": 0.1, "my_field": {"a": 1}}

    def check(request: Json) -> str | None:
        wrong = next((one for one in unknown if one in request), None)
        return None if wrong is None else REFUSED_FIELDS[refusal].format(wrong)

    with scenario(kind) as world:
        world.upstream_answers(strict(check, 422 if refusal == "pydantic" else 400))
        for fields in (unknown, unknown):
            outcome = world.respond(stream=False, **fields, temperature=0.5)
            outcome.expect("completed", "Hello")
            assert world.requests[-1]["temperature"] == 0.5
        assert len(world.requests) == 5


@pytest.mark.parametrize("field", ["stream_options", "parallel_tool_calls", "user", "metadata"])
def test_what_antiphon_adds_is_left_out_where_it_is_refused(field: str) -> None:
    def check(request: Json) -> str | None:
        return f"Unrecognized request argument supplied: {field}" if field in request else None

    with scenario() as world:
        world.upstream_answers(strict(check))
        outcome = world.respond(
            tools=[LOOKUP], parallel_tool_calls=False, user="u", metadata={"a": "b"}
        )
        outcome.expect("completed", "Hello")


def test_the_limit_has_the_name_that_the_model_takes() -> None:
    words = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead."
    )
    with scenario() as world:
        world.upstream_answers(strict(lambda it: words if "max_tokens" in it else None))
        world.respond(max_output_tokens=7).expect("completed", "Hello")
        assert world.requests[-1]["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("temperature", "Unsupported value: 'temperature' does not support 0.2 with this model."),
        ("top_p", "top_p is not supported with this model"),
        ("max_output_tokens", "max_tokens is too large: 1. Supports at most 16384 tokens"),
    ],
)
def test_a_refused_choice_of_the_client_is_shown(field: str, words: str) -> None:
    with scenario() as world:
        world.upstream_answers(strict(lambda _: words))
        outcome = world.respond(stream=False, **{field: 1})
        assert (outcome.http, len(world.requests)) == (400, 1)
        assert (outcome.error or {})["message"] == words


# ---- and besides


def test_several_rules_at_once() -> None:
    checks = [
        SYSTEM_REFUSALS["qwen"],
        no_user_after_tool("Unexpected role 'user' after role 'tool'"),
        ID_REFUSALS["ids-of-nine"],
        FORMAT_REFUSALS["format-refused"],
    ]

    def check(request: Json) -> str | None:
        return next((fault for one in checks if (fault := one(request))), None)

    given = [*ROUND, developer("Be kind.")]
    with scenario() as world:
        world.upstream_answers(strict(check))
        fields: Json = {"text": {"format": JSON_SCHEMA}, "instructions": "Be brief."}
        world.respond(given, **fields).expect("completed", "Hello")
        count = len(world.requests)
        world.respond(given, **fields).expect("completed", "Hello")
        assert len(world.requests) == count + 1
        assert all(one in all_words(world.requests[-1]) for one in texts(given))


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_template_that_fails_is_a_refusal_too(status: int) -> None:
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"], status))
        world.respond([user("One"), developer("Be kind.")]).expect("completed", "Hello")
        assert len(world.requests) == 2


def test_outputs_turned_round() -> None:
    second = {**CALL, "call_id": "call_2"}
    outputs = [{**OUTPUT, "call_id": one, "output": one} for one in ("call_2", "call_1")]
    with scenario() as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond([user("Look."), CALL, second, *outputs]).expect("completed", "Hello")
        sent = world.requests[0]["messages"]
        assert [one["id"] for one in sent[1]["tool_calls"]] == ["call_1", "call_2"]
        assert [one["content"] for one in sent[2:]] == ["call_1", "call_2"]


def test_details_of_pictures() -> None:
    with scenario() as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        for detail, sent in {
            "auto": None,
            "original": "high",
            "low": "low",
            "high": "high",
        }.items():
            content = [part("Look."), {**IMAGE, "detail": detail}]
            world.respond([user(content)]).expect("completed", "Hello")
            picture = world.requests[-1]["messages"][0]["content"][1]["image_url"]
            assert picture.get("detail") == sent, f"detail-{detail}"
            assert picture["url"] == PICTURE
        # The words of a person who writes about it are not touched.
        words = '{"detail":"original"},"role":"tool","content":['
        world.respond(words).expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [user(words)]


def test_original_detail_goes_to_a_responses_upstream() -> None:
    with scenario("responses") as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        content = [part("Look."), {**IMAGE, "detail": "original"}]
        world.respond([user(content)], stream=False).expect("completed", "Hello")
        assert world.requests[-1]["input"][0]["content"][1]["detail"] == "original"


ODD_WORDS = (
    "a\0b\u2028c\u2029d\u200de\u200c<b>&amp;</b> \\ud83d \U000e0067 <|im_start|> \r\n\t\u0085"
)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_words_go_back_unchanged(stream: bool) -> None:
    answered = (
        stream_of(text(ODD_WORDS), end(), DONE)
        if stream
        else whole({"role": "assistant", "content": ODD_WORDS})
    )
    with scenario() as world:
        world.upstream_sends(answered)
        first = world.respond(ODD_WORDS, stream=stream, instructions=ODD_WORDS)
        first.expect("completed", ODD_WORDS)
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond("And?", previous_response_id=first.body["id"])
        assert world.requests[-1]["messages"] == [user(ODD_WORDS), said(ODD_WORDS), user("And?")]
        world.chat([user(ODD_WORDS), said(ODD_WORDS), user("And?")])
        assert world.requests[-1]["messages"] == [user(ODD_WORDS), said(ODD_WORDS), user("And?")]


def test_words_are_unchanged_by_rules() -> None:
    given = [system(ODD_WORDS), user(ODD_WORDS), said(ODD_WORDS), developer("B"), user(ODD_WORDS)]
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        world.respond(given).expect("completed", "Hello")
        sent = [one["content"] for one in world.requests[-1]["messages"]]
        assert sent == [f"{ODD_WORDS}\n\nB", ODD_WORDS, ODD_WORDS, ODD_WORDS]


def test_refusal_goes_back() -> None:
    with scenario() as world:
        world.upstream_sends(
            whole({"role": "assistant", "content": None, "refusal": "I will not."})
        )
        first = world.respond(stream=False).expect("completed")
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond("Why?", previous_response_id=first.body["id"], stream=False)
        assert world.requests[-1]["messages"][1] == said("I will not.")
        history = [user(), {"role": "assistant", "refusal": "I will not."}, user("Why?")]
        world.chat(history, stream=False).expect("stop", "Hello")
        assert world.requests[-1]["messages"][1] == said("I will not.")
