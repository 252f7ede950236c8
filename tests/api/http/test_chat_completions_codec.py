"""The chat completions JSON, in and out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from antiphon.api.common.body import MAX_DEPTH
from antiphon.api.http.chat_completion_requests import decode_chat_request
from antiphon.api.http.chat_completions_codec import (
    ChatCompletionChunkEncoder,
    encode_completion,
    encode_stream_error,
)
from antiphon.api.http.stream_events import DONE
from antiphon.core.deltas import (
    Delta,
    Finish,
    OutputTextDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.events import Created, Ended, Event
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Refusal,
)
from antiphon.core.turns import End, FunctionTool, Header, Options, Response, TurnRequest, Usage
from antiphon.errors import InvalidRequestError, UpstreamRateLimitError
from antiphon.turn.turn_accumulator import TurnAccumulator
from support.http_server import parse_chunks

HI = {"role": "user", "content": "Hi"}
OPENING = Response("resp_" + "0" * 32, 1700000000.7, Header("m"), (Message("user", "Hi"),))


def decoded(*messages: Any, **fields: Any) -> TurnRequest:
    body = {"messages": messages or [HI], **fields}
    return decode_chat_request(json.dumps(body).encode()).turn


def refused(*messages: Any, **fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decoded(*messages, **fields)
    assert caught.value.status == 400
    return caught.value


def test_it_is_stored_on_request_only() -> None:
    plain = TurnRequest(input=(Message("user", "Hi"),), store=False)
    stored = msgspec.structs.replace(plain, store=True, chat_completion=True)
    assert decoded() == decoded(store=False) == decoded(store=None) == plain
    assert decoded(store=True) == stored
    body = json.dumps({"messages": [HI]}).encode()
    assert decode_chat_request(body, store_by_default=True).turn == stored


def test_everything_that_can_be_asked() -> None:
    tool = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    schema = {"name": "a", "schema": {"type": "object"}, "strict": None}
    request = decoded(
        model="m",
        stream=True,
        temperature=0.5,
        top_p=0.5,
        max_completion_tokens=7,
        frequency_penalty=1,
        presence_penalty=-1,
        seed=-3,
        stop=["a", "b"],
        n=1,
        tools=[{"type": "function", "function": tool}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": schema},
        reasoning_effort="low",
        metadata={"a": "b"},
        user="u",
    )
    assert request.model == "m"
    assert request.stream
    assert request.options == Options(
        temperature=0.5,
        top_p=0.5,
        max_output_tokens=7,
        frequency_penalty=1,
        presence_penalty=-1,
        seed=-3,
        stop=("a", "b"),
        tools=(FunctionTool("f", "d", {"type": "object"}, True),),
        tool_choice="function:f",
        parallel_tool_calls=False,
        text_format={"type": "json_schema", "name": "a", "schema": {"type": "object"}},
        reasoning_effort="low",
        metadata={"a": "b"},
        user="u",
    )


def test_null_is_the_same_as_nothing() -> None:
    names = [name for name in msgspec.structs.asdict(Options()) if name != "tools"]
    others = [
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "n",
        "tools",
        "response_format",
        "logprobs",
        "store",
    ]
    assert decoded(**dict.fromkeys([*names, *others])) == decoded()


def test_two_names_for_one_limit() -> None:
    assert decoded(max_tokens=5).options.max_output_tokens == 5
    assert decoded(max_tokens=5, max_completion_tokens=6).options.max_output_tokens == 6


def test_one_stop_may_come_bare() -> None:
    assert decoded(stop="x").options.stop == ("x",)


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_formats_without_a_schema(kind: str) -> None:
    assert decoded(response_format={"type": kind}).options.text_format == {"type": kind}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"include_usage": True}, True), ({"include_usage": None}, False), ({}, False), (None, False)],
)
def test_the_usage_of_a_stream_has_to_be_asked_for(options: Any, wanted: bool) -> None:
    body = {"messages": [HI], "stream": True, "stream_options": options}
    assert decode_chat_request(json.dumps(body).encode()).include_usage is wanted


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("messages", [], "messages"),
        ("messages", None, "messages"),
        ("messages", [5], "messages[0]"),
        ("model", 1, "model"),
        ("stream_options", True, "stream_options"),
        ("temperature", 2.5, "temperature"),
        ("top_p", -1, "top_p"),
        ("max_tokens", 0, "max_tokens"),
        ("max_completion_tokens", 10**30, "max_completion_tokens"),
        ("presence_penalty", 2.1, "presence_penalty"),
        ("seed", 1.5, "seed"),
        ("seed", 10**30, "seed"),
        ("stop", [1], "stop[0]"),
        ("n", 0, "n"),
        ("n", 2, "n"),
        ("tools", [{"type": "function"}], "tools[0].name"),
        ("tools", [{"type": "function", "function": {}}], "tools[0].function.name"),
        ("tools", [{"type": "magic", "name": "f", "parameters": {}}], "tools[0].type"),
        ("tool_choice", "maybe", "tool_choice"),
        (
            "tool_choice",
            {"type": "function", "function": {"name": ""}},
            "tool_choice.function.name",
        ),
        ("response_format", "xml", "response_format"),
        ("response_format", {"type": "xml"}, "response_format.type"),
        ("response_format", {"type": "json_schema"}, "response_format.json_schema"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "a"}},
            "response_format.json_schema.schema",
        ),
        ("reasoning_effort", 1, "reasoning_effort"),
        ("user", {}, "user"),
        ("stream", "maybe", "stream"),
        ("metadata", ["a"], "metadata"),
        ("top_logprobs", 21, "top_logprobs"),
        ("previous_response_id", "resp_0", "previous_response_id"),
        ("conversation", {"id": "conv_0"}, "conversation"),
    ],
)
def test_the_field_at_fault_is_named(field: str, value: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_chat_request(json.dumps({"messages": [HI], field: value}).encode())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({}, "messages[1].role"),
        ({"role": "function", "content": "x", "name": "f"}, "messages[1].name"),
        ({"role": "narrator", "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "messages[1].content[0].type"),
        ({"role": "tool", "content": "x"}, "messages[1].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[1].tool_calls[0].function"),
    ],
)
def test_the_message_at_fault_is_named(message: Any, param: str) -> None:
    assert refused(HI, message).param == param


def test_a_schema_may_not_be_too_deep() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = {"a": deep}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    assert refused(tools=[tool]).param == "tools[0].function.parameters"
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": deep}}
    assert refused(response_format=schema).param == "response_format.json_schema"


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "items"),
    [
        ({"role": "developer", "content": "x"}, [Message("developer", "x")]),
        ({"role": "user", "content": "x", "name": "Ann"}, [Message("user", "x", "Ann")]),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "data:y", "detail": None}},
                ],
            },
            [Message("user", (InputText("a"), InputImage("data:x", "low"), InputImage("data:y")))],
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
            [Message("user", "ab")],
        ),
        ({"role": "assistant", "content": None}, [Message("assistant", "")]),
        (
            {
                "role": "assistant",
                "content": "x",
                "tool_calls": None,
                "refusal": None,
                "audio": None,
            },
            [Message("assistant", "x")],
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}]},
            [FunctionCall("c1", "f", "{}")],
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            [FunctionCall("c1", "f", "{}")],
        ),
        (
            {"role": "assistant", "content": "Wait.", "tool_calls": [CALL, {**CALL, "id": "c2"}]},
            [
                Message("assistant", "Wait."),
                FunctionCall("c1", "f", "{}"),
                FunctionCall("c2", "f", "{}"),
            ],
        ),
        (
            {"role": "assistant", "content": None, "refusal": "No."},
            [Message("assistant", (Refusal("No."),))],
        ),
        (
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "No."}],
            },
            [Message("assistant", (OutputText("a"), Refusal("No.")))],
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}]},
            [FunctionCallOutput("c1", "3")],
        ),
        ({"role": "tool", "tool_call_id": "c1", "content": None}, [FunctionCallOutput("c1", "")]),
        (
            {"role": "assistant", "content": "I would,", "refusal": "but no."},
            [Message("assistant", (OutputText("I would,"), Refusal("but no.")))],
        ),
    ],
)
def test_the_shapes_a_message_comes_in(message: dict[str, Any], items: list[Item]) -> None:
    assert decoded(HI, message).input[1:] == tuple(items)


def run(deltas: Iterable[Delta], end: End) -> tuple[list[Event], Response]:
    machine = TurnAccumulator()
    events: list[Event] = [Created(OPENING)]
    for delta in deltas:
        events += machine.feed([delta])
    events += machine.close(is_complete=True)
    response = msgspec.structs.replace(OPENING, output=machine.output, end=end)
    return [*events, Ended(response)], response


DONE_WELL = End("completed", 1700000009.0, Usage(5, 7, 3, 2))


def completion(*deltas: Delta, end: End = DONE_WELL) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_completion(run(deltas, end)[1]))
    ChatCompletion.model_validate(body, strict=True)
    return body


def test_a_completion() -> None:
    assert completion(OutputTextDelta("Hello")) == {
        "id": "chatcmpl-" + "0" * 32,
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "refusal": None,
                    "annotations": [],
                },
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        ([], {"content": "", "refusal": None}),
        ([RefusalTextDelta("No.")], {"content": None, "refusal": "No."}),
        (
            [ReasoningSummaryDelta("Hm."), OutputTextDelta("Hello")],
            {"content": "Hello", "refusal": None, "reasoning_content": "Hm."},
        ),
        (
            [
                ToolCallDelta(0, "c1", "f", "{"),
                ToolCallDelta(1, "c2", "f", "{}"),
                ToolCallDelta(0, None, None, "}"),
            ],
            {"content": None, "refusal": None, "tool_calls": [CALL, {**CALL, "id": "c2"}]},
        ),
        (
            [OutputTextDelta("Wait."), ToolCallDelta(0, "c1", "f", "{}")],
            {"content": "Wait.", "refusal": None, "tool_calls": [CALL]},
        ),
    ],
)
def test_what_a_completion_says(deltas: list[Delta], message: dict[str, Any]) -> None:
    body = completion(*deltas)
    always = {"role": "assistant", "annotations": []}
    assert body["choices"][0]["message"] == {**always, **message}
    wanted = "tool_calls" if "tool_calls" in message else "stop"
    assert body["choices"][0]["finish_reason"] == wanted


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
)
def test_a_completion_that_was_cut(reason: str, finish: str) -> None:
    body = completion(OutputTextDelta("Hel"), end=End("incomplete", 1700000009.0, reason=reason))
    assert body["choices"][0]["finish_reason"] == finish
    assert body["usage"]["total_tokens"] == 0


def chunks(*deltas: Delta, include_usage: bool = False) -> list[dict[str, Any]]:
    encoder = ChatCompletionChunkEncoder(OPENING, include_usage=include_usage)
    shown = parse_chunks(encoder.encode(run(deltas, DONE_WELL)[0]) + DONE)
    for chunk in shown:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    return shown


def test_chunks() -> None:
    shown = chunks(OutputTextDelta("Hel"), OutputTextDelta("lo\n\n"))
    assert [chunk["choices"] for chunk in shown] == [
        [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        for delta, finish in [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "Hel"}, None),
            ({"content": "lo\n\n"}, None),
            ({}, "stop"),
        ]
    ]
    assert {chunk["id"] for chunk in shown} == {"chatcmpl-" + "0" * 32}
    assert {chunk["object"] for chunk in shown} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in shown} == {"m"}
    assert not any("usage" in chunk for chunk in shown)


def test_the_usage_is_a_chunk_of_its_own() -> None:
    *others, last = chunks(OutputTextDelta("Hello"), include_usage=True)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 12
    assert all(len(chunk["choices"]) == 1 for chunk in others)


def test_a_call_leaves_whole() -> None:
    shown = chunks(
        ToolCallDelta(0, "c1", "f", "{"),
        ToolCallDelta(1, "c2", "g", ""),
        ToolCallDelta(0, arguments="}"),
        ToolCallDelta(1, arguments="{}"),
        Finish("tool_calls"),
    )
    called = [chunk["choices"][0]["delta"]["tool_calls"] for chunk in shown[1:-1]]
    assert called == [
        [{"index": 0, **CALL}],
        [
            {
                "index": 1,
                "id": "c2",
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
            }
        ],
    ]
    assert shown[-1]["choices"][0]["finish_reason"] == "tool_calls"


words = st.text(max_size=5)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(OutputTextDelta, words)
        | st.builds(ReasoningSummaryDelta, words)
        | st.builds(RefusalTextDelta, words)
        | st.builds(
            lambda index, text: ToolCallDelta(index, f"c{index}", f"f{index}", text),
            st.integers(0, 2),
            words,
        ),
        max_size=10,
    )
)
def test_chunks_put_together_are_the_completion(said: list[Delta]) -> None:
    whole = completion(*said, UsageUpdate(Usage(1, 2)))["choices"][0]
    together: dict[str, Any] = {"content": "", "refusal": "", "reasoning_content": ""}
    calls: list[dict[str, Any]] = []
    for chunk in chunks(*said):
        delta = chunk["choices"][0]["delta"]
        for name in together:
            together[name] += delta.get(name, "")
        calls += delta.get("tool_calls", [])
    message = whole["message"]
    assert together["content"] == (message["content"] or "")
    assert together["refusal"] == (message["refusal"] or "")
    assert together["reasoning_content"] == message.get("reasoning_content", "")
    assert [call.pop("index") for call in calls] == list(range(len(calls)))
    assert calls == message.get("tool_calls", [])
    assert chunk["choices"][0]["finish_reason"] == whole["finish_reason"]


def test_the_error_that_ends_a_stream() -> None:
    raw = encode_stream_error(UpstreamRateLimitError("Slow down.", retry_after=3))
    assert raw.endswith(b"\n\n")
    assert json.loads(raw.removeprefix(b"data: ")) == {
        "error": {
            "message": "Slow down.",
            "type": "rate_limit_error",
            "code": "rate_limit_exceeded",
            "param": None,
        }
    }
