"""Signatures that a model wants back: they go where they came from, wherever that was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.misbehaving_upstream import Move
from support.scenario import DONE, Json, Scenario, call, chunk, end, nested, stream_of
from support.upstream_answers import C1, ONE, TOOLS

SIGNED: Json = {"extra_content": {"google": {"thought_signature": "SIG"}}}


def made(**beside: Any) -> bytes:
    function = {"name": "lookup", "arguments": C1}
    return call({"id": "f1", "type": "function", "function": function, **beside})


#: Where servers put a signature.
SIGNATURES: dict[str, list[Move]] = {
    "beside-the-call": [made(**SIGNED)],
    "of-another-namespace": [made(extra_content={"vertex": {"thought_signature": "SIG"}})],
    "plain-beside-the-call": [made(thoughtSignature="SIG")],
    "within-the-function": [
        made(function={"name": "lookup", "arguments": C1, "thought_signature": "SIG"})
    ],
    "in-an-entry-of-its-own": [made(), call(SIGNED)],
    "in-an-entry-with-its-index": [made(index=0), call({"index": 0, **SIGNED})],
    "in-the-delta": [made(), chunk(SIGNED)],
    "in-the-delta-before": [chunk(SIGNED), made()],
    "in-the-delta-of-the-reason": [made(), chunk(SIGNED, "stop")],
    "in-the-last-piece": [
        call({"id": "f1", "function": {"name": "lookup", "arguments": ""}}),
        call({"function": {"arguments": '{"c"'}}),
        call({"function": {"arguments": ":1}"}, **SIGNED}),
    ],
    "in-reasoning-details": [
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "id": "f1", "data": "SIG"}]}),
        made(),
    ],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_goes_back(world: Scenario, name: str) -> None:
    behaviour = stream_of(*SIGNATURES[name], end("stop"), DONE)
    world.upstream_sends(behaviour)
    first = world.respond("Hi", tools=TOOLS).expect("completed", "", calls=ONE)
    output = {"type": "function_call_output", "call_id": first.call_ids[0], "output": "Found."}
    world.respond([output], previous_response_id=first.body["id"], tools=TOOLS)
    _, of_response, _ = world.requests[-1]["messages"]
    assert "SIG" in json.dumps(of_response)

    world.upstream_sends(behaviour)
    tools = list(map(nested, TOOLS))
    shown = world.chat("Hi", tools=tools).expect("tool_calls", "", calls=ONE)
    message = {"role": "assistant", "content": None, **shown.body["choices"][0]["message"]}
    answered = {"role": "tool", "tool_call_id": shown.call_ids[0], "content": "Found."}
    world.chat([{"role": "user", "content": "Hi"}, message, answered], tools=tools)
    _, of_chat, _ = world.requests[-1]["messages"]
    assert of_chat == of_response
