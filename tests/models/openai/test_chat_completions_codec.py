import json
from typing import Any

import pytest

from antiphon.core.deltas import (
    AnnotationDelta,
    Finish,
    OutputTextDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.provider_fields import THINKING_PARTS, ProviderFields
from antiphon.core.reasoning_sidecar import ReasoningSidecar, attach_sidecars
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.models.openai.chat_completions import ChatCompletionsEncoder
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser
from antiphon.models.retry import AttemptError
from support.chat_completions_chunks import chunk, function_fields, parse_deltas, parse_events
from support.model_calls import call_with_messages

MESSAGES = b'[ {"role":"user","content":"Hi"} ]'
TOOL = FunctionTool("f", "Does it.", {"type": "object"}, strict=True)


def body(
    options: Options, *, stream: bool = False, name: str | None = None, openai: bool = False
) -> Any:
    writer = ChatCompletionsEncoder(upstream_name=name, openai=openai)
    return json.loads(writer.encode(call_with_messages('the "model"', MESSAGES, options, stream)))


def extras(options: Options, *, openai: bool = False) -> Any:
    fields = body(options, openai=openai)
    del fields["model"], fields["messages"]
    return fields


def test_the_messages_are_put_in_as_they_are() -> None:
    writer = ChatCompletionsEncoder(upstream_name=None, openai=False)
    plain = writer.encode(call_with_messages("m", MESSAGES, Options(), False))
    assert plain == b'{"model":"m","messages":' + MESSAGES + b"}"


def test_the_model_is_the_requested_one_or_the_upstream_name() -> None:
    assert body(Options())["model"] == 'the "model"'
    assert body(Options(), name="other")["model"] == "other"


def test_a_stream_is_requested_with_usage() -> None:
    for options in (Options(), Options(seed=1)):
        fields = body(options, stream=True)
        assert fields["stream"] is True
        assert fields["stream_options"] == {"include_usage": True}


def test_all_options_are_passed_on() -> None:
    assert extras(
        Options(
            temperature=0.0,
            top_p=0.5,
            max_output_tokens=7,
            frequency_penalty=0.1,
            presence_penalty=-0.1,
            seed=0,
            stop=("a", "b"),
            reasoning_effort="low",
            reasoning_summary="auto",
            verbosity="high",
            service_tier="flex",
            prompt_cache_key="k",
            safety_identifier="s",
            user="u",
            truncation="auto",
            metadata={"kept": "here"},
            include=("reasoning.encrypted_content",),
            max_tool_calls=3,
            top_logprobs=0,
        )
    ) == {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "seed": 0,
        "stop": ["a", "b"],
        "reasoning_effort": "low",
        "verbosity": "high",
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "user": "u",
    }


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (Options(top_logprobs=2), {"logprobs": True, "top_logprobs": 2}),
        (Options(include=("message.output_text.logprobs",)), {"logprobs": True}),
    ],
)
def test_logprobs_are_requested_in_this_dialect(options: Options, sent: Any) -> None:
    assert extras(options) == sent


def test_reasoning_that_messages_carry_is_left_out() -> None:
    carried = [ReasoningSidecar("gAAA", "host/m")]
    output = b'{"role":"assistant","content":"Hi"}'
    writer = ChatCompletionsEncoder(upstream_name=None, openai=False)
    for options in (Options(), Options(seed=1)):
        loaded, plain = (
            writer.encode(call_with_messages("m", b"[" + one + b"]", options, False))
            for one in (attach_sidecars(output, carried), output)
        )
        assert loaded == plain


def test_openai_gets_max_completion_tokens_and_store_false() -> None:
    assert extras(Options(), openai=True) == {"store": False}
    assert extras(Options(max_output_tokens=7), openai=True) == {
        "store": False,
        "max_completion_tokens": 7,
    }


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", None),
        ("none", "none"),
        ("required", "required"),
        ("function:f", {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_tools_and_their_choice(choice: str, sent: Any) -> None:
    fields = extras(Options(tools=(TOOL, FunctionTool("g")), tool_choice=choice))
    assert fields["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "Does it.",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            },
        },
        {
            "type": "function",
            "function": {"name": "g", "parameters": {"type": "object", "properties": {}}},
        },
    ]
    assert fields.get("tool_choice") == sent
    assert "parallel_tool_calls" not in fields


def test_what_only_makes_sense_with_tools_needs_tools() -> None:
    assert extras(Options(tool_choice="none", parallel_tool_calls=False)) == {}
    with_tools = extras(Options(tools=(TOOL,), parallel_tool_calls=False))
    assert with_tools["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("text_format", "sent"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            },
        ),
    ],
)
def test_the_format_of_the_answer(text_format: dict[str, Any] | None, sent: Any) -> None:
    assert extras(Options(text_format=text_format)).get("response_format") == sent


