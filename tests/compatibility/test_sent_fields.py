"""What is sent upstream besides messages: formats of answers, and fields."""

from __future__ import annotations

import json

import pytest

from support.misbehaving_upstream import Behaviour, Request
from support.scenario import LOOKUP, body_of, scenario
from support.strict_upstreams import (
    FORMAT_REFUSALS,
    JSON_SCHEMA,
    SCHEMA,
    Json,
    answer_hello,
    formats,
    strict,
)

# ---- formats of answers


@pytest.mark.parametrize("refusal", FORMAT_REFUSALS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("instructions", [None, "Be brief."])
def test_a_schema_goes_in_words(refusal: str, stream: bool, instructions: str | None) -> None:
    with scenario() as world:
        world.upstream_answers(strict(FORMAT_REFUSALS[refusal]))
        for _ in range(2):
            outcome = world.respond(
                stream=stream, text={"format": JSON_SCHEMA}, instructions=instructions
            )
            outcome.expect("completed", "Hello")
            first, *_rest = world.requests[-1]["messages"]
            assert first["role"] == "system"
            assert json.dumps(SCHEMA, separators=(",", ":")) in first["content"]
            assert "json" in first["content"].lower()
            assert first["content"].startswith(instructions or "Answer")
        given = {"name": "place", "schema": SCHEMA}
        world.chat(
            stream=stream, response_format={"type": "json_schema", "json_schema": given}
        ).expect("stop", "Hello")


def test_a_schema_goes_in_words_to_a_responses_upstream() -> None:
    check = formats("text.format.type json_schema is not supported", "json_object", "text", None)
    with scenario("responses") as world:
        world.upstream_answers(strict(check))
        outcome = world.respond(stream=False, text={"format": JSON_SCHEMA, "verbosity": "low"})
        outcome.expect("completed", "Hello")
        sent = world.requests[-1]
        assert sent["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
        assert "city" in sent["input"][0]["content"]


def test_json_objects_are_a_schema_where_only_that_is_taken() -> None:
    words = "'response_format.type' must be 'json_schema' or 'text'"
    with scenario() as world:
        world.upstream_answers(strict(formats(words, "json_schema", "text", None)))
        world.respond(text={"format": {"type": "json_object"}}).expect("completed", "Hello")
        assert world.requests[-1]["response_format"]["type"] == "json_schema"


def test_a_fault_of_the_schema_is_for_its_author() -> None:
    words = "Invalid schema for response_format 'place': 'additionalProperties' is required"
    with scenario() as world:
        world.upstream_answers(strict(formats(words, None)))
        outcome = world.respond(stream=False, text={"format": JSON_SCHEMA})
        assert (outcome.http, len(world.requests)) == (400, 1)


# ---- fields

REFUSED_FIELDS = {
    "openai": "Unrecognized request argument supplied: {}",
    "openai-new": "Unknown parameter: '{}'.",
    "groq": "property '{}' is unsupported",
    "pydantic": "body.{}: Extra inputs are not permitted",
    "fireworks": "Extra inputs are not permitted, field: '{}', value: 5",
    "google": 'Invalid JSON payload received. Unknown name "{}": Cannot find field.',
    "anthropic": "{}: Extra inputs are not permitted",
}


@pytest.mark.parametrize("refusal", REFUSED_FIELDS)
@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_fields_that_an_upstream_does_not_know_are_left_out(refusal: str, kind: str) -> None:
    unknown: Json = {"top_k": 5, "min_p": 0.1, "my_field": {"a": 1}}

    def check(request: Json) -> str | None:
        wrong = next((one for one in unknown if one in request), None)
        return None if wrong is None else REFUSED_FIELDS[refusal].format(wrong)

    with scenario(kind) as world:
        world.upstream_answers(strict(check, 422 if refusal == "pydantic" else 400))
        for fields in (unknown, unknown):
            outcome = world.respond(stream=False, **fields, temperature=0.5)
            outcome.expect("completed", "Hello")
            assert world.requests[-1]["temperature"] == 0.5
        assert len(world.requests) == 5


@pytest.mark.parametrize("field", ["stream_options", "parallel_tool_calls", "user", "metadata"])
def test_what_antiphon_adds_is_left_out_where_it_is_refused(field: str) -> None:
    def check(request: Json) -> str | None:
        return f"Unrecognized request argument supplied: {field}" if field in request else None

    with scenario() as world:
        world.upstream_answers(strict(check))
        outcome = world.respond(
            tools=[LOOKUP], parallel_tool_calls=False, user="u", metadata={"a": "b"}
        )
        outcome.expect("completed", "Hello")


def test_the_limit_has_the_name_that_the_model_takes() -> None:
    words = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead."
    )
    with scenario() as world:
        world.upstream_answers(strict(lambda it: words if "max_tokens" in it else None))
        world.respond(max_output_tokens=7).expect("completed", "Hello")
        assert world.requests[-1]["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("temperature", "Unsupported value: 'temperature' does not support 0.2 with this model."),
        ("top_p", "top_p is not supported with this model"),
        ("max_output_tokens", "max_tokens is too large: 1. Supports at most 16384 tokens"),
    ],
)
def test_a_refused_choice_of_the_client_is_shown(field: str, words: str) -> None:
    with scenario() as world:
        world.upstream_answers(strict(lambda _: words))
        outcome = world.respond(stream=False, **{field: 1})
        assert (outcome.http, len(world.requests)) == (400, 1)
        assert (outcome.error or {})["message"] == words


def test_a_field_that_only_the_place_of_an_error_names_is_left_out() -> None:
    def refuse(request: Request) -> Behaviour:
        if "top_k" not in request.json:
            return answer_hello(request.json)
        place = {"type": "extra_forbidden", "loc": ["body", "top_k"], "input": 5}
        detail = [{**place, "msg": "Extra inputs are not permitted"}]
        return body_of({"detail": detail}, 422)

    with scenario() as world:
        world.upstream_answers(refuse)
        world.respond(top_k=5).expect("completed", "Hello")
