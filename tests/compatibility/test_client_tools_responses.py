"""Tools of clients at upstreams of the Responses API, which get everything as it is."""

from __future__ import annotations

from typing import Any

from support.misbehaving_upstream import Behaviour
from support.scenario import LOOKUP, Json, body_of, data, scenario, stream_of

PATCH_TOOL: Json = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
PATCH = '*** Begin Patch\n+ "\\d" 😀\n*** End Patch'
AGENTS: Json = {
    "type": "namespace",
    "name": "multi_agent_v1",
    "tools": [{"type": "function", "name": "spawn_agent", "parameters": {"type": "object"}}],
}
SEARCH: Json = {"type": "web_search", "external_web_access": False}


def response_of(*output: Json) -> Json:
    return {"id": "resp_up", "object": "response", "status": "completed", "output": list(output)}


def streamed(*events: Json) -> Behaviour:
    return stream_of(*(data(one) for one in events))


WORDS: Json = {
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello there."}],
}
MADE: Json = {
    "type": "custom_tool_call",
    "id": "ctc_up",
    "status": "completed",
    "call_id": "c1",
    "name": "apply_patch",
    "input": PATCH,
}
INPUT_EVENT = "response.custom_tool_call_input"
ADDED: Json = {
    "type": "response.output_item.added",
    "output_index": 0,
    "item": {**MADE, "status": "in_progress", "input": ""},
}
ITEM_DONE: Json = {"type": "response.output_item.done", "output_index": 0, "item": MADE}
COMPLETED: Json = {"type": "response.completed", "response": response_of(MADE)}
DELTAS: list[Json] = [
    {"type": f"{INPUT_EVENT}.delta", "output_index": 0, "item_id": "ctc_up", "delta": piece}
    for piece in (PATCH[:5], PATCH[5:19], PATCH[19:])
]
INPUT_DONE: Json = {
    "type": f"{INPUT_EVENT}.done",
    "output_index": 0,
    "item_id": "ctc_up",
    "input": PATCH,
}
CUSTOM_STREAMS: dict[str, list[Json]] = {
    "custom-resp": [ADDED, *DELTAS, INPUT_DONE, ITEM_DONE, COMPLETED],
    "custom-resp-deltas-only": [ADDED, *DELTAS, COMPLETED],
    "custom-resp-done-only": [ADDED, INPUT_DONE, COMPLETED],
    "custom-resp-item-only": [ITEM_DONE, COMPLETED],
    "custom-resp-completed-only": [COMPLETED],
}


def test_a_responses_upstream_gets_and_makes_custom_calls() -> None:
    with scenario("responses") as world:
        for name, events in CUSTOM_STREAMS.items():
            for stream in (True, False):
                world.upstream_sends(streamed(*events) if stream else body_of(response_of(MADE)))
                choice = {"type": "custom", "name": "apply_patch"}
                outcome = world.respond(tools=[PATCH_TOOL], tool_choice=choice, stream=stream)
                (item,) = outcome.expect("completed").body["output"]
                assert {**item, "id": "ctc_up"} == MADE, name
                assert world.requests[-1]["tools"] == [PATCH_TOOL]
                assert world.requests[-1]["tool_choice"] == choice
                deltas = [one for one in outcome.events if one["type"] == f"{INPUT_EVENT}.delta"]
                assert "".join(one["delta"] for one in deltas) == (PATCH if stream else "")
        world.upstream_sends(body_of(response_of(WORDS)))
        output = {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done!"}
        world.respond(
            [output], tools=[PATCH_TOOL], previous_response_id=outcome.body["id"], stream=False
        ).expect("completed", "Hello there.")
        made = {key: MADE[key] for key in ("type", "call_id", "name", "input")}
        assert world.requests[-1]["input"][-2:] == [made, output]


def test_a_responses_upstream_gets_hosted_tools_and_namespaces() -> None:
    hosted: list[Json] = [SEARCH, {"type": "x_search", "from_date": "2026-01-01"}]
    choices: list[tuple[Any, Any]] = [
        (None, None),
        ({"type": "web_search"}, {"type": "web_search"}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]},
        ),
    ]
    with scenario("responses") as world:
        for choice, passed_on in choices:
            world.upstream_sends(body_of(response_of(WORDS)))
            outcome = world.respond(tools=[LOOKUP, *hosted], tool_choice=choice, stream=False)
            outcome.expect("completed", "Hello there.")
            assert world.requests[-1]["tools"][-2:] == hosted
            assert world.requests[-1].get("tool_choice") == passed_on
            assert outcome.body["tools"][1:] == hosted
            assert outcome.body["tool_choice"] == (choice or "auto")
        call_item = {**LOOKUP, "type": "function_call", "call_id": "c", "arguments": "{}"}
        call_item["name"] = "multi_agent_v1__spawn_agent"
        world.upstream_sends(body_of(response_of(call_item)))
        (made,) = world.respond(tools=[AGENTS], stream=False).body["output"]
        assert (made["namespace"], made["name"]) == ("multi_agent_v1", "spawn_agent")
