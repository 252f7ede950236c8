"""Items that a client sends again, with their ids, to a chain that has them: said once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.misbehaving_upstream import Behaviour, Request
from support.scenario import LOOKUP, Json, Scenario, scenario, whole

CALL: Json = {
    "id": "c1",
    "type": "function",
    "function": {"name": "lookup", "arguments": '{"c":1}'},
}


def answer(request: Request) -> Behaviour:
    """A call, and a text once its output is there."""
    if request.json["messages"][-1]["role"] == "tool":
        return whole({"content": "It is one."})
    return whole({"reasoning_content": "Hmm.", "content": "I look.", "tool_calls": [CALL]})


@pytest.fixture(name="world", scope="module")
def answering() -> Iterator[Scenario]:
    with scenario() as started:
        started.upstream_answers(answer)
        yield started


def begin(world: Scenario, how: str) -> tuple[Json, Json]:
    """The first answer, and the fields that continue it."""
    fields: Json = {"tools": [LOOKUP]}
    if how == "conversation":
        fields["conversation"] = world.server.post("/v1/conversations").json["id"]
    first = world.respond("Hi", stream=False, **fields).body
    if how == "previous":
        fields["previous_response_id"] = first["id"]
    return first, fields


def output_for(first: Json) -> Json:
    call = first["output"][-1]
    return {"type": "function_call_output", "call_id": call["call_id"], "output": "one"}


def roles(world: Scenario) -> list[str]:
    return [one["role"] for one in world.requests[-1]["messages"]]


def references(items: list[Json]) -> list[Json]:
    return [{"type": "item_reference", "id": one["id"]} for one in items]


@pytest.mark.parametrize("how", ["conversation", "previous"])
def test_items_of_the_chain_are_said_once(world: Scenario, how: str) -> None:
    for again in (list, references):
        first, fields = begin(world, how)
        given = [*again(first["output"]), output_for(first)]
        second = world.respond(given, stream=False, **fields)
        assert second.expect("completed", "It is one.").calls == []
        assert roles(world) == ["user", "assistant", "tool"]
        # A later turn sends those of all earlier ones.
        given = [*again(first["output"]), *again(second.body["output"])]
        given += [{"role": "user", "content": "Again."}]
        if how == "previous":
            fields["previous_response_id"] = second.body["id"]
        world.respond(given, stream=False, **fields).expect("completed")
        assert roles(world) == ["user", "assistant", "tool", "assistant", "user"]


def test_other_words_under_an_id_are_new_words(world: Scenario) -> None:
    first, fields = begin(world, "previous")
    message = next(one for one in first["output"] if one["type"] == "message")
    edited = {**message, "content": [{"type": "output_text", "text": "I do not look."}]}
    given = [output_for(first), edited, {"role": "user", "content": "Go on."}]
    world.respond(given, stream=False, **fields).expect("completed")
    assert [one["content"] for one in world.requests[-1]["messages"]][3:] == [
        "I do not look.",
        "Go on.",
    ]


def test_items_of_another_chain_are_new_ones(world: Scenario) -> None:
    other, _ = begin(world, "previous")
    first, fields = begin(world, "previous")
    message = next(one for one in other["output"] if one["type"] == "message")
    for given in (message, {"type": "item_reference", "id": message["id"]}):
        asked = [output_for(first), given, {"role": "user", "content": "Go on."}]
        world.respond(asked, stream=False, **fields).expect("completed")
        assert world.requests[-1]["messages"][3]["content"] == "I look."


def test_a_branch_has_what_was_said_before_it(world: Scenario) -> None:
    """An item of a turn that the branch does not have is said."""
    first, fields = begin(world, "previous")
    second = world.respond([output_for(first)], stream=False, **fields).body
    given = [output_for(first), *second["output"], {"role": "user", "content": "Go on."}]
    world.respond(given, stream=False, **fields).expect("completed")
    assert roles(world) == ["user", "assistant", "tool", "assistant", "user"]
