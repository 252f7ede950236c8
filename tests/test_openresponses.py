"""Our shapes against the Open Responses specification's own types."""

from __future__ import annotations

from typing import Any

import openresponses_types as spec
import pytest
from pydantic import BaseModel

from antiphon.errors import ModelError
from antiphon.models.scripted import (
    Reply,
    ScriptedModel,
    call,
    calls,
    cut,
    fail,
    finish,
    refuse,
    say,
    think,
)
from server import serving

EVENTS: dict[str, type[BaseModel]] = {
    next(iter(kind.model_fields["type"].annotation)).value: kind
    for name, kind in vars(spec).items()
    if name.endswith("StreamingEvent")
}
REPLIES: list[Reply] = [
    say("Hel", "lo"),
    think("Hm.") + say("Hello"),
    refuse("No."),
    calls(call("f", {"a": 1}), call("g", "{oops")),
    say("Hel") + finish("length"),
    say("Hel") + finish("content_filter"),
    say("Hel") + fail(ModelError("It broke.")),
    say("Hel") + cut(),
]
FULL: dict[str, Any] = {
    "instructions": "Be brief.",
    "temperature": 0,
    "top_p": 0.5,
    "max_output_tokens": 50,
    "metadata": {"a": "b"},
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_object"}},
    "reasoning": {"effort": "low"},
    "truncation": "auto",
    "user": "u",
}


@pytest.mark.parametrize("reply", REPLIES)
def test_every_event_is_as_specified(reply: Reply) -> None:
    with serving(ScriptedModel([reply, reply])) as server:
        for options in ({}, FULL):
            for event in server.respond(stream=True, **options).events:
                EVENTS[event["type"]].model_validate(event)
            kept = server.get(f"/v1/responses/{event['response']['id']}").json
            assert kept == event["response"]
            spec.ResponseResource.model_validate(kept)
