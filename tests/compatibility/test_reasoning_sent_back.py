"""What a model needs back: its reasoning and its own fields, in the next request, unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    LOOKUP,
    Outcome,
    Scenario,
    call,
    chunk,
    end,
    scenario,
    stream_of,
    text,
    whole,
)

Json = dict[str, Any]

CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
SIGNED: Json = {"google": {"thought_signature": "QUJD"}}
TEXT_ENTRY: Json = {
    "type": "reasoning.text",
    "text": "Look it up.",
    "signature": "c2ln",
    "index": 0,
}
SECRET: Json = {
    "type": "reasoning.encrypted",
    "data": "gAAA",
    "id": "rs_1",
    "format": "x",
    "index": 1,
}
GOOD = stream_of(text("Hello there."), end(), DONE)


def calls(*deltas: Json, **beside: Any) -> Behaviour:
    """A stream of these deltas and then a call."""
    parts = [chunk(delta) for delta in deltas]
    return stream_of(*parts, call({"index": 0, **CALL, **beside}), end("tool_calls"), DONE)


def whole_call(beside: Json | None = None, **fields: Any) -> Behaviour:
    message = {"role": "assistant", "content": None, "tool_calls": [{**CALL, **(beside or {})}]}
    return whole({**message, **fields}, "tool_calls")


def output_of(outcome: Outcome) -> Json:
    return {"type": "function_call_output", "call_id": outcome.call_ids[0], "output": "42"}


def after_a_call(world: Scenario, answer: Behaviour, *, stream: bool = True) -> Json:
    """The assistant's message of the second request of a tool loop."""
    world.upstream_sends(answer, GOOD)
    first = world.respond("Hi", stream=stream, tools=[LOOKUP])
    first.expect("completed", calls=[("lookup", "{}")])
    second = world.respond(
        [output_of(first)], tools=[LOOKUP], previous_response_id=first.body["id"]
    )
    second.expect("completed", "Hello there.")
    (message,) = [it for it in world.requests[-1]["messages"] if it["role"] == "assistant"]
    return dict(message)


def split(name: str, *pieces: str) -> list[Json]:
    return [{name: piece} for piece in pieces]


def entries(*pieces: Json) -> list[Json]:
    return [{"reasoning_details": [piece]} for piece in pieces]


