"""What is shown only where a request asks for it: encrypted reasoning."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from openai import OpenAI
from openai.types.responses import ResponseIncludable, ResponseInputParam

from antiphon.api.http.item_bodies import INCLUDABLE, parse_include, shows_encrypted_reasoning
from antiphon.core.deltas import EncryptedReasoning, ReasoningSummaryDelta
from antiphon.core.turns import Options
from antiphon.errors import InvalidRequestError
from antiphon.models.scripted import ScriptedModel, ScriptedReply, say
from support.http_server import ThreadServer
from support.openai_client import serving_client

SECRET = "gAAAsecret"
SEALED: list[ResponseIncludable] = ["reasoning.encrypted_content"]
NAMED = "include=reasoning.encrypted_content"


def thinking() -> ScriptedModel:
    reply = ScriptedReply(
        (ReasoningSummaryDelta("Hm."), EncryptedReasoning(SECRET, "here/scripted"))
    ) + say("Yes.")
    return ScriptedModel([reply] * 4)


@pytest.fixture
def model() -> ScriptedModel:
    return thinking()


@pytest.fixture
def talk(model: ScriptedModel) -> Iterator[tuple[ThreadServer, OpenAI]]:
    with serving_client(model) as (server, client):
        yield server, client


def sealed(items: object) -> bool:
    return SECRET in json.dumps(items, default=lambda one: one.to_dict())


def test_a_query_names_things_in_both_ways() -> None:
    assert parse_include({}) == ()
    both = {"include": [INCLUDABLE[0]], "include[]": [INCLUDABLE[1]]}
    assert parse_include(both) == INCLUDABLE[:2]
    with pytest.raises(InvalidRequestError) as refused:
        parse_include({"include": ["everything"]})
    assert refused.value.param == "include"


def test_who_asks_may_be_the_maker_or_the_reader() -> None:
    assert not shows_encrypted_reasoning(Options(include=(INCLUDABLE[1],)), (INCLUDABLE[2],))
    assert shows_encrypted_reasoning(Options(include=tuple(SEALED)))
    assert shows_encrypted_reasoning(Options(), SEALED)


def test_the_client_is_shown_it_where_it_asks(talk: tuple[ThreadServer, OpenAI]) -> None:
    _, client = talk
    plain = client.responses.create(input="Well?")
    assert [item.type for item in plain.output] == ["reasoning", "message"]
    assert not sealed(plain)
    assert not sealed(client.responses.retrieve(plain.id))
    assert sealed(client.responses.retrieve(plain.id, include=SEALED))
    asked = client.responses.create(input="And?", include=SEALED)
    assert sealed(asked)
    assert client.responses.retrieve(asked.id) == asked


def test_it_goes_back_to_its_model_whatever_was_shown(
    model: ScriptedModel, talk: tuple[ThreadServer, OpenAI]
) -> None:
    _, client = talk
    first = client.responses.create(input="Well?")
    client.responses.create(input="And?", previous_response_id=first.id)
    assert SECRET in model.calls[-1].messages.decode()


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_and_its_replays_show_the_same(
    talk: tuple[ThreadServer, OpenAI], asked: bool
) -> None:
    server, _ = talk
    whole = server.respond(stream=True, **({"include": SEALED} if asked else {}))
    name = whole.events[0]["response"]["id"]
    assert sealed(whole.events) is asked
    assert server.get(f"/v1/responses/{name}?stream=true").without_ids == whole.body
    again = server.get(f"/v1/responses/{name}?stream=true&{NAMED}")
    assert sealed(again.events)
    assert (again.without_ids == whole.body) is asked
    shown = [event["type"] for event in again.events if sealed(event)]
    assert shown == ["response.output_item.done", "response.completed"]


def test_lists_of_items_show_it_on_request(talk: tuple[ThreadServer, OpenAI]) -> None:
    _, client = talk
    thought: ResponseInputParam = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SECRET},
        {"role": "user", "content": "Well?"},
    ]
    turn = client.responses.create(input=thought)
    given = client.responses.input_items
    assert not sealed(given.list(turn.id).data)
    assert sealed(given.list(turn.id, include=SEALED).data)

    room = client.conversations.create()
    client.responses.create(input="Well?", conversation=room.id)
    items = client.conversations.items
    assert not sealed(items.list(room.id).data)
    assert sealed(items.list(room.id, include=SEALED).data)
    (one,) = [item.id for item in items.list(room.id).data if item.type == "reasoning"]
    assert one is not None
    assert not sealed(items.retrieve(one, conversation_id=room.id))
    assert sealed(items.retrieve(one, conversation_id=room.id, include=SEALED))
    assert not sealed(items.create(room.id, items=thought).data)
    assert sealed(items.create(room.id, items=thought, include=SEALED).data)


@pytest.mark.parametrize("path", ["", "/input_items"])
def test_nothing_else_can_be_included(talk: tuple[ThreadServer, OpenAI], path: str) -> None:
    server, _ = talk
    name = server.respond().json["id"]
    refused = server.get(f"/v1/responses/{name}{path}?include=everything")
    assert (refused.status, refused.error["param"]) == (400, "include")
