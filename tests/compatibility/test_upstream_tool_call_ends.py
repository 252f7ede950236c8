"""Tool calls of upstreams that are none, are cut, or have an id again, over both APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.misbehaving_upstream import Behaviour
from support.scenario import (
    DONE,
    Json,
    Scenario,
    body_of,
    call,
    chunk,
    end,
    nested,
    stream_of,
    text,
    whole,
)
from support.upstream_answers import (
    C1,
    C2,
    ONE,
    TOOLS,
    ask_both,
    check_argument_events,
    entry,
    first,
    of_calls,
    then,
    whole_calls,
)

EMPTY = {"name": "", "arguments": ""}
NULLS = {"name": None, "arguments": None}
STUBS: dict[str, Json] = {
    "legacy": {"function_call": EMPTY},
    "legacy-empty": {"function_call": {}},
    "legacy-null": {"function_call": None},
    "legacy-nulls": {"function_call": NULLS},
    "legacy-string": {"function_call": ""},
    "legacy-false": {"function_call": False},
    "legacy-none": {"function_call": "none"},
    "calls": {"tool_calls": [{"index": 0, "function": EMPTY}]},
    "calls-nulls": {"tool_calls": [{"index": 0, "id": None, "type": None, "function": NULLS}]},
    "calls-null-function": {"tool_calls": [{"index": 0, "function": None}]},
    "calls-id": {"tool_calls": [{"index": 0, "id": "call_a", "function": EMPTY}]},
    "calls-empty-object": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    "empty-list": {"tool_calls": []},
    "null": {"tool_calls": None},
    "object": {"tool_calls": {}},
    "string": {"tool_calls": ""},
    "list-of-null": {"tool_calls": [None]},
    "list-of-empty": {"tool_calls": [{}]},
    "false": {"tool_calls": False},
}


@pytest.mark.parametrize("name", STUBS)
def test_stubs_of_calls_are_prose(world: Scenario, name: str) -> None:
    stub = STUBS[name]
    for behaviour in (
        stream_of(text("Hello"), text(" there."), chunk(stub, "stop"), DONE),
        stream_of(chunk({"content": "Hello there.", **stub}), end("stop"), DONE),
        whole({"content": "Hello there.", **stub}),
        # Some say so although it is prose.
        stream_of(text("Hello there."), chunk(stub, "tool_calls"), DONE),
    ):
        response, completion = ask_both(world, behaviour, tools=True)
        response.expect("completed", "Hello there.", calls=[])
        completion.expect("stop", "Hello there.", calls=[])


PROSE_ENDS = {
    "call-finish-calls-but-prose": stream_of(text("Hello there."), end("tool_calls"), DONE),
    "call-finish-calls-but-prose-whole": whole({"content": "Hello there."}, "tool_calls"),
    "call-finish-function-but-prose": whole({"content": "Hello there."}, "function_call"),
}


@pytest.mark.parametrize("name", PROSE_ENDS)
def test_prose_that_announces_calls_is_prose(world: Scenario, name: str) -> None:
    response, completion = ask_both(world, PROSE_ENDS[name], tools=True)
    response.expect("completed", "Hello there.", calls=[])
    completion.expect("stop", "Hello there.", calls=[])


CUTS = {
    "call-finish-cut-by-limit": of_calls(first(), then('{"c"'), reason="length"),
    "call-finish-cut-before-arguments": of_calls(first(), reason="MAX_TOKENS"),
    "call-finish-cut-whole": whole_calls(first(arguments='{"c"'), reason="length"),
    "call-finish-cut-at-brace": of_calls(first(), then("{"), reason="length"),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_call_that_a_limit_cuts_is_incomplete(world: Scenario, name: str) -> None:
    response, completion = ask_both(world, CUTS[name], tools=True)
    response.expect("incomplete", "")
    assert response.body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [one["status"] for one in response.body["output"]] == ["incomplete"]
    check_argument_events(response)
    completion.expect("length", "")


@pytest.mark.parametrize("parts", [(), (DONE,)], ids=["closed", "done"])
def test_a_call_without_its_end_and_a_reason_fails(world: Scenario, parts: tuple[bytes]) -> None:
    behaviour = stream_of(call(first()), call(then('{"c"')), *parts)
    response, completion = ask_both(world, behaviour, tools=True)
    response.expect("failed")
    completion.expect("error")


def test_halves_of_a_character_in_arguments_are_joined(world: Scenario) -> None:
    pieces = (first(), then('{"c":"\ud83d'), then('\ude00"}'))
    for behaviour in (of_calls(*pieces), of_calls(*pieces[:2], then('\ude00\ud83d"}'))):
        response, completion = ask_both(world, behaviour, tools=True)
        for one in (response, completion):
            ((name, arguments),) = one.calls
            assert name == "lookup"
            assert json.loads(arguments)["c"].startswith("\U0001f600")
        check_argument_events(response)


def test_arguments_without_a_name_fail(world: Scenario) -> None:
    for behaviour in (
        of_calls(entry("", C1, index=0, id="a")),
        whole_calls(entry(None, C1, id="a")),
    ):
        for one in ask_both(world, behaviour, tools=True):
            assert one.status in ("failed", "error")
            assert one.error is not None
            assert "no name" in one.error["message"]
            assert one.error["code"] == "upstream_invalid_response"


@pytest.mark.parametrize("form", ["stream", "whole"])
def test_an_id_that_is_the_same_in_each_turn_is_one_of_its_own(world: Scenario, form: str) -> None:
    stream = form == "stream"

    def calling(arguments: str) -> Behaviour:
        made = first(arguments=arguments, id="call_0")
        return of_calls(made) if stream else whole_calls(made)

    answers = [calling(C1), calling(C2), calling('{"c":3}')]
    world.upstream_sends(
        *answers, stream_of(text("Done."), end(), DONE) if stream else whole({"content": "Done."})
    )
    ids: list[str] = []
    given: Any = "Hi"
    previous: Json = {}
    for number in range(4):
        outcome = world.respond(given, stream=stream, tools=TOOLS, **previous)
        previous = {"previous_response_id": outcome.body["id"]}
        if number == 3:
            outcome.expect("completed", "Done.")
            break
        ids += outcome.call_ids
        given = [{"type": "function_call_output", "call_id": ids[-1], "output": f"n{number}"}]
    assert len(set(ids)) == 3
    messages = world.requests[-1]["messages"]
    made = [one["id"] for message in messages for one in message.get("tool_calls") or ()]
    outputs = [(m["tool_call_id"], m["content"]) for m in messages if m["role"] == "tool"]
    assert made == ids
    assert outputs == [(call_id, f"n{number}") for number, call_id in enumerate(ids)]


def test_an_id_in_the_history_of_a_chat_is_taken(world: Scenario) -> None:
    made = nested_call("call_0", C1)
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "call_0", "content": "one"},
    ]
    world.upstream_sends(of_calls(first(arguments=C2, id="call_0")))
    outcome = world.chat(history, tools=list(map(nested, TOOLS)))
    outcome.expect("tool_calls", "", calls=[("lookup", C2)])
    assert outcome.call_ids != ["call_0"]


def nested_call(call_id: str, arguments: str) -> Json:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": "lookup", "arguments": arguments},
    }


def test_no_call_is_read_from_another_choice(world: Scenario) -> None:
    other = {"index": 1, "message": {"tool_calls": [first(arguments=C2)]}}
    mine = {"index": 0, "message": {"tool_calls": [first(arguments=C1)]}, "finish_reason": "stop"}
    response, completion = ask_both(world, body_of({"choices": [other, mine]}), tools=True)
    response.expect("completed", "", calls=ONE)
    completion.expect("tool_calls", "", calls=ONE)