#: What the answer streams before its call, and what of it goes back.
STREAMED: dict[str, tuple[list[Json], Json]] = {
    "thoughts-back-content-stream": (
        split("reasoning_content", "Look ", "it up."),
        {"reasoning_content": "Look it up."},
    ),
    "thoughts-back-plain-name": (
        split("reasoning", "Look ", "it up."),
        {"reasoning": "Look it up."},
    ),
    "thoughts-back-details": (
        [{"reasoning": "Look it up.", "reasoning_details": [TEXT_ENTRY]}, *entries(SECRET)],
        {"reasoning": "Look it up.", "reasoning_details": [TEXT_ENTRY, SECRET]},
    ),
    "text-before-the-call": (
        [*split("reasoning_content", "Look."), {"content": "One moment."}],
        {"reasoning_content": "Look.", "content": "One moment."},
    ),
    "two-thoughts": (
        [{"reasoning_content": "A"}, {"content": "B"}, {"reasoning_content": "C"}],
        {"reasoning_content": "AC", "content": "B"},
    ),
    "reasoning-text-name": (split("reasoning_text", "Hm."), {"reasoning_text": "Hm."}),
    "thinking-name": (split("thinking", "Hm."), {"thinking": "Hm."}),
    "opaque-beside-text": (
        [{"reasoning_text": "Hm."}, {"reasoning_opaque": "b3Bh"}],
        {"reasoning_text": "Hm.", "reasoning_opaque": "b3Bh"},
    ),
    "details-alone": (entries(TEXT_ENTRY), {"reasoning_details": [TEXT_ENTRY]}),
    "details-of-two-entries": (
        [{"reasoning_details": [TEXT_ENTRY, SECRET]}],
        {"reasoning_details": [TEXT_ENTRY, SECRET]},
    ),
    "details-in-pieces": (
        entries(
            {"type": "reasoning.text", "text": "Look ", "index": 0, "format": "f"},
            {"type": "reasoning.text", "text": "it up.", "index": 0},
            {"type": "reasoning.text", "signature": "c2ln", "index": 0},
            SECRET,
        ),
        {"reasoning_details": [{**TEXT_ENTRY, "format": "f"}, SECRET]},
    ),
    "details-in-pieces-together": (
        [
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "Look ", "index": 0},
                    {"type": "reasoning.text", "text": "it up.", "index": 0, "signature": "c2ln"},
                ]
            }
        ],
        {"reasoning_details": [TEXT_ENTRY]},
    ),
    "details-in-pieces-without-index": (
        entries(
            {"type": "reasoning.text", "text": "Look ", "signature": None},
            {"type": "reasoning.text", "text": "it up.", "signature": "c2ln"},
            {"type": "reasoning.text", "text": "Then."},
        ),
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "Look it up.", "signature": "c2ln"},
                {"type": "reasoning.text", "text": "Then."},
            ]
        },
    ),
    "details-summaries": (
        entries(
            {"type": "reasoning.summary", "summary": "Look", "index": 0},
            {"type": "reasoning.summary", "summary": "ing.", "index": 0},
            {"type": "reasoning.summary", "summary": "Up.", "index": 1},
        ),
        {
            "reasoning_details": [
                {"type": "reasoning.summary", "summary": "Looking.", "index": 0},
                {"type": "reasoning.summary", "summary": "Up.", "index": 1},
            ]
        },
    ),
    "encrypted-only": (entries(SECRET), {"reasoning_details": [SECRET]}),
    "encrypted-twice": (entries(SECRET, SECRET), {"reasoning_details": [SECRET]}),
    "encrypted-after-text": (
        [{"reasoning": "Hm."}, {"content": "So."}, *entries(SECRET)],
        {"reasoning": "Hm.", "content": "So.", "reasoning_details": [SECRET]},
    ),
    "thinking-blocks": (
        [
            {
                "reasoning_content": "Look ",
                "thinking_blocks": [{"type": "thinking", "thinking": "Look "}],
            },
            {
                "reasoning_content": "up.",
                "thinking_blocks": [{"type": "thinking", "thinking": "up."}],
            },
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2ln"}]},
        ],
        {
            "reasoning_content": "Look up.",
            "thinking_blocks": [{"type": "thinking", "thinking": "Look up.", "signature": "c2ln"}],
        },
    ),
    "fields-of-a-message": ([{"extra_content": SIGNED}], {"extra_content": SIGNED}),
    "nothing": ([{"reasoning_content": "", "reasoning": None}], {}),
}


@pytest.mark.parametrize("name", STREAMED)
def test_reasoning_goes_back_with_the_call_that_it_led_to(name: str) -> None:
    deltas, expected = STREAMED[name]
    with scenario() as world:
        message = after_a_call(world, calls(*deltas))
    assert message == {"role": "assistant", "content": "", "tool_calls": [CALL]} | expected


WHOLE: dict[str, Json] = {
    "thoughts-back-content-whole": {"reasoning_content": "Look it up."},
    "thoughts-back-details-whole": {"reasoning": "Hm.", "reasoning_details": [TEXT_ENTRY, SECRET]},
    "plain-name-whole": {"reasoning": "Look it up."},
    "details-alone-whole": {"reasoning_details": [TEXT_ENTRY, TEXT_ENTRY]},
    "encrypted-only-whole": {"reasoning_details": [SECRET]},
    "opaque-whole": {"reasoning_opaque": "b3Bh", "extra_content": SIGNED},
    "unusual-numbers-whole": {"reasoning_details": [{"type": "x", "n": [10**30, 1.5, None, {}]}]},
}


@pytest.mark.parametrize("name", WHOLE)
def test_reasoning_of_a_whole_answer_goes_back(name: str) -> None:
    with scenario() as world:
        message = after_a_call(world, whole_call(**WHOLE[name]), stream=False)
    assert message == {"role": "assistant", "content": "", "tool_calls": [CALL]} | WHOLE[name]


BESIDE_A_CALL: dict[str, Json] = {
    "signature": {"extra_content": SIGNED},
    "string": {"thought_signature": "QUJD"},
    "list": {"proof": [1, {"a": "b\n"}]},
    "two": {"extra_content": SIGNED, "provider_specific_fields": {"thought_signature": "QUJD"}},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", BESIDE_A_CALL)
def test_fields_beside_a_call_go_back_on_that_call(name: str, stream: bool) -> None:
    beside = BESIDE_A_CALL[name]
    answer = calls(**beside) if stream else whole_call(beside)
    with scenario() as world:
        message = after_a_call(world, answer, stream=stream)
    assert message["tool_calls"] == [{**CALL, **beside}]
