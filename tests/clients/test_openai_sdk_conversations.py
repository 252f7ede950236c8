"""The official ``openai`` client's conversations, against the real server."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.conversations import ConversationItem

from antiphon.models.scripted import ScriptedModel, call, calls, think
from support.http_server import ThreadServer
from support.openai_client import WEATHER, serving_client, validate_strictly


def said(item: ConversationItem) -> str:
    """What a message says."""
    assert item.type == "message"
    (part,) = item.content
    assert part.type in ("input_text", "output_text")
    return part.text


def test_turns_on_a_conversation(client: OpenAI) -> None:
    talk = client.conversations.create(metadata={"topic": "names"})
    assert (talk.object, talk.metadata) == ("conversation", {"topic": "names"})
    first = validate_strictly(client.responses.create(input="I am Alice.", conversation=talk.id))
    second = validate_strictly(client.responses.create(input="Who?", conversation={"id": talk.id}))
    assert first.conversation is not None
    assert (first.conversation.id, first.previous_response_id) == (talk.id, None)
    assert "Before that you said: I am Alice." in second.output_text
    items = list(client.conversations.items.list(talk.id, order="asc"))
    assert [item.type for item in items] == ["message"] * 4
    assert [said(item) for item in items] == [
        "I am Alice.",
        first.output_text,
        "Who?",
        second.output_text,
    ]


def test_a_conversation_that_begins_with_items(client: OpenAI) -> None:
    talk = client.conversations.create(
        items=[
            {"type": "message", "role": "user", "content": "I am Alice."},
            {"type": "message", "role": "assistant", "content": "Hello."},
        ]
    )
    answer = client.responses.create(input="Who?", conversation=talk.id).output_text
    assert "Before that you said: I am Alice." in answer
    assert "(I was shown 3 messages.)" in answer


def test_a_conversation_found_changed_and_deleted(client: OpenAI) -> None:
    made = client.conversations.create(metadata={"a": "1"})
    assert client.conversations.retrieve(made.id) == made
    changed = client.conversations.update(made.id, metadata={"b": "2"})
    assert changed.metadata == {"b": "2"}
    assert client.conversations.retrieve(made.id) == changed
    turn = client.responses.create(input="Hi", conversation=made.id)
    gone = client.conversations.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    for ask in (client.conversations.retrieve, client.conversations.delete):
        with pytest.raises(openai.NotFoundError):
            ask(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(input="Hi", conversation=made.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.list(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(turn.id)


def test_items_added_found_and_deleted(client: OpenAI) -> None:
    talk = client.conversations.create()
    added = client.conversations.items.create(
        talk.id,
        items=[
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "One"}]},
            {"type": "message", "role": "assistant", "content": "Two"},
            {"type": "message", "role": "user", "content": "Three"},
        ],
    )
    assert (added.object, added.has_more) == ("list", False)
    assert [said(item) for item in added.data] == ["One", "Two", "Three"]
    names = [item.id for item in added.data]
    assert (added.first_id, added.last_id) == (names[0], names[2])
    assert names[1] is not None
    assert names[2] is not None
    found = client.conversations.items.retrieve(names[1], conversation_id=talk.id)
    assert found == added.data[1]
    left = client.conversations.items.delete(names[1], conversation_id=talk.id)
    assert left.id == talk.id
    assert [item.id for item in client.conversations.items.list(talk.id)] == [names[2], names[0]]
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(names[1], conversation_id=talk.id)
    answer = client.responses.create(input="Four", conversation=talk.id).output_text
    assert "Before that you said: Three" in answer
    assert "(I was shown 3 messages.)" in answer


def test_items_page_by_page(client: OpenAI) -> None:
    talk = client.conversations.create()
    for start in (0, 30):
        client.conversations.items.create(
            talk.id,
            items=[
                {"type": "message", "role": "user", "content": str(number)}
                for number in range(start, start + 30)
            ],
        )
    everything = [str(number) for number in range(60)]
    page = client.conversations.items.list(talk.id)
    assert len(page.data) == 20
    assert page.has_more
    assert [said(item) for item in client.conversations.items.list(talk.id)] == everything[::-1]
    asc = client.conversations.items.list(talk.id, order="asc", limit=7)
    assert [said(item) for item in asc] == everything


def test_tools_and_reasoning_are_items_of_a_conversation() -> None:
    reply = think("Hm.") + calls(call("get_weather", {"city": "Oslo"}, call_id="c1"))
    with serving_client(ScriptedModel([reply, "Snow."])) as (_, client):
        talk = client.conversations.create()
        client.responses.create(input="The weather?", tools=[WEATHER], conversation=talk.id)
        output: Any = {"type": "function_call_output", "call_id": "c1", "output": "snow"}
        client.responses.create(input=[output], tools=[WEATHER], conversation=talk.id)
        assert [item.type for item in client.conversations.items.list(talk.id, order="asc")] == [
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "message",
        ]


async def test_the_asynchronous_client(server: ThreadServer) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
        talk = await client.conversations.create(metadata={"a": "1"})
        async with client.responses.stream(
            model="scripted", input="I am Bob.", conversation=talk.id
        ) as stream:
            await stream.until_done()
        await client.responses.create(input="Who?", conversation=talk.id)
        items = [item async for item in client.conversations.items.list(talk.id, limit=1)]
        assert [item.type for item in items] == ["message"] * 4
        await client.conversations.update(talk.id, metadata={"b": "2"})
        assert (await client.conversations.retrieve(talk.id)).metadata == {"b": "2"}
        assert items[0].id is not None
        await client.conversations.items.delete(items[0].id, conversation_id=talk.id)
        await client.conversations.delete(talk.id)
        with pytest.raises(openai.NotFoundError):
            await client.conversations.retrieve(talk.id)
