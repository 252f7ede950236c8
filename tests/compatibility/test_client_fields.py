"""What clients write into the fields of a request: what means one thing, or nothing, is taken."""

from __future__ import annotations

from support.scenario import DONE, LOOKUP, Json, end, scenario, stream_of, text

HELLO = stream_of(text("Hello"), text(" there."), end("stop"), DONE)
PICTURE: Json = {"type": "input_image", "image_url": "https://example.com/a.png"}

#: Fields that a turn starts with.
FIELDS: dict[str, Json] = {
    "ids-empty-previous": {"previous_response_id": ""},
    "ids-empty-conversation": {"conversation": ""},
    "ids-empty-conversation-object": {"conversation": {"id": ""}},
    "ids-empty-both": {"conversation": "", "previous_response_id": ""},
    "ids-null": {"previous_response_id": None, "conversation": None},
    "fields-null": dict.fromkeys(
        (
            *("instructions", "store", "stream_options", "background", "temperature", "top_p"),
            *("max_output_tokens", "metadata", "tools", "tool_choice", "parallel_tool_calls"),
            *("max_tool_calls", "text", "reasoning", "include", "top_logprobs", "truncation"),
            *("service_tier", "prompt_cache_key", "safety_identifier", "user", "prompt", "model"),
        )
    ),
    "fields-empty": {
        "metadata": {},
        "tools": [],
        "include": [],
        "reasoning": {},
        "text": {},
        "stream_options": {},
        "conversation": {},
        "prompt": {},
        "instructions": "",
        "prompt_cache_key": "",
    },
    "fields-null-inside": {
        "text": {"format": None, "verbosity": None},
        "reasoning": {"effort": None, "summary": None},
        "conversation": {"id": None},
        "tools": [{**LOOKUP, "description": None}],
    },
    "fields-unknown": {"x_unknown": {"a": 1}, "client_metadata": {"b": "c"}},
    "cache-key-long": {"prompt_cache_key": "k" * 200, "safety_identifier": "s" * 200},
    "tier-unknown": {"service_tier": "ultrafast"},
    "tier-scale": {"service_tier": "scale"},
    "include-unknown": {"include": ["reasoning.thoughts"]},
    "summary-none": {"reasoning": {"summary": "none"}},
    "summary-unknown": {"reasoning": {"generate_summary": "long"}},
    "effort-unknown": {"reasoning": {"effort": "ultra"}},
    "numbers-float": {"max_output_tokens": 1000.0},
    "numbers-string": {"max_output_tokens": "1000", "temperature": "0.5"},
    "numbers-float-more": {"max_tool_calls": 3.0, "top_logprobs": 2.0, "temperature": 1},
    "words-empty": {
        "service_tier": "",
        "truncation": "",
        "reasoning": {"effort": "", "summary": ""},
        "text": {"verbosity": "", "format": {}},
        "user": "",
        "tools": {},
        "include": "",
    },
    "lists-of-one": {"tools": LOOKUP, "include": "reasoning.encrypted_content"},
    "nulls-in-lists": {"tools": [None, LOOKUP], "include": [None]},
    "format-nested": {
        "text": {
            "format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        }
    },
    "messages": {"input": None, "messages": [{"role": "user", "content": "Hi"}]},
    "booleans-string": {"store": "true", "parallel_tool_calls": "false"},
}


def test_fields_that_mean_one_thing_or_nothing_start_a_turn() -> None:
    with scenario() as world:
        for name, fields in FIELDS.items():
            world.upstream_sends(HELLO)
            outcome = world.respond(**fields)
            assert (outcome.status, outcome.text) == ("completed", "Hello there."), (name, outcome)
            if name.startswith("numbers-") and "max_output_tokens" in fields:
                assert world.requests[-1]["max_tokens"] == 1000
                assert outcome.body["max_output_tokens"] == 1000
        words_of_fields = world.server.get("/v1/responses?limit=100").json["data"]
        tiers = {one["service_tier"] for one in words_of_fields}
        assert {"ultrafast", "scale", "default"} <= tiers


REFUSED: dict[str, tuple[Json, str]] = {
    "prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "numbers-fraction": ({"max_output_tokens": 10.5}, "max_output_tokens"),
    "numbers-word": ({"max_output_tokens": "many"}, "max_output_tokens"),
    "detail-unknown": (
        {"input": [{"role": "user", "content": [{**PICTURE, "detail": "x"}]}]},
        "input[0].content[0].detail",
    ),
    "item-unknown": ({"input": [{"type": "telegram", "content": "x"}]}, "input[0].type"),
    "role-unknown": ({"input": [{"role": "narrator", "content": "x"}]}, "input[0].role"),
    "part-unknown": (
        {"input": [{"role": "user", "content": [{"type": "smell"}]}]},
        "input[0].content[0].type",
    ),
    "tool-message-without-id": ({"input": [{"role": "tool", "content": "x"}]}, "input[0].call_id"),
    "previous-not-found": ({"previous_response_id": "resp_x"}, "previous_response_id"),
}


def test_what_cannot_be_meant_is_refused_by_name() -> None:
    with scenario() as world:
        for name, (fields, param) in REFUSED.items():
            answer = world.server.request("POST", "/v1/responses", {"input": "Hi", **fields})
            error = answer.json["error"]
            assert (answer.status, error["param"]) == (400, param), name
            assert error["type"] == "invalid_request_error"
        assert world.requests == []
        assert world.server.get("/v1/responses").json["data"] == []


def test_updating_a_conversation_takes_metadata() -> None:
    with scenario() as world:
        made = world.server.request("POST", "/v1/conversations", {}).json
        for body in (b"", {}, b"null", {"metadata": None}):
            answer = world.server.request("POST", f"/v1/conversations/{made['id']}", body)
            error = answer.json["error"]
            assert (answer.status, error["code"], error["param"]) == (
                *(400, "missing_required_parameter", "metadata"),
            )
        answer = world.server.request(
            "POST", f"/v1/conversations/{made['id']}", {"metadata": {"a": "b"}}
        )
        assert answer.json["metadata"] == {"a": "b"}
