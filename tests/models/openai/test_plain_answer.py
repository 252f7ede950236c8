"""``plain_answer``: the short way of a whole answer gives what the general one gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.deltas import Delta, Finish, OutputTextDelta, UsageUpdate
from antiphon.core.turns import Usage
from antiphon.models.openai.answer_framing import AnswerFraming
from antiphon.models.openai.chat_completions_answer import AnswerMessage, Choice, Completion
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser
from antiphon.models.openai.plain_answer import (
    PlainUsage,
    WholeAnswer,
    WholeChoice,
    WholeMessage,
    plain_answer_deltas,
)
from antiphon.models.openai.usage_counts import _COUNT_FIELDS, _DETAIL_COUNT_FIELDS
from support.example_counts import examples

#: An answer as OpenAI sends it, and one as vLLM does.
OPENAI: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello.",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 8,
        "completion_tokens": 9,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    },
    "service_tier": "default",
}
VLLM: dict[str, Any] = {
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello.",
                "reasoning_content": None,
                "tool_calls": [],
            },
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
        }
    ],
    "usage": {
        "prompt_tokens": 8,
        "completion_tokens": 9,
        "total_tokens": 17,
        "prompt_tokens_details": None,
    },
    "prompt_logprobs": None,
}
#: Fields of the general structs that an answer with words and a reason never needs.
OTHER_NAMES = {
    *("tool_call", "toolCalls", "function_calls", "reasoningContent", "ReasoningContent"),
    *("thought", "thoughts", "reasoning_summary", "reasoningSummary"),
}
UNUSED = {
    *("messages", "content", "stop_reason", "finishReason", "native_finish_reason"),
    *("stopReason", "done_reason", "finish_details"),
}
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 7, -1, 2**53, 2**53 + 1, 2.5]),
    st.sampled_from(["", "stop", "length", "error", "tool_calls", "null", "content_filter", "7"]),
    st.text(max_size=5),
    st.sampled_from([[], {}, [{}], ["a"], {"message": "no"}, {"cached_tokens": 4}]),
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "content": st.one_of(st.text(max_size=8), VALUES),
        **{name: VALUES for name in AnswerMessage.__struct_fields__ if name != "content"},
    },
)
COUNTS = sorted(
    {name for _, names in _COUNT_FIELDS for name in names}
    | {name for _, names, _ in _DETAIL_COUNT_FIELDS for name in names}
)


def general_deltas(body: bytes) -> list[Delta] | None:
    """What the general way gives; None: an error."""
    framing, parser = AnswerFraming(), ChatCompletionsParser()
    deltas = parser.feed([*framing.feed(body), *framing.close()])
    if framing.document is not None:
        deltas += parser.parse_body(framing.document)
    deltas += parser.finish()
    return None if parser.error is not None else deltas


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The JSON of answers as they usually are, with some fields of any value."""
    answer = json.loads(json.dumps(draw(st.sampled_from([OPENAI, VLLM]))))
    choice = answer["choices"][0]
    choice["message"]["content"] = draw(st.text(max_size=8))
    places = [
        (
            answer,
            ("usage", "error", "base_resp", "finish_reason", "is_unfinished", "choices", "x_groq"),
        ),
        (choice, Choice.__struct_fields__),
        (choice["message"], AnswerMessage.__struct_fields__),
        (answer["usage"], COUNTS),
    ]
    for _ in range(draw(st.integers(0, 2))):
        target, names = draw(st.sampled_from(places))
        target[draw(st.sampled_from(names))] = draw(VALUES)
    if draw(st.booleans()):
        choice["message"] = draw(MESSAGE)
    ascii_only = draw(st.booleans())
    end = draw(st.sampled_from(["", "\n", " \r\n", "{}", ",", "\n{}"]))
    body = (json.dumps(answer, ensure_ascii=ascii_only) + end).encode(errors="replace")
    cut = draw(st.sampled_from([None, None, -1, -2]))
    return body[:cut]


@settings(max_examples=examples(100))
@given(bodies())
def test_deltas_are_those_of_the_general_way(body: bytes) -> None:
    deltas = plain_answer_deltas(body)
    if deltas is not None:
        assert deltas == general_deltas(body)


@pytest.mark.parametrize("answer", [OPENAI, VLLM])
def test_usual_answers_are_plain(answer: dict[str, Any]) -> None:
    deltas = plain_answer_deltas(json.dumps(answer).encode())
    assert deltas is not None
    assert [type(one) for one in deltas] == [OutputTextDelta, UsageUpdate, Finish]


def test_bytes_of_another_character_set_are_left_to_the_general_way() -> None:
    body = json.dumps(OPENAI, ensure_ascii=False).replace("gpt", "gpté").encode("latin-1")
    assert plain_answer_deltas(body) is None


def test_reasoning_that_is_counted_apart_is_output() -> None:
    counts = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 9}
    usage = {**counts, "completion_tokens_details": {"reasoning_tokens": 4}}
    deltas = plain_answer_deltas(json.dumps({**OPENAI, "usage": usage}).encode())
    assert deltas is not None
    assert UsageUpdate(Usage(2, 7, 0, 4)) in deltas


@pytest.mark.parametrize(
    ("plain", "general"),
    [(WholeMessage, AnswerMessage), (WholeChoice, Choice), (WholeAnswer, Completion)],
)
def test_every_field_that_may_count_is_looked_at(plain: Any, general: Any) -> None:
    # What other names stand for is found by the general way alone.
    others = OTHER_NAMES if plain is WholeMessage else set()
    assert {*general.__struct_fields__, *others} - UNUSED == {*plain.__struct_fields__} - UNUSED


def test_every_count_is_looked_at() -> None:
    assert {*PlainUsage.__struct_fields__} == {*COUNTS}