def thought(text: str, name: str) -> ReasoningSummaryDelta:
    return ReasoningSummaryDelta(text, ProviderFields(text_field=name))


def test_text_reasoning_and_refusal() -> None:
    assert parse_deltas(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="a"),
        chunk(reasoning="b"),
        chunk(reasoning_text="c"),
        chunk(thinking="d"),
        chunk(content="e"),
        chunk(refusal="f"),
        chunk("stop", content=None),
        b"[DONE]",
    ) == [
        thought("a", "reasoning_content"),
        thought("b", "reasoning"),
        thought("c", "reasoning_text"),
        thought("d", "thinking"),
        OutputTextDelta("e"),
        RefusalTextDelta("f"),
        Finish("stop"),
    ]


def test_the_same_thought_under_two_names_is_one() -> None:
    assert parse_deltas(chunk("stop", reasoning="a", reasoning_content="a"))[0:-1] == [
        thought("a", "reasoning_content")
    ]


def test_reasoning_that_is_no_text_is_left_out() -> None:
    assert parse_deltas(chunk("stop", reasoning={"effort": "low"}, content="a"))[
        0
    ] == OutputTextDelta("a")


def test_content_in_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "thinking", "thinking": "so"},
        {"type": "text", "text": "a"},
        {"type": "image", "url": "x"},
    ]
    assert parse_deltas(chunk("stop", content=parts))[:-1] == [
        thought("hm", THINKING_PARTS),
        thought("so", THINKING_PARTS),
        OutputTextDelta("a"),
    ]


def logprobs(token: str, *top: str, **fields: Any) -> dict[str, Any]:
    more = {"top_logprobs": [logprobs(one) for one in top]} if top else {}
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), **more, **fields}


def test_logprobs_come_with_their_text_in_the_responses_shape() -> None:
    deltas = parse_deltas(
        with_logprobs(chunk(content="a"), logprobs("a", "a", "b")),
        with_logprobs(chunk(content=""), logprobs("\\xf0", bytes=[240])),
        with_logprobs(chunk(content="b"), {"token": "b", "logprob": -1, "bytes": None}),
        with_logprobs(chunk("stop", content="c")),
    )
    assert deltas[:-1] == [
        OutputTextDelta("a", (logprobs("a", "a", "b"),)),
        # Half a character has odds but no words.
        OutputTextDelta(
            "b",
            (
                {**logprobs("\\xf0", bytes=[240]), "top_logprobs": []},
                {**logprobs("b", logprob=-1), "top_logprobs": []},
            ),
        ),
        OutputTextDelta("c"),
    ]


def with_logprobs(one: dict[str, Any], *content: Any) -> dict[str, Any]:
    one["choices"][0]["logprobs"] = {"content": list(content), "refusal": None}
    return one


@pytest.mark.parametrize("odd", [3, [], {}, {"content": 3}, {"content": [3]}, {"tokens": ["a"]}])
def test_logprobs_in_another_shape_are_left_out(odd: Any) -> None:
    one = chunk("stop", content="a")
    one["choices"][0]["logprobs"] = odd
    assert parse_deltas(one) == [OutputTextDelta("a"), Finish("stop")]


def test_sources_become_those_of_the_responses_api() -> None:
    inner = {"start_index": 1, "end_index": 2, "url": "u", "title": "t"}
    nested = {"type": "url_citation", "url_citation": inner}
    bare = {"type": "url_citation", "url_citation": {"url": "v"}}
    assert parse_deltas(
        chunk(content="a", annotations=[nested]),
        chunk("stop", annotations=[nested, bare, {"type": "file_citation"}, 3, {"url": 4}]),
    ) == [
        OutputTextDelta("a"),
        AnnotationDelta({"type": "url_citation", **inner}),
        AnnotationDelta(
            {"type": "url_citation", "start_index": 0, "end_index": 0, "url": "v", "title": ""}
        ),
        Finish("stop"),
    ]
    assert parse_deltas(chunk("stop", content="a", annotations="?")) == [
        OutputTextDelta("a"),
        Finish("stop"),
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
        ("function_call", "stop"),
        ("eos", "stop"),
    ],
)
def test_why_it_stopped(reason: str, finish: str) -> None:
    assert parse_deltas(chunk(reason, content="a"))[-1] == Finish(finish)  # type: ignore[arg-type]


