"""Answers with anything in them: nothing is raised, and what is not needed changes nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.deltas import Delta, Finish, OutputTextDelta, ToolCallDelta
from antiphon.models.openai import chat_completions_stream
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser

KEYS = st.sampled_from(
    [
        "choices",
        "delta",
        "message",
        "content",
        "text",
        "index",
        "finish_reason",
        "usage",
        "error",
        "tool_calls",
        "function",
        "function_call",
        "name",
        "arguments",
        "id",
        "type",
        "logprobs",
        "refusal",
        "annotations",
        "reasoning",
        "token",
        "url",
        "reasoning_details",
        "base_resp",
        "status_code",
        "extra_content",
        "prompt_tokens",
        "completion_tokens",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["stop", "length", "0", "{}", "{", '{"a":1}', "error"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
ANSWERS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {
            "choices": st.lists(
                st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES)), max_size=4),
                max_size=2,
            )
        }
    ),
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(st.lists(ANSWERS, max_size=4), st.booleans())
def test_no_answer_raises_and_all_deltas_can_be_encoded(values: list[Any], has_end: bool) -> None:
    parser = ChatCompletionsParser("host/m", ["f"])
    deltas = parser.feed([*map(encoded, values), *([b"[DONE]"] if has_end else [])])
    deltas += parser.finish()
    check(deltas, parser)


@given(ANSWERS)
def test_no_body_raises_and_all_deltas_can_be_encoded(value: Any) -> None:
    parser = ChatCompletionsParser("host/m", ["f"])
    deltas = parser.parse_body(encoded(value))
    deltas += parser.finish()
    check(deltas, parser)


def check(deltas: list[Delta], parser: ChatCompletionsParser) -> None:
    for delta in deltas:
        msgspec.json.encode(delta)
    assert any(isinstance(one, Finish) for one in deltas) == (parser.error is None)
    calls = [one for one in deltas if isinstance(one, ToolCallDelta)]
    assert all(one.name for index in {c.index for c in calls} for one in [_first(calls, index)])


def _first(calls: list[ToolCallDelta], index: int) -> ToolCallDelta:
    return next(one for one in calls if one.index == index)


ARGUMENTS = st.sampled_from(
    ['{"a', 'b":', ' "x\\\\', '"', "[", "{", "]", "}", "1", "c\\n", "", "null"]
)
CALLS = st.fixed_dictionaries(
    {"index": st.sampled_from([0, 0, 0, 1, "0"])},
    optional={
        "id": st.sampled_from(["call_1", "call_2", None]),
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["f", "g", None]), "arguments": ARGUMENTS}
        ),
        "extra_content": st.just({"a": 1}),
    },
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.sampled_from(["", "Hello", " there", None, 1]),
        "tool_calls": st.lists(CALLS, max_size=2),
        "reasoning_content": st.sampled_from([None, "", "hm"]),
        "refusal": st.sampled_from([None, "no"]),
    },
)
CHOICES = st.fixed_dictionaries(
    {"delta": MESSAGES},
    optional={
        "index": st.sampled_from([0, 0, 1]),
        "finish_reason": st.sampled_from([None, "stop", "length", "error"]),
        "logprobs": st.sampled_from([None, {"content": [{"token": "a", "logprob": -1.0}]}]),
    },
)
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2)},
    optional={"usage": st.sampled_from([None, {"prompt_tokens": 1, "completion_tokens": 2}])},
)


@given(st.lists(CHUNKS, max_size=12))
def test_the_fast_path_reads_the_same(chunks: list[Any]) -> None:
    events = [*map(encoded, chunks), b"[DONE]"]
    results = []
    for max_misses in (8, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chat_completions_stream, "_MAX_MISSES", max_misses)
            parser = ChatCompletionsParser("host/m", ["f", "g"])
            deltas = [parser.feed([event]) for event in events]
            results.append(([*deltas, parser.finish()], parser.finish_reason, bool(parser.error)))
    assert results[0] == results[1]


@given(st.data(), st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4), st.booleans())
def test_fields_that_are_not_needed_change_nothing(
    data: st.DataObject, words: list[str], is_whole: bool
) -> None:
    def odd(*names: str) -> dict[str, Any]:
        chosen = data.draw(st.sets(st.sampled_from(names)))
        return {name: data.draw(VALUES) for name in sorted(chosen)}

    pieces = ["".join(words)] if is_whole else words
    events = []
    for piece in pieces:
        message = {**odd("role", "annotations", "zz", "audio"), "content": piece}
        choice = {**odd("logprobs", "usage", "zz"), "index": 0}
        choice["message" if is_whole else "delta"] = message
        choice["finish_reason"] = "stop" if is_whole else None
        events.append(
            {**odd("id", "created", "model", "object", "usage", "zz"), "choices": [choice]}
        )
    parser = ChatCompletionsParser("host/m")
    deltas = (
        parser.parse_body(encoded(events[0]))
        if is_whole
        else parser.feed([*map(encoded, events), b"[DONE]"])
    )
    deltas += parser.finish()
    assert parser.error is None
    assert "".join(one.text for one in deltas if isinstance(one, OutputTextDelta)) == "".join(words)
    assert deltas[-1] == Finish("stop")
