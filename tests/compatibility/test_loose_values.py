"""Values that are empty or encoded in another way than the API's: what has one meaning is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.scenario import LOOKUP, Json, Scenario, answer_hello, nested, scenario

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
HI: Json = {"role": "user", "content": "Hi"}
TOOL = nested(LOOKUP)
SCHEMA: Json = {"type": "object", "properties": {"c": {"type": "integer"}}}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhg"
    "GAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(name="world", scope="module")
def answering() -> Iterator[Scenario]:
    with scenario() as started:
        started.upstream_answers(answer_hello)
        yield started


def send(world: Scenario, path: str, body: Json) -> tuple[int, Json, str]:
    """The status, what the upstream got, and the answer."""
    before = len(world.requests)
    answered = world.server.request("POST", path, {"model": "m", **body})
    sent = world.requests[-1] if len(world.requests) > before else {}
    return answered.status, sent, answered.body.decode()


def function(**fields: Any) -> Json:
    return {"type": "function", "function": {"name": "lookup", **fields}}


#: Fields in which nothing is said, through either endpoint.
EMPTY: dict[str, list[Any]] = {
    "temperature": [""],
    "stream": [""],
    "store": [""],
    "seed": [""],
    "max_tokens": ["", -1],
    "metadata": ["", [], {}],
    "response_format": ["", [], {}],
    "stream_options": ["", []],
    "tool_choice": ["", [], {}],
    "tools": ["", {}, False],
    "reasoning": ["", [], {}, False],
    "text": ["", [], {}],
    "include": ["", {}],
    "prompt": ["", []],
    "max_tool_calls": [""],
    "conversation": ["", [], {}],
    "logit_bias": [[]],
    "parallel_tool_calls": [""],
}


def test_what_is_empty_in_another_way_is_absent(world: Scenario) -> None:
    wrong = []
    for name, values in EMPTY.items():
        for value in values:
            for path, given in ((CHAT, {"messages": [HI]}), (RESPONSES, {"input": "Hi"})):
                status, _, answer = send(world, path, {**given, name: value})
                if status != 200:
                    wrong.append((name, value, path, answer))
    assert not wrong, "\n".join(map(str, wrong))


#: Fields, and what the upstream gets then.
ENCODED: dict[str, tuple[Json, list[str]]] = {
    "tools-as-text": ({"tools": json.dumps([TOOL])}, ['"lookup"']),
    "choice-as-text": (
        {"tools": [TOOL], "tool_choice": json.dumps({"type": "any"})},
        ['"tool_choice": "required"'],
    ),
    "format-as-text": ({"response_format": '{"type":"json_object"}'}, ['"json_object"']),
    "format-named": ({"response_format": "json_object"}, ['"json_object"']),
    "schema-alone": ({"response_format": SCHEMA}, ['"json_schema"', '"integer"']),
    "user-object": ({"user": {"id": 7, "name": "Ann"}}, []),
    "metadata-as-text": ({"metadata": '{"a":"b"}'}, []),
    "php-parameters": ({"tools": [function(parameters=[])]}, ['"properties": {}']),
    "php-properties": (
        {"tools": [function(parameters={**SCHEMA, "properties": []})]},
        ['"properties": {}'],
    ),
    "php-inner": (
        {"tools": [function(parameters={**SCHEMA, "properties": {"a": []}})]},
        ['"a": {}'],
    ),
    "php-array-items": (
        {
            "tools": [
                function(parameters={**SCHEMA, "properties": {"a": {"type": "array", "items": []}}})
            ]
        },
        ['"items": {}'],
    ),
    "gemini-declarations": (
        {
            "tools": [
                {
                    "functionDeclarations": [
                        {
                            "name": "lookup",
                            "parameters": {
                                "type": "OBJECT",
                                "properties": {"c": {"type": "INTEGER"}},
                            },
                        },
                        {"name": "now"},
                    ]
                }
            ]
        },
        ['"lookup"', '"now"', '"integer"'],
    ),
    "gemini-snake": ({"tools": [{"function_declarations": [{"name": "now"}]}]}, ['"now"']),
    "gemini-search": ({"tools": [{"googleSearch": {}}, TOOL]}, ['"lookup"']),
    "bedrock": (
        {"tools": [{"toolSpec": {"name": "lookup", "inputSchema": {"json": SCHEMA}}}]},
        ['"lookup"', '"integer"'],
    ),
    "anthropic-custom": (
        {"tools": [{"type": "custom", "name": "lookup", "input_schema": SCHEMA}]},
        ['"integer"'],
    ),
    "tools-by-name": (
        {
            "tools": {
                "lookup": {"description": "d", "parameters": SCHEMA},
                "now": {"parameters": {}},
            }
        },
        ['"lookup"', '"integer"', '"now"'],
    ),
    "tools-numbered": ({"tools": {"0": TOOL, "2": function(name="now")}}, ['"lookup"', '"now"']),
}


def test_what_is_encoded_in_another_way_is_decoded(world: Scenario) -> None:
    wrong = []
    for name, (fields, expected) in ENCODED.items():
        for path, given in ((CHAT, {"messages": [HI]}), (RESPONSES, {"input": "Hi"})):
            status, sent, answer = send(world, path, {**given, **fields})
            text = json.dumps(sent)
            if status != 200 or not all(one in text for one in expected):
                wrong.append((name, path, status, answer, text))
    assert not wrong, "\n".join(map(str, wrong))


def call(arguments: Any = "{}", call_id: Any = "c1", **fields: Any) -> Json:
    made = {"type": "function", "function": {"name": "lookup", "arguments": arguments}, **fields}
    return made if call_id is None else {"id": call_id, **made}


def calls(*made: Json, field: str = "tool_calls") -> Json:
    return {"role": "assistant", "content": None, field: list(made)}


def output(words: Any = "one", **fields: Any) -> Json:
    return {"role": "tool", "content": words, **fields}


FIRST = output(tool_call_id="c1")
#: Histories, and the arguments of the calls and their outputs as the upstream gets them.
ROUNDS: dict[str, tuple[list[Json], list[str], list[str]]] = {
    "php-arguments": ([calls(call("[]")), FIRST], ["{}"], ["one"]),
    "php-arguments-list": ([calls(call([])), FIRST], ["{}"], ["one"]),
    "encoded-twice": ([calls(call(json.dumps('{"c":1}'))), FIRST], ['{"c":1}'], ["one"]),
    "no-id-of-output": ([calls(call()), output()], ["{}"], ["one"]),
    "empty-id-of-output": ([calls(call()), output(tool_call_id="")], ["{}"], ["one"]),
    "number-as-id": ([calls(call(call_id=7)), output(tool_call_id=7)], ["{}"], ["one"]),
    "camel-id": ([calls(call()), output(toolCallId="c1")], ["{}"], ["one"]),
    "camel-calls": ([calls(call(), field="toolCalls"), output(toolCallId="c1")], ["{}"], ["one"]),
    "no-ids-at-all": (
        [calls(call('{"c":1}', None), call('{"c":2}', None)), output("one"), output("two")],
        ['{"c":1}', '{"c":2}'],
        ["one", "two"],
    ),
    "same-id-at-once": (
        [
            calls(call('{"c":1}'), call('{"c":2}')),
            output("one", tool_call_id="c1"),
            output("two", tool_call_id="c1"),
        ],
        ['{"c":1}', '{"c":2}'],
        ["one", "two"],
    ),
    "same-id-again": (
        [calls(call('{"c":1}')), FIRST, calls(call('{"c":2}')), output("two", tool_call_id="c1")],
        ['{"c":1}', '{"c":2}'],
        ["one", "two"],
    ),
}


def test_calls_and_outputs_find_each_other(world: Scenario) -> None:
    wrong = []
    for name, (messages, arguments, outputs) in ROUNDS.items():
        for path, field in ((CHAT, "messages"), (RESPONSES, "input")):
            status, sent, answer = send(world, path, {field: [HI, *messages]})
            got = sent.get("messages", [])
            made = [one for message in got for one in message.get("tool_calls", ())]
            told = [one for one in got if one["role"] == "tool"]
            if (
                status != 200
                or [one["function"]["arguments"] for one in made] != arguments
                or [one["content"] for one in told] != outputs
                or [one["id"] for one in made] != [one["tool_call_id"] for one in told]
            ):
                wrong.append((name, path, status, answer, got))
    assert not wrong, "\n".join(map(str, wrong))


#: Bodies, and words that the upstream gets.
BODIES: dict[str, tuple[str, Json, list[str]]] = {
    "messages-as-text": (CHAT, {"messages": json.dumps([HI])}, ['"content": "Hi"']),
    "messages-numbered": (CHAT, {"messages": {"0": HI, "3": HI}}, ['"Hi"']),
    "messages-in-lists": (CHAT, {"messages": [[HI]]}, ['"Hi"']),
    "messages-as-pairs": (
        CHAT,
        {"messages": [["system", "Be."], ["human", "Hi"]]},
        ['"system"', '"Be."', '"user"', '"Hi"'],
    ),
    "input-in-lists": (RESPONSES, {"input": [[HI]]}, ['"Hi"']),
    "input-as-pairs": (RESPONSES, {"input": [["user", "Hi"], ["ai", "Yo"]]}, ['"Hi"', '"Yo"']),
    "prompt": (CHAT, {"prompt": "Hi"}, ['"Hi"']),
    "prompt-responses": (RESPONSES, {"prompt": "Hi"}, ['"Hi"']),
    "part-type-upper": (
        CHAT,
        {"messages": [{**HI, "content": [{"type": "Text", "text": "Hi"}]}]},
        ["Hi"],
    ),
    "part-type-upper-responses": (
        RESPONSES,
        {"input": [{**HI, "content": [{"type": "Input_Text", "text": "Hi"}]}]},
        ['"Hi"'],
    ),
    "picture-bare": (
        CHAT,
        {"messages": [{**HI, "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]},
        [f"data:image/png;base64,{PIXEL}"],
    ),
    "picture-spaces": (
        RESPONSES,
        {
            "input": [
                {
                    **HI,
                    "content": [{"type": "input_image", "image_url": f" data:;base64,{PIXEL}\n"}],
                }
            ]
        },
        [f"data:image/png;base64,{PIXEL}"],
    ),
}


def test_messages_in_other_lists_are_found(world: Scenario) -> None:
    wrong = []
    for name, (path, body, words) in BODIES.items():
        status, sent, answer = send(world, path, body)
        text = json.dumps(sent)
        if status != 200 or not all(word in text for word in words):
            wrong.append((name, status, answer, text))
    assert not wrong, "\n".join(map(str, wrong))


#: What has no one meaning, and the field that is named.
REFUSED: dict[str, tuple[Json, str]] = {
    "required-of-none": ({"tool_choice": "required"}, "tool_choice"),
    "required-of-empty": ({"tools": [], "tool_choice": {"type": "any"}}, "tool_choice"),
    "choice-true": ({"tools": [TOOL], "tool_choice": True}, "tool_choice"),
    "temperature-word": ({"temperature": "hot"}, "temperature"),
    "metadata-list": ({"metadata": ["a"]}, "metadata"),
}


def test_what_has_no_one_meaning_names_its_field(world: Scenario) -> None:
    wrong = []
    for name, (fields, param) in REFUSED.items():
        for path, given in ((CHAT, {"messages": [HI]}), (RESPONSES, {"input": "Hi"})):
            status, _, answer = send(world, path, {**given, **fields})
            if status != 400 or json.loads(answer)["error"]["param"] != param:
                wrong.append((name, path, status, answer))
    assert not wrong, "\n".join(map(str, wrong))


#: Bodies that create a conversation, the texts of its items, and its metadata.
CONVERSATIONS: dict[str, tuple[Any, list[str], dict[str, str]]] = {
    "php-no-fields": (b"[]", [], {}),
    "null": (b"null", [], {}),
    "php-metadata": ({"metadata": []}, [], {}),
    "metadata-of-numbers": ({"metadata": {"a": 1, "b": None}}, [], {"a": "1"}),
    "no-items": ({"items": {}}, [], {}),
    "one-item": ({"items": HI}, ["Hi"], {}),
    "a-text": ({"items": "Hi"}, ["Hi"], {}),
    "texts": ({"items": ["Hi", "you"]}, ["Hi", "you"], {}),
    "items-as-text": ({"items": json.dumps([HI])}, ["Hi"], {}),
    "items-numbered": ({"items": {"1": HI}}, ["Hi"], {}),
    "null-among-items": ({"items": [None, HI]}, ["Hi"], {}),
}


def test_conversations_take_the_same_shapes(world: Scenario) -> None:
    path = "/v1/conversations"
    wrong: list[tuple[Any, ...]] = []
    for name, (body, texts, metadata) in CONVERSATIONS.items():
        made = world.server.request("POST", path, body)
        if made.status != 200:
            wrong.append((name, made.body))
            continue
        items = f"{path}/{made.json['id']}/items"
        listed = world.server.get(f"{items}?order=ASC").json["data"]
        got = [one["content"][0]["text"] for one in listed]
        if (got, made.json["metadata"]) != (texts, metadata):
            wrong.append((name, got, made.json))
        if texts:
            added = world.server.request("POST", items, body)
            if added.status != 200 or len(added.json["data"]) != len(texts):
                wrong.append((name, added.body))
    assert not wrong, "\n".join(map(str, wrong))
