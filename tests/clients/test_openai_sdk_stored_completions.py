"""Stored chat completions through the official client."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from antiphon.models.scripted import ScriptedModel
from support.openai_client import serving_client


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    model = ScriptedModel(["Hello Ann.", "Ann.", "Bye."])
    with serving_client(model) as (_, made):
        yield made


def test_from_the_first_message_to_the_last(client: openai.OpenAI) -> None:
    completions = client.chat.completions
    first = completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "I am Ann."}],
        store=True,
        metadata={"topic": "names"},
    )
    second = completions.create(
        model="scripted",
        messages=[
            {"role": "user", "content": "I am Ann."},
            {"role": "assistant", "content": first.choices[0].message.content},
            {"role": "user", "content": "Who am I?"},
        ],
        store=True,
    )
    assert [one.id for one in completions.list()] == [first.id, second.id]
    assert [one.id for one in completions.list(order="desc", limit=1)] == [second.id, first.id]
    assert [one.id for one in completions.list(metadata={"topic": "names"})] == [first.id]
    shown = completions.retrieve(second.id)
    assert shown.choices[0].message.content == "Ann."
    messages = completions.messages.list(second.id)
    assert [one.content for one in messages] == ["I am Ann.", "Hello Ann.", "Who am I?"]
    assert completions.update(second.id, metadata={"topic": "who"}).metadata == {"topic": "who"}
    chained = client.responses.create(
        model="scripted", input="Bye.", previous_response_id=second.id
    )
    assert chained.output_text == "Bye."
    assert client.responses.retrieve(second.id).output_text == "Ann."
    gone = completions.delete(first.id)
    assert (gone.id, gone.object, gone.deleted) == (first.id, "chat.completion.deleted", True)
    with pytest.raises(openai.NotFoundError):
        completions.retrieve(first.id)
    # What is left of the messages of the second one's request.
    left = completions.messages.list(second.id)
    assert [one.content for one in left] == ["Who am I?"]
