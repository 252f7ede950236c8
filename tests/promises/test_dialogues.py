"""Whole dialogues, turn by turn: what the model is shown is what loops by hand would show it.

Those with tools were printed by such a loop; others are held here beside one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from examples.support_bot.shop import Shop
from examples.support_bot.tools import TOOLS
from pydantic import BaseModel

from antiphon import Conversation
from antiphon.bootstrap import close_shared_engines
from antiphon.chat.blocking import portal
from support.example_programs import (
    DIALOGUES,
    ReplayUpstream,
    ReplyBody,
    dialogue,
    environment,
    normalize_messages,
    replay_upstream,
    replies,
    roles,
    tool_call_reply,
)
from support.stateless_loop import StatelessChatLoop


@pytest.fixture(autouse=True)
def process_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """Settings of this process as a program in ``tmp_path`` would have them."""
    for name in ("ANTIPHON_CONFIG", "ANTIPHON_MODEL", "ANTIPHON_BASE_URL", "XAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(tmp_path, None).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield monkeypatch
    portal.run(close_shared_engines)


def use(process_settings: pytest.MonkeyPatch, upstream: ReplayUpstream) -> None:
    process_settings.setenv("ANTIPHON_BASE_URL", upstream.base_url)
    process_settings.setenv("ANTIPHON_MODEL", "grok-4")


# Dialogues as they were printed.


@pytest.mark.parametrize("name", DIALOGUES)
def test_printed_dialogue_is_reproduced(
    name: str, tmp_path: Path, process_settings: pytest.MonkeyPatch
) -> None:
    printed = dialogue(name)
    array = normalize_messages(printed)
    tools = TOOLS if "tool" in roles(array) else []
    ends = [at for at, role in enumerate([*roles(array), "user"]) if role == "user"][1:]
    with replay_upstream(*replies(printed)) as upstream:
        use(process_settings, upstream)
        chat = Conversation(
            instructions=printed[0]["content"], tools=tools, deps=Shop(tmp_path / "bot.db")
        )
        begin = 1
        for end in ends:
            stream = chat.stream(array[begin]["content"])
            said = "".join(stream)
            # All of the array but the answer itself.
            assert upstream.sent_messages() == array[: end - 1]
            assert stream.reply.text == array[end - 1]["content"]
            assert said.endswith(stream.reply.text)
            assert normalize_messages(chat.messages()) == array[:end]
            begin = end
        assert upstream.unused_replies == 0


# Dialogues beside a loop by hand.


class DialoguePair:
    """A manual chat loop and a conversation, each with the same scripted model."""

    def __init__(
        self,
        process_settings: pytest.MonkeyPatch,
        theirs: ReplayUpstream,
        ours: ReplayUpstream,
        system: str | None,
    ) -> None:
        use(process_settings, ours)
        self.hand = StatelessChatLoop(theirs.base_url, system)
        self.chat = Conversation(instructions=system)
        self._theirs, self._ours = theirs, ours

    def same(self) -> list[dict[str, Any]]:
        """The messages array of both, which have to be alike, in what was sent too."""
        sent = [parsed(request["messages"]) for request in self._ours.requests]
        assert sent == [parsed(request["messages"]) for request in self._theirs.requests]
        array = parsed(self.chat.messages())
        assert array == parsed(self.hand.messages)
        return array


def parsed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``plain``, without what makes no difference: no words or empty ones, spaces in JSON."""
    return [
        {**one, "content": json.loads(one["content"]) if one["role"] == "tool" else words}
        for one in normalize_messages(messages)
        for words in [one.get("content") or ""]
    ]


@pytest.fixture
def make_pair(process_settings: pytest.MonkeyPatch) -> Any:
    """Makes a ``Beside`` from a system prompt and a script; its models stop with the test."""
    running: list[Any] = []

    def make(system: str | None, *script: ReplyBody) -> DialoguePair:
        running.extend(replay_upstream(*script) for _ in range(2))
        theirs, ours = (one.__enter__() for one in running[-2:])
        return DialoguePair(process_settings, theirs, ours, system)

    yield make
    for one in running:
        one.__exit__(None, None, None)


def test_name_is_remembered(make_pair: Any) -> None:
    script = (
        "Hello Alice! Nice to meet you. How can I help you today?",
        "Your name is Alice, as you just told me!",
    )
    both = make_pair("You are a helpful assistant.", *script)
    for text, answer in zip(("My name is Alice.", "What's my name?"), script, strict=True):
        assert both.hand.chat(text) == both.chat.send(text).text == answer
        both.same()
    assert both.chat.messages() == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": script[0]},
        {"role": "user", "content": "What's my name?"},
        {"role": "assistant", "content": script[1]},
    ]
    both.chat.reset()
    assert both.chat.messages() == both.hand.messages[:1]


