"""Conversations from messages arrays, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import (
    InvalidRequestError,
    ModelNotFoundError,
)
from support.chat_harness import VARIANTS, Call, ChatHarness, chat_harness, contents, png, roles


@pytest.fixture(params=VARIANTS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness(request.param, tmp_path) as stage:
        yield stage


TALK: list[dict[str, Any]] = [
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
for _call in TALK[2]["tool_calls"]:
    del _call["index"]


def test_what_is_exported_can_be_loaded(stage: ChatHarness) -> None:
    chat = stage.load(TALK)
    assert chat.instructions == "Be brief."
    assert chat.messages() == chat.context() == TALK
    again = stage.load(json.loads(chat.export()))
    assert again.messages() == TALK
    assert again.export() == chat.export("json") == chat.export()
    page = chat.export("markdown")
    assert "Weather in Rome and Bari?" in page
    assert "sunny" in page
    wrong: Any = "pdf"
    with pytest.raises(InvalidRequestError) as caught:
        chat.export(wrong)
    assert caught.value.param == "form"
    assert again.send("And now?").text == "Hello."
    assert stage.sent_messages() == [*TALK, {"role": "user", "content": "And now?"}]
    # Each turn was kept as one of its own.
    assert again.regenerate().text == "Hello."
    assert len(again.usage().turns) == 3
    assert again.usage().turns[0].usage is None
    pictured = stage.new()
    pictured.send("What?", images=[png()])
    assert stage.load(json.loads(pictured.export())).messages() == pictured.messages()


def test_an_array_that_ends_with_a_question_is_answered(stage: ChatHarness) -> None:
    chat = stage.load(TALK[:-1], temperature=0.5)
    assert chat.messages() == TALK[:-1]
    assert chat.regenerate().text == "Hello."
    assert stage.sent_messages() == TALK[:-1]
    assert stage.request_body()["temperature"] == 0.5
    assert contents(chat.messages())[-1] == "Hello."


def test_an_array_that_ends_with_calls_waits_for_decisions(stage: ChatHarness) -> None:
    ran: list[str] = []

    def weather(city: str) -> str:
        """Tell the weather."""
        ran.append(city)
        return "sunny"

    chat = stage.load(TALK[:3], tools=[weather])
    assert [call.call_id for call in chat.pending()] == ["r"]
    with pytest.raises(InvalidRequestError) as caught:
        chat.send("So?")
    assert caught.value.code == "decision_needed"
    assert chat.send(decisions={"r": True}).text == "Hello."
    assert (stage.sent_messages(), ran) == (TALK[:4], ["Rome"])


def test_calls_that_an_array_passes_over_are_told_as_interrupted(stage: ChatHarness) -> None:
    chat = stage.load([*TALK[:3], *TALK[5:]])
    assert chat.pending() == ()
    chat.send("And?")
    assert roles(stage.sent_messages()) == "suatuau"
    assert "interrupted" in stage.sent_messages()[3]["content"]


def test_an_empty_array_is_a_new_conversation(stage: ChatHarness) -> None:
    assert stage.load([]).response_id is None
    chat = stage.load(TALK[:1])
    assert (chat.response_id, chat.instructions) == (None, "Be brief.")
    other = stage.load(TALK, instructions="Be long.")
    assert contents(other.context())[0] == "Be long."


def test_a_bad_array_is_refused_and_nothing_kept(stage: ChatHarness) -> None:
    wrong: list[tuple[Any, str]] = [
        ([{"role": "user"}], "messages[0].content"),
        ([*TALK, {"role": "robot", "content": "x"}], "messages[7].role"),
        (
            [*TALK, {"role": "tool", "tool_call_id": "z", "content": "x"}],
            "messages[7].tool_call_id",
        ),
        ("hello", "messages"),
    ]
    for messages, param in wrong:
        with pytest.raises(InvalidRequestError) as caught:
            stage.load(messages)
        assert caught.value.param == param
    with pytest.raises(ModelNotFoundError):
        stage.load(TALK, model="nobody")
    assert stage.recent() == []
