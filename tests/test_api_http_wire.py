"""The Responses API's JSON, in and out."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from antiphon.api.http.body import MAX_DEPTH
from antiphon.api.http.wire import (
    decode_item,
    decode_request,
    encode_response,
    input_items,
    item_body,
    response_body,
)
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    SummaryText,
)
from antiphon.core.turns import (
    End,
    FunctionTool,
    Header,
    Options,
    Response,
    TurnError,
    TurnRequest,
    Usage,
)
from antiphon.errors import InvalidRequest

KNOWN: TypeAdapter[ResponseItem] = TypeAdapter(ResponseItem)
ID = "resp_" + "ab" * 16


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


#: Every key of the specification's response object, and ``user``, which OpenAI's has besides.
FILLED = words(
    """id object created_at status model output tools tool_choice truncation parallel_tool_calls
    text top_p presence_penalty frequency_penalty top_logprobs temperature store background
    service_tier metadata"""
)
NULLABLE = words(
    """completed_at incomplete_details previous_response_id instructions error reasoning usage
    max_output_tokens max_tool_calls safety_identifier prompt_cache_key user"""
)


def decoded(**fields: Any) -> TurnRequest:
    return decode_request(json.dumps({"input": "Hi", **fields}).encode())


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decoded(**fields)
    assert caught.value.status == 400
    return caught.value


def test_the_least_that_can_be_asked() -> None:
    assert decode_request(b'{"input":"Hi"}') == TurnRequest(input=(Message("user", "Hi"),))


def test_everything_that_can_be_asked() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    request = decoded(
        model="m",
        previous_response_id=ID,
        instructions="Be brief.",
        store=False,
        stream=True,
        temperature=0,
        top_p=1,
        max_output_tokens=7,
        frequency_penalty=-2,
        presence_penalty=2.0,
        metadata={"a": "b"},
        tools=[{"type": "function", "name": "f", "parameters": parameters, "strict": False}],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", **schema}, "verbosity": "low"},
        reasoning={"effort": "low"},
        truncation="auto",
        user="u",
    )
    assert request == TurnRequest(
        input=(Message("user", "Hi"),),
        model="m",
        previous_response_id=ID,
        instructions="Be brief.",
        options=Options(
            temperature=0,
            top_p=1,
            max_output_tokens=7,
            frequency_penalty=-2,
            presence_penalty=2,
            tools=(FunctionTool("f", None, parameters, False),),
            tool_choice="function:f",
            parallel_tool_calls=False,
            text_format={"type": "json_schema", **schema},
            reasoning_effort="low",
            truncation="auto",
            metadata={"a": "b"},
            user="u",
        ),
        store=False,
        stream=True,
    )


def test_null_is_the_same_as_nothing() -> None:
    fields = dict.fromkeys(msgspec.structs.asdict(Options()))
    others = dict.fromkeys(
        [
            "model",
            "previous_response_id",
            "instructions",
            "store",
            "stream",
            "text",
            "reasoning",
            "background",
            "conversation",
            "include",
            "service_tier",
            "top_logprobs",
            "max_tool_calls",
            "prompt",
        ]
    )
    assert decoded(**fields, **others) == decoded()


def test_what_is_not_known_is_ignored() -> None:
    assert decoded(include=["x"], prompt_cache_key="k", nonsense={"a": [1]}) == decoded()


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", 1, "input"),
        ("input", None, "input"),
        ("input", {"role": "user", "content": "Hi"}, "input"),
        ("input", ["Hi"], "input[0]"),
        ("model", 1, "model"),
        ("previous_response_id", {}, "previous_response_id"),
        ("instructions", ["Be brief."], "instructions"),
        ("store", "false", "store"),
        ("stream", 1, "stream"),
        ("temperature", "0", "temperature"),
        ("temperature", -0.1, "temperature"),
        ("temperature", 2.1, "temperature"),
        ("temperature", True, "temperature"),
        ("top_p", 1.1, "top_p"),
        ("max_output_tokens", 0, "max_output_tokens"),
        ("max_output_tokens", 1.5, "max_output_tokens"),
        ("max_output_tokens", 10**30, "max_output_tokens"),
        ("frequency_penalty", 3, "frequency_penalty"),
        ("presence_penalty", -3, "presence_penalty"),
        ("metadata", [], "metadata"),
        ("metadata", {"a": 1}, "metadata[...]"),
        ("metadata", {"k" * 65: "v"}, "metadata"),
        ("metadata", {"k": "v" * 513}, "metadata[...]"),
        ("metadata", {str(place): "" for place in range(17)}, "metadata"),
        ("tools", {}, "tools"),
        ("tools", [{"type": "web_search"}], "tools[0].type"),
        ("tools", [{"type": "function"}], "tools[0].name"),
        ("tools", [{"type": "function", "name": ""}], "tools[0].name"),
        ("tools", [{"type": "function", "name": "f", "parameters": 1}], "tools[0].parameters"),
        ("tool_choice", "sometimes", "tool_choice"),
        ("tool_choice", {"type": "function", "name": ""}, "tool_choice.name"),
        ("tool_choice", {"type": "allowed_tools"}, "tool_choice.type"),
        ("parallel_tool_calls", "yes", "parallel_tool_calls"),
        ("text", "json", "text"),
        ("text", {"format": {"type": "xml"}}, "text.format.type"),
        ("text", {"format": {"type": "json_schema", "name": "a"}}, "text.format.schema"),
        ("text", {"format": {"type": "json_schema", "schema": {}}}, "text.format.name"),
        ("reasoning", {"effort": 3}, "reasoning.effort"),
        ("truncation", "maybe", "truncation"),
        ("user", 5, "user"),
        ("background", True, "background"),
        ("conversation", "conv_1", "conversation"),
        ("conversation", {"id": "conv_1"}, "conversation"),
    ],
)
def test_the_field_at_fault_is_named(field: str, value: Any, param: str) -> None:
    assert refused(**{field: value}).param == param


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({}, "input[1].role"),
        ({"role": "user"}, "input[1].content"),
        ({"role": "tool", "content": "x"}, "input[1].role"),
        ({"role": "user", "content": 1}, "input[1].content"),
        ({"role": "user", "content": [1]}, "input[1].content[0]"),
        ({"role": "user", "content": [{"type": "audio"}]}, "input[1].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[1].content[0].text"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": {"url": "x"}}]},
            "input[1].content[0].image_url",
        ),
        ({"type": "item_reference", "id": "msg_1"}, "input[1].type"),
        ({"type": 3}, "input[1].type"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "input[1].arguments"),
        ({"type": "function_call_output", "output": "x"}, "input[1].call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": {}}, "input[1].output"),
        ({"type": "reasoning", "summary": ["x"]}, "input[1].summary[0]"),
        ({"role": "user", "content": "x", "status": "done"}, "input[1].status"),
    ],
)
def test_the_item_at_fault_is_named(item: Any, param: str) -> None:
    assert refused(input=[{"role": "user", "content": "Hi"}, item]).param == param


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_what_would_be_kept_may_not_be_too_deep() -> None:
    tool = {"type": "function", "name": "f"}
    decoded(tools=[{**tool, "parameters": nested(MAX_DEPTH - 1)}])
    refusal = refused(tools=[tool, {**tool, "parameters": nested(MAX_DEPTH)}])
    assert (refusal.code, refusal.param) == ("invalid_json", "tools[1].parameters")
    schema = {"type": "json_schema", "name": "a", "schema": nested(MAX_DEPTH)}
    assert refused(text={"format": schema}).param == "text.format"
    part = {"type": "output_text", "text": "Hi", "annotations": [nested(MAX_DEPTH)]}
    message = {"role": "assistant", "content": [part]}
    assert refused(input=[message]).param == "input[0].content[0]"
    # What is not kept may be as deep as it likes.
    decoded(extra=nested(MAX_DEPTH), input=[{"role": "user", "content": "", "x": nested(200)}])


@pytest.mark.parametrize(
    ("given", "item"),
    [
        ({"role": "user", "content": "Hi"}, Message("user", "Hi")),
        (
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi"}],
            },
            Message("user", "Hi"),
        ),
        ({"role": "developer", "content": "x"}, Message("developer", "x")),
        (
            {
                "role": "user",
                "content": "Hi",
                "status": "in_progress",
                "id": "msg_1",
                "phase": None,
            },
            Message("user", "Hi"),
        ),
        (
            {
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "a", "annotations": None, "logprobs": None}
                ],
            },
            Message("assistant", "a"),
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look:"},
                    {
                        "type": "input_image",
                        "image_url": "data:image/png;base64,",
                        "detail": None,
                        "file_id": None,
                    },
                ],
            },
            Message("user", (InputText("Look:"), InputImage("data:image/png;base64,"))),
        ),
        (
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "3"}],
            },
            FunctionCallOutput("c", "3"),
        ),
        (
            {"type": "reasoning", "summary": [], "content": None, "encrypted_content": None},
            Reasoning(),
        ),
    ],
)
def test_the_shapes_an_item_comes_in(given: dict[str, Any], item: Item) -> None:
    assert decode_item(given, "input[0]") == item


texts = st.text(max_size=20)
images = st.builds(InputImage, texts, st.sampled_from(["auto", "low", "high"]))
notes = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("url_citation"),
            "url": texts,
            "title": texts,
            "start_index": st.integers(0, 9),
            "end_index": st.integers(0, 9),
        }
    ),
    max_size=2,
)
outputs = st.builds(OutputText, texts, notes.map(tuple))
statuses = st.sampled_from(["completed", "incomplete"])
inputs = st.builds(InputText, st.text(min_size=1, max_size=20)) | images
items = st.one_of(
    st.builds(
        Message,
        st.sampled_from(["user", "system", "developer"]),
        texts | st.lists(inputs, min_size=2, max_size=3).map(tuple),
        st.none(),
        statuses,
    ),
    st.builds(
        Message,
        st.just("assistant"),
        texts | st.lists(outputs | st.builds(Refusal, texts), min_size=2, max_size=3).map(tuple),
        st.none(),
        statuses,
    ),
    st.builds(FunctionCall, texts, texts, texts, statuses),
    st.builds(FunctionCallOutput, texts, texts, statuses),
    st.builds(
        Reasoning,
        st.lists(st.builds(SummaryText, texts), max_size=3).map(tuple),
        st.none() | texts,
        statuses,
    ),
)


@settings(deadline=None)
@given(items)
def test_an_item_that_was_shown_can_be_sent_again(item: Item) -> None:
    shown = json.loads(json.dumps(item_body(item, "msg_1")))
    assert decode_item(shown, "input[0]") == item
    nulls = {**shown, **{name: None for name in ("phase", "name") if name not in shown}}
    assert decode_item(nulls, "input[0]") == item


@settings(deadline=None)
@given(items)
def test_the_official_client_knows_every_item(item: Item) -> None:
    KNOWN.validate_python(item_body(item, "msg_1"))


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
    text_format={"type": "json_schema", "name": "a", "schema": {"type": "object"}},
    reasoning_effort="low",
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
    assert body["tools"] == [
        {
            "type": "function",
            "name": "f",
            "description": "Does it.",
            "parameters": {"type": "object"},
            "strict": True,
        },
        {"type": "function", "name": "g", "description": None, "parameters": None, "strict": None},
    ]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["text"] == {
        "format": {
            "type": "json_schema",
            "name": "a",
            "schema": {"type": "object"},
            "description": None,
            "strict": False,
        }
    }
    assert (body["reasoning"], body["truncation"]) == ({"effort": "low", "summary": None}, "auto")
    assert (body["metadata"], body["user"], body["instructions"]) == ({"a": "b"}, "u", "Be brief.")
    plain = response_body(response())
    assert (plain["temperature"], plain["top_p"], plain["tool_choice"]) == (1.0, 1.0, "auto")
    assert plain["text"] == {"format": {"type": "text"}}


def test_a_turns_items_count_on_from_its_input() -> None:
    shown = response(ENDS[1])
    names = [item["id"] for item in input_items(shown)] + [
        item["id"] for item in response_body(shown)["output"]
    ]
    assert [name.partition("_")[0] for name in names] == ["msg", "rs", "msg", "fc"]
    assert len(set(names)) == 4
    assert all(ID[5:] in name for name in names)
