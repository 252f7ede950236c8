"""Bodies as clients of other APIs write them: one meaning is taken, through either endpoint."""

from __future__ import annotations

import json
from typing import Any

from support.scenario import LOOKUP, Json, answer_hello, nested, scenario

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhg"
    "GAWjR9awAAAABJRU5ErkJggg=="
)
SOURCE: Json = {"type": "base64", "media_type": "image/png", "data": PIXEL.partition(",")[2]}
CALL: Json = {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": '{"c":1}'}
OUTPUT: Json = {"type": "function_call_output", "call_id": "c1", "output": "one"}
CUSTOM_CALL: Json = {"type": "custom_tool_call", "call_id": "c1", "name": "e"}
HI: Json = {"role": "user", "content": "Hi"}


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def picture(url: str) -> Json:
    return user([{"type": "image_url", "image_url": {"url": url}}])


CHAT_CALL: Json = {
    "role": "assistant",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    ],
}


#: An exchange with a tool, as Anthropic's API has it.
TOOL_USE: list[Json] = [
    HI,
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hmm.", "signature": "QQ=="},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "t1", "name": "lookup", "input": {"c": 1}},
        ],
    },
    user(
        [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "one"}],
            },
            {"type": "text", "text": "Go on."},
        ]
    ),
]

#: Messages that both endpoints take, and words that reach the model.
MESSAGES: dict[str, tuple[list[Any], list[str]]] = {
    "picture-without-padding": ([picture(PIXEL.rstrip("="))], [PIXEL]),
    "picture-escaped": ([picture(PIXEL.replace("=", "%3D").replace("+", "%2B"))], [PIXEL]),
    "output-in-a-message": (
        [HI, CHAT_CALL, {"role": "tool", "tool_call_id": "c1", "output": "one"}],
        ["one"],
    ),
    "result-in-a-message": (
        [HI, CHAT_CALL, {"role": "tool", "tool_call_id": "c1", "result": {"n": "one"}}],
        ["one"],
    ),
    "share-gpt": (
        [
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Yo"},
            {"from": "human", "value": "So"},
        ],
        ["Hi", "Yo", "So"],
    ),
    "content-and-parts": ([{**HI, "parts": [{"type": "text", "text": "Hi"}]}], ["Hi"]),
    "content-and-text": ([{**HI, "text": "Hi"}], ["Hi"]),
    "langchain-dict": ([{"type": "human", "data": {"content": "Hi"}}], ["Hi"]),
    "langchain-dump": (
        [
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain", "schema", "messages", "HumanMessage"],
                "kwargs": {"content": "Hi", "type": "human"},
            }
        ],
        ["Hi"],
    ),
    "number": ([user(6)], ["6"]),
    "truth": ([user(True)], ["true"]),
    "role-upper": ([{"role": "User", "content": "Hi"}], ["Hi"]),
    "role-human": ([{"role": "human", "content": "Hi"}], ["Hi"]),
    "null-among-messages": ([None, HI], ["Hi"]),
    "text-among-messages": (["Hi", user("you")], ["Hi", "you"]),
    "part-null": ([user([{"type": "text", "text": None}]), HI], ["Hi"]),
    "part-number": ([user([{"type": "text", "text": 5}])], ["5"]),
    "part-content": ([user([{"type": "text", "content": "Hi"}])], ["Hi"]),
    "part-texts": ([user(["Hi", " you"])], ["Hi you"]),
    "picture-source": ([user([{"type": "image", "source": SOURCE}])], [PIXEL]),
    "picture-url-source": (
        [user([{"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}])],
        ["https://a/b.png"],
    ),
    "picture-of-other-endpoint": ([user([{"type": "image_url", "image_url": PIXEL}])], [PIXEL]),
    "detail-upper": (
        [user([{"type": "input_image", "image_url": PIXEL, "detail": "HIGH"}])],
        [PIXEL, '"high"'],
    ),
    "thoughts-in-parts": (
        [
            HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hmm."}]},
                    {"type": "text", "text": "Yo"},
                ],
            },
            user("Go"),
        ],
        ["Yo", "Go"],
    ),
    "redacted-thoughts": (
        [HI, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}, HI],
        ["Hi"],
    ),
    "refusal-part": (
        [HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, HI],
        ["No."],
    ),
    "tool-use": (TOOL_USE, ["Let me see.", '\\"c\\":1', "one", "Go on."]),
}
#: Items that only ``/v1/responses`` takes.
ITEMS: dict[str, tuple[list[Any], list[str]]] = {
    "parts-as-items": (
        [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": PIXEL}],
        ["What?", PIXEL],
    ),
    "output-named-result": (
        [CALL, {"type": "function_call_output", "call_id": "c1", "result": "one"}],
        ["one"],
    ),
    "type-upper": ([{"type": "Message", "role": "user", "content": "Hi"}], ["Hi"]),
    "type-null": ([{"type": None, "role": "user", "content": "Hi"}], ["Hi"]),
    "parts-nested": ([user([[{"type": "input_text", "text": "Hi"}]])], ["Hi"]),
    "function-nested": (
        [
            {"type": "function_call", "call_id": "c1", "function": {"name": "lookup"}},
            OUTPUT,
        ],
        ["one"],
    ),
    "output-by-tool_call_id": (
        [CALL, {"type": "function_call_output", "tool_call_id": "c1", "output": "one"}],
        ["one"],
    ),
    "output-named-content": (
        [CALL, {"type": "function_call_output", "call_id": "c1", "content": "one"}],
        ["one"],
    ),
    "output-truth": ([CALL, {**OUTPUT, "output": True}], ["true"]),
    "output-of-mcp": (
        [CALL, {**OUTPUT, "output": {"content": [{"type": "text", "text": "one"}]}}],
        ["one"],
    ),
    "custom-object": (
        [{**CUSTOM_CALL, "input": {"a": 1}}, {**OUTPUT, "type": "custom_tool_call_output"}],
        ["one"],
    ),
    "mcp-arguments-object": (
        [
            {
                "type": "mcp_call",
                "id": "m",
                "server_label": "s",
                "name": "n",
                "arguments": {"a": 1},
                "output": "one",
            }
        ],
        ["one", '\\"a\\":1'],
    ),
    "reasoning-redacted": ([{"type": "reasoning", "summary": [{"type": "redacted"}]}, HI], ["Hi"]),
    "compaction_summary": ([{"type": "compaction_summary", "encrypted_content": "x"}, HI], ["Hi"]),
    "unknown-call-and-output": (
        [
            {"type": "weird_call", "call_id": "q", "x": "ls"},
            {"type": "weird_call_output", "call_id": "q", "output": "one"},
        ],
        ["one", "weird"],
    ),
}


def test_messages_of_other_shapes_are_taken_by_both_endpoints() -> None:
    with scenario() as world:
        world.upstream_answers(answer_hello)
        for name, (messages, words) in {**MESSAGES, **ITEMS}.items():
            outcomes = [world.respond(messages, stream=False)]
            if name in MESSAGES:
                outcomes.append(world.chat(messages, stream=False))
            for outcome in outcomes:
                assert outcome.text == "Hello", (name, outcome.error)
            for request in world.requests[-len(outcomes) :]:
                sent = json.dumps(request["messages"])
                assert [one for one in words if one not in sent] == [], (name, sent)


def test_an_exchange_with_a_tool_is_calls_and_outputs() -> None:
    with scenario() as world:
        world.upstream_answers(answer_hello)
        world.respond(TOOL_USE, stream=False)
        world.chat(TOOL_USE, stream=False)
        for request in world.requests:
            sent = request["messages"]
            assert [one["role"] for one in sent] == ["user", "assistant", "tool", "user"]
            assert sent[1]["content"] == "Let me see."
            (made,) = sent[1]["tool_calls"]
            assert (made["id"], sent[2]["tool_call_id"]) == ("t1", "t1")


#: Fields of ``/v1/responses`` in other shapes, and what the upstream gets.
FIELDS: dict[str, tuple[Json, Json]] = {
    "effort-alone": ({"reasoning": "high"}, {"reasoning_effort": "high"}),
    "effort-of-chat": ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
    "limit-of-chat": ({"max_tokens": 50}, {"max_tokens": 50}),
    "newer-limit-of-chat": ({"max_completion_tokens": 50}, {"max_tokens": 50}),
    "no-limit": ({"max_output_tokens": -1, "x": 1}, {"x": 1}),
    "format-of-chat": (
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_object"}},
    ),
    "format-json": (
        {"text": {"format": {"type": "json"}}},
        {"response_format": {"type": "json_object"}},
    ),
    "instructions-message": ({"instructions": {"role": "system", "content": "Be."}}, {}),
    "choice-mode": ({"tool_choice": {"mode": "none"}}, {}),
    "format-alone": (
        {"text": {"format": "json_object"}},
        {"response_format": {"type": "json_object"}},
    ),
    "format-upper": (
        {"text": {"format": {"type": "JSON_OBJECT"}}},
        {"response_format": {"type": "json_object"}},
    ),
    "instructions-of-parts": ({"instructions": [{"type": "input_text", "text": "Be."}]}, {}),
    "metadata-number": ({"metadata": {"a": 1, "b": None}}, {}),
    "metadata-list": ({"metadata": []}, {}),
    "user-number": ({"user": 5}, {"user": "5"}),
    "temperature-text": ({"temperature": "0.5"}, {"temperature": 0.5}),
}
TOOLS: dict[str, Json] = {
    "twice": {"tools": [LOOKUP, LOOKUP]},
    "parameters-text": {"tools": [{**LOOKUP, "parameters": json.dumps(LOOKUP["parameters"])}]},
    "nested-and-flat": {"tools": [LOOKUP, nested(LOOKUP)]},
    "choice-upper": {"tools": [LOOKUP], "tool_choice": "AUTO"},
    "choice-empty": {"tools": [LOOKUP], "tool_choice": ""},
    "choice-null-type": {"tools": [{**LOOKUP, "type": None}]},
}


def test_fields_of_other_shapes_are_taken() -> None:
    with scenario() as world:
        world.upstream_answers(answer_hello)
        for name, (fields, sent) in FIELDS.items():
            outcome = world.respond(stream=False, **fields)
            assert outcome.text == "Hello", (name, outcome.error)
            request = world.requests[-1]
            rest = {k: v for k, v in request.items() if k not in ("model", "messages", "stream")}
            assert rest == sent, name
        shown = world.respond(stream=False, metadata={"a": 1, "b": None}).body["metadata"]
        assert shown == {"a": "1"}
        world.respond(stream=False, instructions=[{"role": "system", "content": "Be."}, "Kind."])
        assert world.requests[-1]["messages"][0]["content"] == "Be.\n\nKind."
        for name, fields in TOOLS.items():
            for outcome in (
                world.respond(stream=False, **fields),
                world.chat(stream=False, **fields),
            ):
                assert outcome.text == "Hello", (name, outcome.error)
            (tool,) = world.requests[-1]["tools"]
            assert tool["function"]["parameters"] == LOOKUP["parameters"], name


def test_what_has_no_one_meaning_names_its_field() -> None:
    refused: dict[str, Json] = {
        "input[0].role": {"input": [{"role": "critic", "content": "Hi"}]},
        "input[0].type": {"input": [{"type": "weird_item"}]},
        "input[0].content[0].image_url": {"input": [user([{"type": "image"}])]},
        "response_format.type": {"input": "Hi", "response_format": {"type": "xml"}},
        "tools[0].parameters": {"input": "Hi", "tools": [{**LOOKUP, "parameters": "no"}]},
    }
    with scenario() as world:
        for param, body in refused.items():
            answer = world.server.request("POST", "/v1/responses", body)
            assert answer.status == 400
            assert answer.json["error"]["param"] == param
