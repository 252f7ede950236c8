"""Upstreams that show fields of their own, and refuse to be sent them, or miss them."""

from __future__ import annotations

from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import LOOKUP, body_of, scenario
from support.tool_loops import GOOD, SIGNED, TEXT_ENTRY, Json, calls, output_of


def refusal(value: Any, status: int = 400) -> Behaviour:
    return body_of(value, status)


def keys_of(request: Json) -> set[str]:
    """All names in the messages that a model may want back."""
    messages = request["messages"]
    made = [one for message in messages for one in message.get("tool_calls", ())]
    return {name for one in (*messages, *made) for name in one} & {
        *("reasoning", "reasoning_content", "reasoning_details", "reasoning_text"),
        *("thinking_blocks", "extra_content", "proof"),
    }


def message_of(text: str) -> Json:
    return {"error": {"message": text, "type": "invalid_request_error"}}


def detail_of(*location: Any) -> Json:
    """A refusal of a server that checks requests by pydantic models."""
    return {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": list(location),
                "msg": "Extra inputs are not permitted",
            }
        ]
    }


DETAILED: Json = {"reasoning": "Hm.", "reasoning_details": [TEXT_ENTRY]}
#: What came, which of it is refused, and how.
REFUSED: dict[str, tuple[Json, Json, str, Behaviour]] = {
    "thoughts-refused-reasoning": (
        {"reasoning": "Hm."},
        {},
        "reasoning",
        refusal(message_of("'messages.1' : property 'reasoning' is unsupported")),
    ),
    "thoughts-refused-reasoning-content": (
        {"reasoning_content": "Hm."},
        {},
        "reasoning_content",
        refusal(message_of("Extra inputs are not permitted: reasoning_content"), 422),
    ),
    "refused-with-422-and-a-location": (
        {"reasoning_content": "Hm."},
        {},
        "reasoning_content",
        refusal(detail_of("body", "messages", 1, "assistant", "reasoning_content"), 422),
    ),
    "refused-without-a-name": (
        {"reasoning_content": "Hm."},
        {},
        "reasoning_content",
        refusal({"object": "error", "message": "Extra inputs are not permitted", "code": 400}),
    ),
    "refused-details": (
        DETAILED,
        {},
        "reasoning_details",
        refusal(message_of("Unrecognized request argument supplied: reasoning_details")),
    ),
    "refused-as-of-old": (
        {"reasoning_content": "Hm."},
        {},
        "reasoning_content",
        refusal(message_of("Please remove the reasoning_content from your message.")),
    ),
    "refused-thinking-blocks": (
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm."}]},
        {},
        "thinking_blocks",
        refusal(message_of("messages.1.thinking_blocks: Extra inputs are not permitted")),
    ),
    "refused-fields-of-a-call": (
        {},
        {"extra_content": SIGNED},
        "extra_content",
        refusal(message_of("Unknown name \"extra_content\" at 'messages[1].tool_calls[0]'")),
    ),
    "refused-unknown-fields-of-a-call": (
        {},
        {"proof": "x"},
        "proof",
        refusal(
            message_of('Invalid JSON payload received. Unknown name "proof": Cannot find field.')
        ),
    ),
    "refused-fields-of-a-call-without-a-name": (
        {},
        {"extra_content": SIGNED},
        "extra_content",
        refusal(detail_of("body", "messages", 1), 422),
    ),
    "refused-fields-of-a-message": (
        {"extra_content": SIGNED},
        {},
        "extra_content",
        refusal(message_of("property 'extra_content' is unsupported")),
    ),
    "refused-both": (
        {"reasoning_content": "Hm."},
        {"extra_content": SIGNED},
        "extra_content",
        refusal(message_of("property 'extra_content' is unsupported")),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_upstream_refuses_is_left_out_from_then_on(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fields, beside, refused, answer = REFUSED[name]
    with scenario() as world:
        world.upstream_sends(calls(fields, **beside))
        first = world.respond("Hi", tools=[LOOKUP])
        first.expect("completed", calls=[("lookup", "{}")])
        world.upstream_answers(lambda request: answer if refused in keys_of(request.json) else GOOD)
        given: Any = [output_of(first)]
        last = first
        for _ in range(2):
            last = world.respond(given, tools=[LOOKUP], previous_response_id=last.body["id"])
            last.expect("completed", "Hello there.")
            given = "And?"
    sent = [keys_of(request) for request in world.requests]
    assert [refused in keys for keys in sent] == [False, True, False, False]
    if name == "refused-both":
        assert "reasoning_content" in sent[-1]
    assert len([record for record in caplog.records if "quirks" in record.message]) == 1


def test_thoughts_that_an_upstream_misses_are_sent_as_none() -> None:
    """A call of another model, or one of a model that did not think, has none to send."""
    missing = message_of(
        "thinking is enabled but reasoning_content is missing in assistant tool call message at"
        " index 1"
    )
    with scenario() as world:
        world.upstream_sends(
            calls(), refusal(missing), calls({"reasoning_content": "Hm."}, id="call_2"), GOOD
        )
        first = world.respond("Hi", tools=[LOOKUP])
        second = world.respond(
            [output_of(first)], tools=[LOOKUP], previous_response_id=first.body["id"]
        )
        world.respond(
            [output_of(second)], tools=[LOOKUP], previous_response_id=second.body["id"]
        ).expect("completed", "Hello there.")
    thoughts = [
        [one["reasoning_content"] for one in request["messages"] if "reasoning_content" in one]
        for request in world.requests
    ]
    assert thoughts == [[], [], [" "], [" ", "Hm."]]
