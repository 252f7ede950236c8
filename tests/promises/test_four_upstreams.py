"""A chain through four strict upstreams and the embedded model: nothing of it is lost.

Each upstream refuses what the others send: one wants its thoughts back with its calls, one takes
a single system message, one takes ids of nine letters, one knows no JSON schemas. In between, the
chain goes on with the others, and with a small model that knows three roles and plain text.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.models.llama.chat_template import parse_prompt
from antiphon.models.llama.model import LlamaModel
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.embedded_model import needs_model, weights
from support.misbehaving_upstream import Behaviour, Request
from support.scenario import DONE, LOOKUP, Scenario, body_of, chunk, end, scenario, stream_of, whole
from support.strict_upstreams import (
    FORMAT_REFUSALS,
    ID_REFUSALS,
    JSON_SCHEMA,
    SYSTEM_REFUSALS,
    Check,
    Json,
    all_words,
)

#: What the model that thinks shows with its calls.
THOUGHTS: Json = {"reasoning_content": "SECRET thought."}
SIGNED: Json = {"extra_content": {"google": {"thought_signature": "SECRET"}}}


def misses_thoughts(request: Json) -> str | None:
    """The error of an upstream whose own calls lack their reasoning."""
    for message in request["messages"]:
        for call in message.get("tool_calls", ()):
            own = call["id"].startswith("call-of-thinks")
            if own and ({**message, **THOUGHTS}, {**call, **SIGNED}) != (message, call):
                return f"The thoughts that led to {call['id']} are missing."
    return None


CHECKS: dict[str, Check] = {
    "thinks": misses_thoughts,
    "one-system": SYSTEM_REFUSALS["qwen"],
    "nine-letters": ID_REFUSALS["ids-of-nine"],
    "no-schema": FORMAT_REFUSALS["format-refused"],
}
ORDERS = [[*list(CHECKS)[start:], *list(CHECKS)[:start]] for start in range(len(CHECKS))]


def behave(request: Request) -> Behaviour:
    """A call after a user message, and an answer after a tool output."""
    body = request.json
    name, messages = body["model"], body["messages"]
    fault = CHECKS[name](body)
    if name != "thinks" and "SECRET" in json.dumps(body):
        fault = "These are the thoughts of another model."
    if fault is not None:
        return body_of({"error": {"message": fault, "type": "invalid_request_error"}}, 400)
    number = sum(one["role"] == "tool" for one in messages)
    if messages[-1]["role"] == "tool":
        words = f"Answer {number}."
        if not body.get("stream"):
            return whole({"role": "assistant", "content": words})
        return stream_of(chunk({"content": words}), end(), DONE)
    function = {"name": "lookup", "arguments": json.dumps({"c": number})}
    call = {"id": f"call-of-{name}-{number}", "type": "function", "function": function}
    shown = THOUGHTS if name == "thinks" else {}
    call |= SIGNED if name == "thinks" else {}
    if not body.get("stream"):
        message = {"role": "assistant", "content": None, "tool_calls": [call], **shown}
        return whole(message, "tool_calls")
    piece = {**shown, "tool_calls": [{"index": 0, **call}]}
    return stream_of(chunk(piece), end("tool_calls"), DONE)


def upstream_models(url: str) -> dict[str, Model]:
    quick = RetryPolicy(base=0.0)
    return {name: ChatCompletionsModel(ModelInfo(name), url, retry=quick) for name in CHECKS}


def models_with_embedded(url: str) -> dict[str, Model]:
    embedded = LlamaModel(ModelInfo("embedded"), weights(), slots=1, context_window=1024)
    return {**upstream_models(url), "embedded": embedded}


def take_turn(world: Scenario, name: str, number: int, fields: Json) -> tuple[str, list[str]]:
    """One turn with a call on a model; its last response's id, and all its words."""
    words = [f"Rule {number}.", f"Question {number}?", f"Output {number}.", f"Answer {number}."]
    common = {**fields, "model": name, "tools": [LOOKUP], "stream": number % 2 == 0}
    if name == "no-schema":
        common["text"] = {"format": JSON_SCHEMA}
    given = [{"role": "developer", "content": words[0]}, {"role": "user", "content": words[1]}]
    asked = world.respond(given, **common).expect("completed")
    output = {"type": "function_call_output", "call_id": asked.call_ids[0], "output": words[2]}
    common["previous_response_id"] = asked.body["id"]
    answered = world.respond([output], **common).expect("completed", words[3])
    return answered.body["id"], words


def pairs_of(messages: list[Json]) -> list[tuple[str, str]]:
    """The arguments of each call with its output, which has to stand right behind it."""
    pairs = []
    for message, behind in zip(messages, [*messages[1:], {}], strict=True):
        for call in message.get("tool_calls", ()):
            assert behind["tool_call_id"] == call["id"]
            pairs.append((call["function"]["arguments"], behind["content"]))
    return pairs


def go_through(world: Scenario, order: list[str]) -> tuple[str, list[str], list[tuple[str, str]]]:
    """The id of the chain's last response, its words, and its calls with their outputs."""
    words = ["Be brief."]
    expected: list[tuple[str, str]] = []
    fields: Json = {"instructions": words[0]}
    for number, name in enumerate(order, 1):
        last, said = take_turn(world, name, number, fields)
        fields["previous_response_id"] = last
        words += said
        expected.append((json.dumps({"c": number - 1}), f"Output {number}."))
        request = world.requests[-1]
        assert request["model"] == name
        missing = [one for one in words[:-1] if one not in all_words(request)]
        assert not missing
        assert pairs_of(request["messages"]) == expected
    return last, words, expected


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: str(order[0]))
def test_chain_through_strict_upstreams_keeps_all_text_and_calls(order: list[str]) -> None:
    with scenario(models=upstream_models) as world:
        world.upstream_answers(behave)
        last, words, _ = go_through(world, [*order, *order])
        context: list[Any] = world.server.get(f"/v1/responses/{last}/context").json["messages"]
    assert "SECRET" not in json.dumps(context)
    told = "".join(one.content for one in parse_prompt(json.dumps(context).encode()).messages)
    assert not [one for one in words[:-1] if one not in told]


@needs_model
def test_chain_continues_on_the_embedded_model_and_back() -> None:
    with scenario(models=models_with_embedded) as world:
        world.upstream_answers(behave)
        last, words, expected = go_through(world, ["thinks"])
        small = world.respond(
            "And you?",
            model="embedded",
            previous_response_id=last,
            max_output_tokens=4,
            temperature=0,
        )
        assert small.status in ("completed", "incomplete")
        assert small.text
        again = {"model": "thinks", "previous_response_id": small.body["id"], "tools": [LOOKUP]}
        world.respond("Once more?", **again).expect("completed")
        request = world.requests[-1]
        for one in [*words[1:], "And you?", small.text, "Once more?"]:
            assert one in all_words(request)
        assert pairs_of(request["messages"]) == expected
