"""Fields of a request that antiphon does not know: the upstream gets them as they are."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.core.extra_fields import RESERVED_FIELDS
from support.scenario import DONE, LOOKUP, Scenario, body_of, end, scenario, stream_of, text, whole

Json = dict[str, Any]

#: Settings of inference servers and gateways, by the case's name.
FIELDS: dict[str, Json] = {
    "chat-pass-top_k": {"top_k": 5},
    "chat-pass-min_p": {"min_p": 0.05},
    "chat-pass-repetition_penalty": {"repetition_penalty": 1.1},
    "chat-pass-logit_bias": {"logit_bias": {"50256": -100}},
    "chat-pass-enable_thinking": {"enable_thinking": False},
    "chat-pass-chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": False}},
    "thinking-object": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "openrouter-provider": {"provider": {"order": ["a", "b"]}, "transforms": []},
    "guided-json": {"guided_json": {"type": "object"}, "stop_token_ids": [1, 2]},
    "xai-search": {"search_parameters": {"mode": "auto"}},
    "number-beyond-64-bits": {"nonce": 10**30},
    "all-types": {"a_string": "x", "a_list": [1, None, {}], "an_empty": "", "a_zero": 0},
    "unicode-name": {"größe": "☃"},
}

HELLO_STREAM = stream_of(text("Hello"), end("stop"), DONE)
HELLO_WHOLE = whole({"role": "assistant", "content": "Hello"})
RESPONSE: Json = {
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
}


def _send_both(world: Scenario, stream: bool, fields: Json) -> list[Json]:
    """The upstream's requests after one on each API."""
    before = len(world.requests)
    world.respond(stream=stream, **fields).expect("completed", "Hello")
    world.chat(stream=stream, **fields).expect("stop", "Hello")
    return world.requests[before:]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_unknown_fields_reach_a_chat_completions_upstream(stream: bool) -> None:
    with scenario() as world:
        world.upstream_answers(lambda _: HELLO_STREAM if stream else HELLO_WHOLE)
        for fields in FIELDS.values():
            for sent in _send_both(world, stream, fields):
                assert sent | fields == sent


def test_unknown_fields_reach_a_responses_upstream() -> None:
    with scenario("responses") as world:
        world.upstream_answers(lambda _: body_of(RESPONSE))
        for fields in FIELDS.values():
            for sent in _send_both(world, False, fields):
                assert sent | fields == sent


@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_unknown_fields_go_beside_tools(kind: str) -> None:
    with scenario(kind) as world:
        world.upstream_answers(
            lambda _: HELLO_WHOLE if kind == "chat_completions" else body_of(RESPONSE)
        )
        world.respond(stream=False, tools=[LOOKUP], top_k=5).expect("completed", "Hello")
        (sent,) = world.requests
        assert (sent["top_k"], len(sent["tools"])) == (5, 1)


def test_nulls_and_reserved_fields_are_not_passed_on() -> None:
    fields: Json = {
        **dict.fromkeys(sorted(RESERVED_FIELDS - {"model", "messages", "input", "stream"})),
        "top_k": None,
        "functions_of_mine": None,
        "modalities": ["text", "audio"],
        "stream_id": "a",
    }
    with scenario() as world:
        world.upstream_answers(lambda _: HELLO_WHOLE)
        responses, chat = _send_both(world, False, fields)
        assert set(responses) == {"model", "messages"} == set(chat)


def test_an_extra_field_never_replaces_one_that_antiphon_writes() -> None:
    with scenario() as world:
        world.upstream_answers(lambda _: HELLO_WHOLE)
        fields: Json = {
            "max_output_tokens": 7,
            "max_tokens": 99,
            "max_completion_tokens": 98,
            "reasoning": {"effort": "low"},
            "reasoning_effort": "high",
            "messages": [],
            "top_k": 1,
        }
        world.respond(stream=False, **fields).expect("completed", "Hello")
        (sent,) = world.requests
        assert sent == {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 7,
            "reasoning_effort": "low",
            "top_k": 1,
        }


@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_a_field_nested_too_deeply_is_left_out(kind: str) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    answer = HELLO_WHOLE if kind == "chat_completions" else body_of(RESPONSE)
    with scenario(kind) as world:
        world.upstream_answers(lambda _: answer)
        for sent in _send_both(world, False, {"my_field": deep, "top_k": 1}):
            assert sent["top_k"] == 1
            assert "my_field" not in sent