def test_short_dialogue(make_pair: Any) -> None:
    both = make_pair(
        "You are a friendly cooking assistant.", "Good!", "Flour, eggs.", "Two minutes."
    )
    for text in (
        "I want to make pasta tonight.",
        "What ingredients do I need?",
        "How long should I cook it?",
    ):
        assert both.hand.chat(text) == both.chat.send(text).text
        both.same()


def test_streamed_story(make_pair: Any) -> None:
    both = make_pair("You are a storyteller.", "Once there was a robot.", "It slept.")
    for text in ("Tell me a short story about a robot.", "And then?"):
        assert list(both.hand.chat_stream(text)) == list(both.chat.stream(text))
        both.same()


def test_tool_call_in_each_turn(make_pair: Any) -> None:
    both = make_pair(
        "You are a helpful assistant with access to weather data.",
        tool_call_reply("get_weather", location="Tokyo"),
        "72 F and sunny in Tokyo.",
        tool_call_reply("get_weather", None, call_id="call_2", location="New York"),
        "The same in New York.",
    )
    location = {"type": "string", "description": "City name, e.g. San Francisco"}
    for app in (both.hand, both.chat):
        app.register_tool(
            name="get_weather",
            description="Get current weather for a location",
            parameters={
                "type": "object",
                "properties": {"location": location},
                "required": ["location"],
            },
            func=lambda location: {"temp": 72, "condition": "sunny", "location": location},
        )
    for text in ("What's the weather in Tokyo?", "How about New York?"):
        assert both.hand.chat(text) == both.chat.send(text).text
        array = both.same()
    assert roles(array) == ["system", *["user", "assistant", "tool", "assistant"] * 2]
    assert [one["tool_call_id"] for one in array if one["role"] == "tool"] == ["call_1", "call_2"]


def test_parallel_tool_calls(make_pair: Any) -> None:
    orders = {"ORD-123": {"status": "shipped", "eta": "2 days"}}
    tickets: list[dict[str, str]] = []

    def lookup_order(order_id: str) -> dict[str, Any]:
        return {"order_id": order_id, **orders[order_id]}

    def create_ticket(issue: str, priority: str) -> dict[str, Any]:
        tickets.append({"issue": issue, "priority": priority})
        return {"ticket_id": "TKT-10000", **tickets[-1], "status": "open"}

    two = tool_call_reply(
        "create_ticket", "I file it.", call_id="call_2", issue="Delay", priority="high"
    )
    two["tool_calls"] += tool_call_reply("lookup_order", call_id="call_3", order_id="ORD-123")[
        "tool_calls"
    ]
    both = make_pair(
        "You are a customer support agent for TechCorp.",
        "Which order?",
        tool_call_reply("lookup_order", order_id="ORD-123"),
        "Two more days.",
        two,
        "Filed.",
    )
    text = {"type": "string"}
    for app in (both.hand, both.chat):
        for func, names in ((create_ticket, ("issue", "priority")), (lookup_order, ("order_id",))):
            properties = dict.fromkeys(names, text)
            schema = {"type": "object", "properties": properties, "required": list(names)}
            app.register_tool(func.__name__, "Helps.", schema, func)
    for said in (
        "Hi, I ordered something but it hasn't arrived.",
        "The order number is ORD-123",
        "Actually, I'd like to file a complaint about the delay.",
    ):
        assert both.hand.chat(said) == both.chat.send(said).text
        array = both.same()
    # Both calls, then both outputs, each beside its id.
    assert roles(array)[-5:] == ["user", "assistant", "tool", "tool", "assistant"]
    assert tickets == [{"issue": "Delay", "priority": "high"}] * 2


def test_image_and_follow_up_question(make_pair: Any) -> None:
    both = make_pair(None, "A beach.", "Blue and yellow.")
    url, text = "https://example.com/photo.jpg", "What's in this image?"
    sent = both.chat.send(text, images=[url], detail="high")
    assert both.hand.chat(text, image_url=url) == sent.text
    both.same()
    again = "What colors are prominent?"
    assert both.hand.chat(again) == both.chat.send(again).text
    array = both.same()
    assert array[0]["content"][1]["image_url"] == {"url": url, "detail": "high"}


class MenuItem(BaseModel):
    name: str
    price: float
    description: str


class MenuAnalysis(BaseModel):
    items: list[MenuItem]
    cuisine_type: str
    price_range: str


def test_structured_menu(make_pair: Any) -> None:
    item = {"name": "Ribollita", "price": 9.5, "description": "A soup."}
    menu = json.dumps({"items": [item], "cuisine_type": "Italian", "price_range": "cheap"})
    both = make_pair(None, menu)
    text = "Create a 3-item Italian restaurant menu"
    parsed = both.chat.send(text, returns=MenuAnalysis).parsed
    assert both.hand.chat_structured(text, MenuAnalysis) == parsed
    assert both.same()[-1]["content"] == menu
