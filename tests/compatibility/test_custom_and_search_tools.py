"""Custom tools in an upstream's own shape, and searches for tools that a client runs."""

from __future__ import annotations

import json

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    LOOKUP,
    Json,
    Scenario,
    body_of,
    call,
    data,
    end,
    scenario,
    stream_of,
    text,
    whole,
)

HELLO = stream_of(text("Hello"), text(" there."), end("stop"), DONE)
PATCH_TOOL: Json = {"type": "custom", "name": "apply_patch"}
PATCH = '*** Begin Patch\n+ "\\d" 😀\n*** End Patch'


# ---- a search for tools that the client runs

TOOL_SEARCH: Json = {
    "type": "tool_search",
    "execution": "client",
    "description": "Finds tools.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
}
FOUND: Json = {
    "type": "tool_search_output",
    "call_id": "t1",
    "status": "completed",
    "execution": "client",
    "tools": [{"type": "namespace", "name": "mcp__memory", "tools": [{**LOOKUP, "x": True}]}],
}


@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
@pytest.mark.parametrize("stream", [True, False])
def test_tools_that_a_client_finds_are_offered_from_then_on(kind: str, stream: bool) -> None:
    def answered(name: str, arguments: str, call_id: str) -> Behaviour:
        function = {"name": name, "arguments": arguments}
        if kind == "responses":
            item = {"type": "function_call", "id": "fc_1", "call_id": call_id, **function}
            response = {"status": "completed", "output": [item]}
            event = {"type": "response.completed", "response": response}
            return stream_of(data(event)) if stream else body_of(response)
        made = {"index": 0, "id": call_id, "function": function}
        if stream:
            return stream_of(call(made), end("tool_calls"), DONE)
        return whole({"tool_calls": [made]}, "tool_calls")

    def offered_names(world: Scenario) -> list[str]:
        tools = world.requests[-1]["tools"]
        return [one.get("name") or one["function"]["name"] for one in tools]

    tools = [TOOL_SEARCH, LOOKUP]
    with scenario(kind) as world:
        world.upstream_sends(answered("tool_search", '{"query":"notes"}', "t1"))
        first = world.respond(tools=tools, stream=stream).expect("completed")
        assert first.body["tools"][0] == TOOL_SEARCH
        assert offered_names(world) == ["tool_search", "lookup"]
        (made,) = first.body["output"]
        assert {**made, "id": ""} == {
            "id": "",
            "type": "tool_search_call",
            "status": "completed",
            "call_id": "t1",
            "execution": "client",
            "arguments": {"query": "notes"},
        }
        continued: Json = {"tools": tools, "stream": stream}
        by_id = {**continued, "previous_response_id": first.body["id"]}
        error = world.respond("Well?", **by_id).error
        assert error is not None
        assert error["code"] == "tool_output_missing"
        for given, fields in (
            ([FOUND], by_id),
            # As Codex does, which sends all items each time.
            ([{"role": "user", "content": "Hi"}, made, FOUND], continued),
        ):
            world.upstream_sends(answered("mcp__memory__lookup", '{"c":1}', "t2"))
            second = world.respond(given, **fields).expect("completed")
            assert sorted(offered_names(world)) == ["lookup", "mcp__memory__lookup", "tool_search"]
            assert "mcp__memory__lookup" in json.dumps(world.requests[-1])
            (called_tool,) = second.body["output"]
            assert called_tool["namespace"] == "mcp__memory"
            assert called_tool["name"] == "lookup"


def test_a_search_for_tools_can_be_chosen() -> None:
    with scenario() as world:
        world.upstream_sends(HELLO)
        outcome = world.respond(tools=[TOOL_SEARCH], tool_choice={"type": "tool_search"})
        assert outcome.body["tool_choice"] == {"type": "tool_search"}
        choice = world.requests[-1]["tool_choice"]
        assert choice == {"type": "function", "function": {"name": "tool_search"}}


def test_over_chat_completions_a_search_for_tools_is_a_function() -> None:
    with scenario() as world:
        function = {"name": "tool_search", "arguments": '{"query":"x"}'}
        world.upstream_sends(whole({"tool_calls": [{"id": "t", "function": function}]}))
        outcome = world.chat(tools=[TOOL_SEARCH], stream=False)
        assert outcome.calls == [("tool_search", '{"query":"x"}')]


# ---- calls of custom tools in an upstream's own shape

CUSTOM_CALLS: dict[str, Behaviour] = {
    "whole": whole(
        {
            "content": None,
            "tool_calls": [
                {"id": "k", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}}
            ],
        },
        "tool_calls",
    ),
    "no-type": whole(
        {"tool_calls": {"id": "k", "custom": {"name": "apply_patch", "input": PATCH}}}, "tool_calls"
    ),
    "in-pieces": stream_of(
        call(
            {
                "index": 0,
                "id": "k",
                "type": "custom",
                "custom": {"name": "apply_patch", "input": ""},
            }
        ),
        *(call({"index": 0, "custom": {"input": piece}}) for piece in PATCH),
        end("tool_calls"),
        DONE,
    ),
    "in-pieces-named": stream_of(
        *(
            call({"index": 0, "id": "k", "custom": {"name": "apply_patch", "input": piece}})
            for piece in (PATCH[:9], PATCH[9:])
        ),
        end("stop"),
        DONE,
    ),
    "in-one-chunk": stream_of(
        call({"index": 0, "id": "k", "custom": {"name": "apply_patch", "input": PATCH}}),
        DONE,
    ),
}


def test_custom_calls_in_an_upstreams_own_shape_are_read() -> None:
    with scenario() as world:
        for name, behaviour in CUSTOM_CALLS.items():
            world.upstream_sends(*[behaviour] * 3)
            stream = name.startswith("in-")
            outcome = world.respond(tools=[PATCH_TOOL, LOOKUP], stream=stream).expect("completed")
            (item,) = outcome.body["output"]
            assert (item["type"], item["name"], item["input"]) == (
                *("custom_tool_call", "apply_patch", PATCH),
            ), name
            for streamed in (True, False):
                completion = world.chat(tools=[PATCH_TOOL], stream=streamed).expect("tool_calls")
                assert completion.calls == [("apply_patch", PATCH)], name
                made = completion.body["choices"][0]["message"]["tool_calls"][0]
                assert made["type"] == "custom"


def test_custom_calls_in_a_history_of_chat_completions_reach_the_model() -> None:
    made = {"id": "k", "type": "custom", "custom": {"name": "apply_patch", "input": PATCH}}
    with scenario() as world:
        world.upstream_sends(whole({"content": "Done."}))
        messages: list[Json] = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [made]},
            {"role": "tool", "tool_call_id": "k", "content": "ok"},
        ]
        world.chat(messages, tools=[PATCH_TOOL], stream=False).expect("stop", "Done.")
        sent = world.requests[-1]["messages"]
        assert [one["role"] for one in sent] == ["user", "assistant", "tool"]
        (function,) = (one["function"] for one in sent[1]["tool_calls"])
        assert json.loads(function["arguments"]) == {"input": PATCH}
