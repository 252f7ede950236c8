"""What providers and gateways refuse, in their own words: the turn is answered all the same."""

from __future__ import annotations

from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour, Request
from support.request_faults import PARALLEL, TOOLS, Fault, has
from support.scenario import Json, body_of, scenario
from support.strict_upstreams import (
    CALL,
    OUTPUT,
    PICTURE,
    ROUND,
    answer_hello,
    said,
    user,
)


def test_calls_one_by_one_keep_their_outputs_and_their_order() -> None:
    with scenario(quirks=("single-calls",)) as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond(PARALLEL, stream=False).expect("completed", "Hello")
        sent = world.requests[-1]["messages"]
        assert [one["role"] for one in sent] == [
            *("user", "assistant", "tool", "assistant", "tool", "user"),
        ]
        for made, output in (sent[1:3], sent[3:5]):
            assert [one["id"] for one in made["tool_calls"]] == [output["tool_call_id"]]


def test_a_malformed_call_is_requested_again() -> None:
    error = {
        "message": "tool call validation failed: parameters for tool lookup did not match schema: "
        "additionalProperties 'x' not allowed",
        "code": "tool_use_failed",
        "failed_generation": "<function=lookup>",
    }
    with scenario() as world:
        world.upstream_sends(body_of({"error": error}, 400))
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond("Hi", stream=False, **TOOLS).expect("completed", "Hello")
        # Nothing was learnt of it: the same request was sent again.
        assert world.requests[0] == world.requests[1]


@pytest.mark.parametrize("place", ["detail", "message", "error"])
def test_a_field_is_named_by_its_place_alone(place: str) -> None:
    detail = [
        {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Not permitted"}
    ]
    body = {"detail": detail} if place == "detail" else {place: {"detail": detail}}

    def behave(request: Request) -> Behaviour:
        if "stream_options" in request.json:
            return body_of(body, 422)
        return answer_hello(request.json)

    with scenario() as world:
        world.upstream_answers(behave)
        world.respond("Hi").expect("completed", "Hello")


# ---- upstreams of the Responses API

#: What is refused, the input, further fields, and the words.
RESPONSES_REFUSALS: dict[str, tuple[Fault, Any, Json, str]] = {
    "include": (has("include"), "Hi", {}, "Unknown parameter: 'include'."),
    "truncation": (has("truncation"), "Hi", {}, "Unknown parameter: 'truncation'"),
    "store": (
        lambda request: "store" in request,
        "Hi",
        {},
        "store: Extra inputs are not permitted",
    ),
    "service_tier": (
        has("service_tier"),
        "Hi",
        {"service_tier": "flex"},
        "Unknown parameter: 'service_tier'",
    ),
    "contents": (
        lambda request: any(isinstance(one.get("content"), list) for one in request["input"]),
        [user("Hi"), said("Yo"), user("And?")],
        {},
        "assistant content must be string",
    ),
    "ids": (
        lambda request: any("id" not in one for one in request["input"]),
        ROUND,
        {},
        "Missing required parameter: 'input[1].id'.",
    ),
    "status": (
        lambda request: any("status" not in one for one in request["input"]),
        ROUND,
        {},
        "input.1.status: Field required",
    ),
    "output-of-parts": (
        lambda request: any(isinstance(one.get("output"), list) for one in request["input"]),
        [
            user("Look."),
            CALL,
            {**OUTPUT, "output": [{"type": "input_image", "image_url": PICTURE}]},
            user("And?"),
        ],
        {},
        "Output of tool call should be 'Input text'",
    ),
    "phases": (
        lambda request: any("phase" in one for one in request["input"]),
        [user("Hi"), {**said("Yo"), "phase": "final_answer"}, user("And?")],
        {},
        "Unknown parameter: 'input[1].phase'.",
    ),
    "custom-tools": (
        lambda request: any(one["type"] == "custom" for one in request.get("tools", ())),
        "Hi",
        {"tools": [{"type": "custom", "name": "p"}]},
        "Invalid value: 'custom'. Supported values are: 'function' and 'mcp'.",
    ),
}


def test_the_next_request_is_one_that_a_responses_upstream_takes() -> None:
    for name, (fault, given, fields, words) in RESPONSES_REFUSALS.items():

        def behave(request: Request, fault: Fault = fault, words: str = words) -> Behaviour:
            if fault(request.json):
                return body_of({"error": {"message": words}}, 400)
            return answer_hello(request.json)

        with scenario("responses") as world:
            world.upstream_answers(behave)
            outcome = world.respond(given, stream=False, **fields)
            assert outcome.status == "completed", (name, outcome.error)
            assert len(world.requests) <= 4, name


def test_an_upstream_that_insists_on_storing_is_not_used() -> None:
    def behave(request: Request) -> Behaviour:
        if "store" in request.json:
            return body_of({"error": {"message": "store=false is not supported"}}, 400)
        return answer_hello(request.json)

    with scenario("responses") as world:
        world.upstream_answers(behave)
        outcome = world.respond("Hi", stream=False)
        assert outcome.http == 400
        assert all(one["store"] is False for one in world.requests)
