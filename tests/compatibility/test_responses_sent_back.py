"""What a model behind the Responses API needs back: raw reasoning, and fields beside its calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.misbehaving_upstream import Behaviour
from support.scenario import LOOKUP, body_of, data, scenario, stream_of
from support.tool_loops import SIGNED, Json, output_of

CALL: Json = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "lookup",
    "arguments": "{}",
}
THOUGHT: Json = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Look it up."}],
    "encrypted_content": None,
}
MESSAGE: Json = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hello there."}],
}


def whole_of(*items: Json) -> Behaviour:
    return body_of({"status": "completed", "output": list(items)})


def streamed(*items: Json) -> Behaviour:
    """Items one after another, and then the response that has them all."""
    events: list[Json] = []
    for index, item in enumerate(items):
        for kind in ("added", "done"):
            event = {"type": f"response.output_item.{kind}", "output_index": index, "item": item}
            events.append(event)
    response = {"status": "completed", "output": list(items)}
    events.append({"type": "response.completed", "response": response})
    return stream_of(*map(data, events))


GOOD = streamed(MESSAGE)
#: What a model answers, and what of it is in the next request: the items before the output.
LOOPS: dict[str, tuple[list[Json], list[Json]]] = {
    "raw-reasoning": ([THOUGHT, CALL], [THOUGHT, CALL]),
    "raw-reasoning-and-summary": (
        [{**THOUGHT, "summary": [{"type": "summary_text", "text": "So."}]}, CALL],
        [THOUGHT, CALL],
    ),
    "encrypted-reasoning": (
        [{**THOUGHT, "content": None, "encrypted_content": "gAAA"}, CALL],
        [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}, CALL],
    ),
    "summary-alone-means-nothing": (
        [{**THOUGHT, "content": [], "summary": [{"type": "summary_text", "text": "So."}]}, CALL],
        [CALL],
    ),
    "signature": ([{**CALL, "extra_content": SIGNED}], [{**CALL, "extra_content": SIGNED}]),
    "signature-of-another-name": ([{**CALL, "proof": {"a": 1}}], [{**CALL, "proof": {"a": 1}}]),
    "odd-fields": ([{**CALL, "created_by": "me", "namespace": None, "proof": {}}], [CALL]),
}


def without_ids(items: list[Json]) -> list[Json]:
    return [
        {name: value for name, value in item.items() if name != "id" and value is not None}
        for item in items
    ]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", LOOPS)
def test_what_came_before_and_beside_a_call_goes_back(name: str, stream: bool) -> None:
    answer, expected = LOOPS[name]
    with scenario("responses") as world:
        world.upstream_sends(streamed(*answer) if stream else whole_of(*answer), GOOD)
        first = world.respond("Hi", stream=stream, tools=[LOOKUP])
        first.expect("completed", calls=[("lookup", "{}")])
        previous = {"previous_response_id": first.body["id"]}
        second = world.respond([output_of(first)], tools=[LOOKUP], **previous)
        second.expect("completed", "Hello there.")
        sent = world.requests[-1]["input"]
    assert without_ids(sent[1:-1]) == without_ids(expected)
    assert all(item["id"] for item in sent if "content" in item and item["type"] == "reasoning")


def test_raw_reasoning_goes_to_no_other_model_and_not_with_answers() -> None:
    def models(url: str) -> dict[str, Model]:
        quick = RetryPolicy(base=0.0)
        return {
            "m": ResponsesModel(ModelInfo("m"), url, retry=quick),
            "n": ResponsesModel(ModelInfo("n"), url, retry=quick),
            "chat": ChatCompletionsModel(ModelInfo("chat"), url, retry=quick),
        }

    with scenario(models=models) as world:
        beside = {**CALL, "extra_content": SIGNED}
        world.upstream_sends(
            streamed(THOUGHT, beside), GOOD, GOOD, streamed(THOUGHT, MESSAGE), GOOD
        )
        first = world.respond("Hi", tools=[LOOKUP], model="m")
        previous: Any = {"previous_response_id": first.body["id"], "tools": [LOOKUP]}
        for other in ("n", "chat"):
            world.respond([output_of(first)], model=other, **previous)
            sent = json.dumps(world.requests[-1])
            assert "Look it up." not in sent
            assert "QUJD" not in sent
        answered = world.respond("Hi", model="m")
        world.respond("And?", model="m", previous_response_id=answered.body["id"])
        assert "Look it up." not in json.dumps(world.requests[-1])
