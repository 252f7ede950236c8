"""Conversations that go from one upstream to another, each with a dialect of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    Reasoning,
)
from antiphon.core.turns import FunctionTool, Options, Response, TurnRequest
from antiphon.models.model_registry import ModelRegistry
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Store
from support.chat_completions_upstream import ChatCompletionsUpstream as ChatUpstream
from support.misbehaving_upstream import completion
from support.responses_upstream import (
    ResponsesUpstream,
    event_stream,
    function_call_item,
    json_response,
    message,
    reasoning_item,
)
from support.turn_service import STORES, open_store, run, turn_request

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
OPTIONS = Options(tools=(FunctionTool("f", parameters={"type": "object"}),))


class Weather:
    """A tool source that knows the weather."""

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        return f"sunny for {call.arguments}"


class World:
    """Two upstreams, and a service whose models ``chat`` and ``think`` are theirs."""

    def __init__(self, chat: ChatUpstream, think: ResponsesUpstream, service: TurnService) -> None:
        self.chat = chat
        self.think = think
        self.service = service
        self.stream = False

    async def turn(
        self, model: str, *said: str | Item, after: Response | None = None, tools: bool = True
    ) -> Response:
        request: TurnRequest = turn_request(
            *said,
            after=after.id if after else None,
            model=model,
            options=OPTIONS,
            stream=self.stream,
        )
        live = await self.service.start(request, Weather() if tools else None)
        return await live.result()

    def asked(self, upstream: ChatUpstream, number: int) -> list[dict[str, Any]]:
        """The input of a request to an upstream."""
        fields = upstream.requests[number].json
        items: list[dict[str, Any]] = fields["input" if "input" in fields else "messages"]
        return items


def play(kind: str, folder: Path, story: Callable[[World, Store], Awaitable[None]]) -> None:
    async def main() -> None:
        async with (
            open_store(kind, folder) as store,
            ChatUpstream() as chat,
            ResponsesUpstream() as think,
        ):
            models = {"chat": chat.model(), "think": think.responses()}
            service = TurnService(store, ModelRegistry(models, default="chat"))
            try:
                await story(World(chat, think, service), store)
            finally:
                for model in models.values():
                    await model.close()

    run(main())


def kinds(items: list[dict[str, Any]]) -> list[str]:
    return [item.get("role") or item["type"] for item in items]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("streaming", [True, False])
def test_a_model_gets_its_reasoning_back_within_a_turn_and_after(
    kind: str, streaming: bool, tmp_path: Path
) -> None:
    async def story(world: World, store: Store) -> None:
        world.stream, say = streaming, event_stream if streaming else json_response
        world.think.then(
            say(reasoning_item("g1", "**Look**"), function_call_item("c1", "f", '{"at":"Rome"}')),
            say(reasoning_item("g2"), message("Sunny.")),
            say(message("Bye.")),
        )
        first = await world.turn("think", "Weather?")
        assert [type(item).__name__ for item in first.output] == [
            *("Reasoning", "FunctionCall", "FunctionCallOutput", "Reasoning", "Message")
        ]
        origin = f"127.0.0.1:{world.think.port}/think"
        made = [item for item in first.output if isinstance(item, Reasoning)]
        assert [(item.encrypted_content, item.origin) for item in made] == [
            ("g1", origin),
            ("g2", origin),
        ]
        # A service that has forgotten everything reads the same from the store.
        again = TurnService(store, world.service.models)
        world.service = again
        await world.turn("think", "Thanks.", after=first)
        shown = world.asked(world.think, 2)
        assert kinds(shown) == [
            *("user", "reasoning", "function_call", "function_call_output", "reasoning"),
            *("assistant", "user"),
        ]
        assert shown[:4] == world.asked(world.think, 1)
        assert [one["encrypted_content"] for one in shown if one["type"] == "reasoning"] == [
            "g1",
            "g2",
        ]

    play(kind, tmp_path, story)


@pytest.mark.parametrize("kind", STORES)
def test_a_conversation_moves_between_dialects_and_back(kind: str, tmp_path: Path) -> None:
    async def story(world: World, store: Store) -> None:
        function = {"name": "f", "arguments": "{}"}
        world.chat.then(
            completion(None, tool_calls=[{"id": "x1", "type": "function", "function": function}]),
            completion("It was sunny.", reasoning_content="Hm."),
        )
        world.think.then(
            json_response(reasoning_item("g1"), function_call_item("c1")),
            json_response(reasoning_item("g2"), message()),
        )
        image = Message("user", (InputText("Where is this?"), InputImage(PIXEL)))
        one = await world.turn("chat", image)
        two = await world.turn("think", "And now?", after=one)
        three = await world.turn("chat", "And then?", after=two)
        await world.turn("think", "And again?", after=three)

        first = world.asked(world.think, 0)
        assert kinds(first) == [
            *("user", "function_call", "function_call_output", "assistant", "user")
        ]
        assert [part["type"] for part in first[0]["content"]] == ["input_text", "input_image"]
        assert first[0]["content"][1]["image_url"] == PIXEL
        assert first[1]["call_id"] == first[2]["call_id"] == "x1"
        assert first[2]["output"] == "sunny for {}"

        back = world.asked(world.chat, 2)
        assert kinds(back) == [
            *("user", "assistant", "tool", "assistant", "user", "assistant", "tool"),
            *("assistant", "user"),
        ]
        fields = {"role", "content", "tool_calls", "tool_call_id"}
        assert all(set(one) <= fields for one in back), "no word of the other's reasoning"

        last = world.asked(world.think, 2)
        assert [one["encrypted_content"] for one in last if one["type"] == "reasoning"] == [
            "g1",
            "g2",
        ]

    play(kind, tmp_path, story)


def test_a_call_that_waits_for_its_caller_keeps_its_reasoning(tmp_path: Path) -> None:
    async def story(world: World, store: Store) -> None:
        world.think.then(json_response(reasoning_item("g1"), function_call_item("c1")))
        first = await world.turn("think", "Weather?", tools=False)
        output = FunctionCallOutput("c1", "sunny")
        await world.turn("think", output, after=first, tools=False)
        assert kinds(world.asked(world.think, 1)) == [
            *("user", "reasoning", "function_call", "function_call_output")
        ]

    play("sqlite", tmp_path, story)


def test_what_people_are_shown_of_a_conversation_has_no_private_key(tmp_path: Path) -> None:
    async def story(world: World, store: Store) -> None:
        world.think.then(json_response(reasoning_item("g1"), message("Yes.")))
        first = await world.turn("think", "Well?")
        arrays = [
            await world.service.reader.messages("", first.id),
            (await world.service.reader.context("", first.id)).messages,
            await world.service.preview_context(turn_request("x", after=first.id, model="think")),
        ]
        assert all(set(one) == {"role", "content"} for array in arrays for one in array)
        assert [one["content"] for one in arrays[0]] == ["Well?", "Yes."]

    play("memory", tmp_path, story)