def test_only_the_first_choice_counts() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    assert parse_deltas(chunk(content="a"), other, chunk("stop")) == [
        OutputTextDelta("a"),
        Finish("stop"),
    ]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, Usage(5, 2)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "total_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": None},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(5, 4, 3, 2),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "total_tokens": 11,
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(5, 6, 0, 2),
        ),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Usage(5)),
    ],
)
def test_tokens(usage: dict[str, Any], tokens: Usage) -> None:
    assert parse_deltas(chunk("stop"), {"choices": [], "usage": usage}, b"[DONE]") == [
        UsageUpdate(tokens),
        Finish("stop"),
    ]


def test_usage_on_every_chunk_is_emitted_once() -> None:
    deltas = parse_deltas(
        {**chunk(content="a"), "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
        {**chunk(content="b"), "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        {**chunk("stop"), "usage": None},
    )
    assert deltas == [
        OutputTextDelta("a"),
        OutputTextDelta("b"),
        UsageUpdate(Usage(5, 2)),
        Finish("stop"),
    ]


def test_a_stream_is_over_with_its_mark_or_with_a_reason() -> None:
    assert parse_deltas(chunk("stop", content="a")) == [OutputTextDelta("a"), Finish("stop")]
    assert parse_deltas(chunk(content="a"), b"[DONE]") == [OutputTextDelta("a"), Finish("stop")]
    assert parse_deltas(chunk(content="a"), b"", b" ", b"[DONE]", b"junk")[-1] == Finish("stop")


def test_a_stream_that_just_ends_was_cut() -> None:
    deltas, reader = parse_events(chunk(content="a"))
    assert deltas == [OutputTextDelta("a")]
    assert isinstance(reader.error, AttemptError)
    assert reader.error.transient
    assert reader.error.error.code == "upstream_disconnected"


def test_an_error_among_the_events_keeps_what_came_before() -> None:
    error = b'{"error":{"message":"Overloaded"}}'
    deltas, reader = parse_events(chunk(content="a"), error, chunk("stop", content="b"))
    assert deltas == [OutputTextDelta("a")]
    assert reader.error == error


def test_failing_as_a_reason_to_stop() -> None:
    _, reader = parse_events(chunk("error", content="a"), b"[DONE]")
    assert isinstance(reader.error, AttemptError)


@pytest.mark.parametrize(
    "event",
    [
        b"{",
        b'{"choices":[{"delta":{"content":"a"',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"choices":[{"delta":{"content":"\xf0\x9f"}}]}',
        b'{"error":' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_a_failure(event: bytes) -> None:
    deltas, reader = parse_events(chunk(content="a"), event)
    assert deltas == [OutputTextDelta("a")]
    assert isinstance(reader.error, AttemptError)
    assert reader.error.error.code == "upstream_invalid_response"
    assert not reader.error.transient


@pytest.mark.parametrize(
    "event",
    [
        b"[]",
        b"3",
        b'"a"',
        b": ping",
        b"ping",
        b'{"choices":{}}',
        b'{"choices":[{"delta":{"tool_calls":[3]}}]}',
        b'{"usage":{"prompt_tokens":"many"}}',
        b"{}",
    ],
)
def test_what_holds_nothing_is_skipped(event: bytes) -> None:
    deltas = parse_deltas(chunk(content="a"), event, chunk("stop"), b' "[DONE]" ')
    assert deltas == [OutputTextDelta("a"), Finish("stop")]


def test_an_answer_in_one_piece() -> None:
    message = {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "x", "type": "function", "function": function_fields("f", "{}")},
            {"id": "y", "type": "function", "function": function_fields("f", "{}")},
        ],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
    answer = {"id": "1", "choices": [choice], "usage": {"prompt_tokens": 1}}
    reader = ChatCompletionsParser()
    assert reader.parse_body(json.dumps(answer).encode()) + reader.finish() == [
        thought("hm", "reasoning_content"),
        OutputTextDelta("a"),
        ToolCallDelta(0, "x", "f", "{}"),
        ToolCallDelta(1, "y", "f", "{}"),
        UsageUpdate(Usage(1)),
        Finish("tool_calls"),
    ]
    assert reader.error is None


def test_an_empty_answer_that_was_finished_is_one() -> None:
    reader = ChatCompletionsParser()
    output = reader.parse_body(b'{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}')
    assert output + reader.finish() == [Finish("stop")]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices":[]}', b'{"choices":null}', b"<html>"])
def test_what_is_no_answer(body: bytes) -> None:
    reader = ChatCompletionsParser()
    assert reader.parse_body(body) + reader.finish() == []
    assert isinstance(reader.error, AttemptError)
    assert reader.error.error.code == "upstream_invalid_response"


def test_an_error_where_the_answer_should_be() -> None:
    reader = ChatCompletionsParser()
    reader.parse_body(b'{"error":"no"}')
    assert reader.error == b'{"error":"no"}'
