"""What a model needs back: its reasoning and its own fields, in the next request, unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    LOOKUP,
    Outcome,
    Scenario,
    chunk,
    end,
    nested,
    scenario,
    stream_of,
    text,
)
from support.tool_loops import (
    CALL,
    GOOD,
    SECRET,
    SIGNED,
    TEXT_ENTRY,
    Json,
    calls,
    output_of,
    whole_call,
)


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
    "thinking-parts": (
        [
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}
            for piece in ("Look ", "it up.")
        ],
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Look it up."}]}]},
    ),
    "thinking-parts-and-words": (
        [
            {"content": [{"type": "thinking", "thinking": "Look."}]},
            {"content": "One moment."},
        ],
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Look."}]},
                {"type": "text", "text": "One moment."},
            ]
        },
    ),
    "details-cumulative": (
        entries(
            {"type": "reasoning.text", "text": "Look"},
            {"type": "reasoning.text", "text": "Look it"},
            {"type": "reasoning.text", "text": "Look it up."},
        ),
        {"reasoning_details": [{"type": "reasoning.text", "text": "Look it up."}]},
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


# ---- over chat completions


def chat_loop(world: Scenario, answer: Behaviour, *, stream: bool) -> tuple[Outcome, Json]:
    """What a client of chat completions is shown, and what goes back of its history."""
    world.upstream_sends(answer, GOOD)
    first = world.chat("Hi", stream=stream, tools=[nested(LOOKUP)])
    first.expect("tool_calls", calls=[("lookup", "{}")])
    shown = first.body["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": first.call_ids[0], "content": "42"}
    history = [{"role": "user", "content": "Hi"}, shown, result]
    world.chat(history, stream=stream, tools=[nested(LOOKUP)]).expect("stop", "Hello there.")
    (message,) = [it for it in world.requests[-1]["messages"] if it["role"] == "assistant"]
    return first, dict(message)


CHAT: dict[str, Json] = {
    "thoughts-back-chat-content": {"reasoning_content": "Look it up."},
    "thoughts-back-chat-plain-name": {"reasoning": "Look it up."},
    "thoughts-back-chat-details": {"reasoning": "Hm.", "reasoning_details": [TEXT_ENTRY, SECRET]},
    "thoughts-back-chat-encrypted": {"reasoning_details": [SECRET]},
    "thoughts-back-chat-opaque": {"reasoning_text": "Hm.", "reasoning_opaque": "b3Bh"},
    "fields-of-a-message-chat": {"extra_content": SIGNED, "content": "One moment."},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", CHAT)
def test_chat_clients_are_shown_reasoning_and_bring_it_back(name: str, stream: bool) -> None:
    fields = CHAT[name]
    answer = calls(fields) if stream else whole_call(**fields)
    with scenario() as world:
        first, message = chat_loop(world, answer, stream=stream)
    shown = first.body["choices"][0]["message"]
    assert {key: shown[key] for key in fields} == fields
    assert message == {"role": "assistant", "content": "", "tool_calls": [CALL]} | fields


def test_details_without_a_text_are_shown_as_text_too() -> None:
    with scenario() as world:
        first, message = chat_loop(world, calls(*entries(TEXT_ENTRY)), stream=True)
    assert first.reasoning == "Look it up."
    assert message["reasoning_details"] == [TEXT_ENTRY]


@pytest.mark.parametrize("stream", [True, False], ids=["signature-chat-stream", "signature-chat"])
@pytest.mark.parametrize("name", BESIDE_A_CALL)
def test_chat_clients_are_shown_fields_of_calls_and_bring_them_back(
    name: str, stream: bool
) -> None:
    """Also the case signature-shown-to-chat-client."""
    beside = BESIDE_A_CALL[name]
    answer = calls(**beside) if stream else whole_call(beside)
    with scenario() as world:
        first, message = chat_loop(world, answer, stream=stream)
    (shown,) = first.body["choices"][0]["message"]["tool_calls"]
    assert {key: shown[key] for key in beside} == beside
    assert message["tool_calls"] == [{**CALL, **beside}]


HISTORIES: dict[str, tuple[Json, Json]] = {
    "thoughts-back-chat-history": ({"reasoning_content": "Hm."}, {"reasoning_content": "Hm."}),
    "history-plain-name": ({"reasoning": "Hm.", "reasoning_content": None}, {"reasoning": "Hm."}),
    "history-of-odd-types": ({"reasoning": 5, "thinking": {}, "reasoning_details": []}, {}),
    "history-thinking-blocks": (
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]},
    ),
    "history-call-of-odd-fields": (
        {"tool_calls": [{**CALL, "index": 0, "extra_content": None, "note": ""}, None]},
        {},
    ),
    "history-call-alone": (
        {"tool_calls": {**CALL, "extra_content": SIGNED}},
        {"tool_calls": [{**CALL, "extra_content": SIGNED}]},
    ),
    "history-function-fields": (
        {"tool_calls": [{**CALL, "function": {**CALL["function"], "thought_signature": "QUJD"}}]},
        {"tool_calls": [{**CALL, "function": {**CALL["function"], "thought_signature": "QUJD"}}]},
    ),
}


def test_reasoning_is_taken_from_the_history_of_a_chat_client() -> None:
    with scenario() as world:
        world.upstream_answers(lambda _: GOOD)
        for name, (given, expected) in HISTORIES.items():
            assistant = {"role": "assistant", "content": None, "tool_calls": [CALL], **given}
            result = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
            history = [{"role": "user", "content": "Hi"}, assistant, result]
            world.chat(history, tools=[nested(LOOKUP)]).expect("stop", "Hello there.")
            message = world.requests[-1]["messages"][1]
            base = {"role": "assistant", "content": "", "tool_calls": [CALL]}
            assert message == base | expected, name


# ---- clients of responses that store nothing here


STATELESS = {"store": False, "include": ["reasoning.encrypted_content"], "tools": [LOOKUP]}
UNSTORED: dict[str, tuple[Json, Json]] = {
    "thoughts-back-unstored": ({"reasoning_content": "Hm."}, {}),
    "details-back-unstored": ({"reasoning": "Hm.", "reasoning_details": [TEXT_ENTRY, SECRET]}, {}),
    "encrypted-back-unstored": ({"reasoning_details": [SECRET]}, {}),
    "signature-back-unstored": ({"reasoning_content": "Hm."}, {"extra_content": SIGNED}),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", UNSTORED)
def test_clients_that_store_nothing_bring_back_the_items(name: str, stream: bool) -> None:
    fields, beside = UNSTORED[name]
    with scenario() as world:
        world.upstream_sends(
            calls(fields, **beside) if stream else whole_call(beside, **fields), GOOD
        )
        first = world.respond("Hi", stream=stream, **STATELESS)
        given = [{"role": "user", "content": "Hi"}, *first.body["output"], output_of(first)]
        world.respond(given, stream=stream, **STATELESS).expect("completed", "Hello there.")
        assert world.requests[-1]["messages"][1] == {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**CALL, **beside}],
            **fields,
        }


# ---- later turns, and other models


def test_fields_beside_a_call_and_details_go_back_in_later_turns() -> None:
    """The cases signature-stream, signature-whole and signature-later-turn."""
    with scenario() as world:
        beside = {"extra_content": SIGNED}
        deltas = [{"reasoning": "Hm.", "reasoning_details": [TEXT_ENTRY]}]
        world.upstream_sends(calls(*deltas, **beside), GOOD, GOOD, GOOD)
        last = world.respond("Hi", tools=[LOOKUP])
        given: Any = [output_of(last)]
        for _ in range(3):
            last = world.respond(given, tools=[LOOKUP], previous_response_id=last.body["id"])
            last.expect("completed", "Hello there.")
            given = "And?"
            message = world.requests[-1]["messages"][1]
            assert message["tool_calls"] == [{**CALL, **beside}]
            assert message["reasoning_details"] == [TEXT_ENTRY]
            assert message["reasoning"] == "Hm."


def test_answers_without_a_call_go_back_with_their_fields_and_without_their_thoughts() -> None:
    thoughts = {"reasoning_content": "Hm.", "reasoning_details": [SECRET]}
    with scenario() as world:
        world.upstream_sends(
            stream_of(
                chunk(thoughts), text("Hello."), chunk({"extra_content": SIGNED}), end(), DONE
            ),
            GOOD,
        )
        first = world.respond("Hi")
        world.respond("And?", previous_response_id=first.body["id"])
        assert world.requests[-1]["messages"][1] == {
            "role": "assistant",
            "content": "Hello.",
            "reasoning_details": [SECRET],
            "extra_content": SIGNED,
        }


@pytest.mark.parametrize("other", ["chat_completions", "responses"])
def test_thoughts_go_to_no_other_model(other: str) -> None:
    """The case thoughts-not-to-others, and the way back to the model that thought."""

    def models(url: str) -> dict[str, Model]:
        quick = RetryPolicy(base=0.0)
        kind = ChatCompletionsModel if other == "chat_completions" else ResponsesModel
        return {
            "m": ChatCompletionsModel(ModelInfo("m"), url, retry=quick),
            "other": kind(ModelInfo("other"), url, retry=quick),
        }

    with scenario(models=models) as world:
        deltas = [
            {"reasoning_content": "SECRET", "reasoning_details": [{**SECRET, "id": "SECRET"}]}
        ]
        beside = {"extra_content": {"google": {"thought_signature": "SECRET"}}}
        world.upstream_sends(calls(*deltas, **beside), GOOD, GOOD)
        first = world.respond("Hi", tools=[LOOKUP], model="m")
        world.respond(
            [output_of(first)],
            model="other",
            tools=[LOOKUP],
            previous_response_id=first.body["id"],
            stream=False,
        )
        assert "SECRET" not in json.dumps(world.requests[-1])
        world.respond(
            [output_of(first)], model="m", tools=[LOOKUP], previous_response_id=first.body["id"]
        )
        assert json.dumps(world.requests[-1]).count("SECRET") == 3
