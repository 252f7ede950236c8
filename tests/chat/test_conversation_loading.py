"""Loading conversations from messages arrays, and exporting them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon import (
    InvalidRequestError,
    ModelNotFoundError,
)
from support.chat_harness import Call, ChatHarness, contents, png, roles

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome and Bari?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [Call("weather", {"city": "Rome"}, "r").wire(0)],
    },
    {"role": "tool", "tool_call_id": "r", "content": "sunny"},
    {"role": "assistant", "content": "Sunny."},
    {"role": "user", "content": "Thanks."},
    {"role": "assistant", "content": "Welcome."},
]
for _call in MESSAGES[2]["tool_calls"]:
    del _call["index"]


def test_exported_conversation_can_be_loaded(harness: ChatHarness) -> None:
    chat = harness.load(MESSAGES)
    assert chat.instructions == "Be brief."
    assert chat.messages() == chat.context() == MESSAGES
    reloaded = harness.load(json.loads(chat.export()))
    assert reloaded.messages() == MESSAGES
    assert reloaded.export() == chat.export("json") == chat.export()
    page = chat.export("markdown")
    assert "Weather in Rome and Bari?" in page
    assert "sunny" in page
    wrong: Any = "pdf"
    with pytest.raises(InvalidRequestError) as caught:
        chat.export(wrong)
    assert caught.value.param == "form"
    assert reloaded.send("And now?").text == "Hello."
    assert harness.sent_messages() == [*MESSAGES, {"role": "user", "content": "And now?"}]
    # Each turn was stored separately.
    assert reloaded.regenerate().text == "Hello."
    assert len(reloaded.usage().turns) == 3
    assert reloaded.usage().turns[0].usage is None
    with_image = harness.new()
    with_image.send("What?", images=[png()])
    assert harness.load(json.loads(with_image.export())).messages() == with_image.messages()


def test_regenerate_answers_an_array_that_ends_with_a_user_message(harness: ChatHarness) -> None:
    chat = harness.load(MESSAGES[:-1], temperature=0.5)
    assert chat.messages() == MESSAGES[:-1]
    assert chat.regenerate().text == "Hello."
    assert harness.sent_messages() == MESSAGES[:-1]
    assert harness.request_body()["temperature"] == 0.5
    assert contents(chat.messages())[-1] == "Hello."


def test_array_that_ends_with_calls_waits_for_decisions(harness: ChatHarness) -> None:
    ran: list[str] = []

    def weather(city: str) -> str:
        """Tell the weather."""
        ran.append(city)
        return "sunny"

    chat = harness.load(MESSAGES[:3], tools=[weather])
    assert [call.call_id for call in chat.pending()] == ["r"]
    with pytest.raises(InvalidRequestError) as caught:
        chat.send("So?")
    assert caught.value.code == "decision_needed"
    assert chat.send(decisions={"r": True}).text == "Hello."
    assert (harness.sent_messages(), ran) == (MESSAGES[:4], ["Rome"])


def test_unanswered_calls_in_an_array_are_sent_as_interrupted(harness: ChatHarness) -> None:
    chat = harness.load([*MESSAGES[:3], *MESSAGES[5:]])
    assert chat.pending() == ()
    chat.send("And?")
    assert roles(harness.sent_messages()) == "suatuau"
    assert "interrupted" in harness.sent_messages()[3]["content"]


def test_empty_array_is_a_new_conversation(harness: ChatHarness) -> None:
    assert harness.load([]).response_id is None
    chat = harness.load(MESSAGES[:1])
    assert (chat.response_id, chat.instructions) == (None, "Be brief.")
    other = harness.load(MESSAGES, instructions="Be long.")
    assert contents(other.context())[0] == "Be long."


def test_invalid_array_is_refused_and_nothing_is_stored(harness: ChatHarness) -> None:
    wrong: list[tuple[Any, str]] = [
        ([{"role": "user"}], "messages[0].content"),
        ([*MESSAGES, {"role": "robot", "content": "x"}], "messages[7].role"),
        (
            [*MESSAGES, {"role": "tool", "tool_call_id": "z", "content": "x"}],
            "messages[7].tool_call_id",
        ),
        ("hello", "messages"),
    ]
    for messages, param in wrong:
        with pytest.raises(InvalidRequestError) as caught:
            harness.load(messages)
        assert caught.value.param == param
    with pytest.raises(ModelNotFoundError):
        harness.load(MESSAGES, model="nobody")
    assert harness.response_ids() == []
