"""Conversations that go from chat completions to xAI's gRPC API and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.items import (
    FunctionCallOutput,
    InputImage,
    InputText,
    Message,
    Reasoning,
    SummaryText,
)
from antiphon.core.turns import FunctionTool, Options, Response
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.scripted import ScriptedModel, call, calls, say, think
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.protocols import Model, ModelInfo
from antiphon.turn.service import TurnService
from support.grpc_client import grpc_serving
from support.turn_service import STORES, RecordingTools, open_store, outputs, run, run_turn, texts
from support.xai_upstream import RawXai, chunk, model_at, send_script, tool_calls

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
LOOK = Options(tools=(FunctionTool("look", parameters={"type": "object"}),))


def play(
    kind: str,
    folder: Path,
    upstream: ScriptedModel,
    story: Callable[[TurnService], Awaitable[None]],
) -> None:
    """A story of turns, for each of which one of two models may be named.

    ``chat`` and ``xai`` reach the same ``upstream``, each in its dialect.
    """

    async def main(port: int, base_url: str) -> None:
        models: dict[str, Model] = {
            "chat": ChatCompletionsModel(ModelInfo("chat"), base_url, upstream_name="scripted"),
            "xai": model_at(port, upstream_name="scripted"),
        }
        async with open_store(kind, folder) as store:
            try:
                await story(TurnService(store, ModelRegistry(models, default="chat")))
            finally:
                for model in models.values():
                    await model.close()

    with grpc_serving(upstream) as server:
        run(main(server.port, server.http.base_url))


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_chain_continues_across_models_and_back(kind: str, stream: bool, tmp_path: Path) -> None:
    upstream = ScriptedModel(
        [
            calls(call("look", {"at": 1}, call_id="a")),
            "One.",
            think("Hm.") + say("I look.") + calls(call("look", {"at": 2}, call_id="b")),
            "Two.",
            "Three.",
        ]
    )

    async def story(service: TurnService) -> None:
        async def turn(model: str, text: str, after: Response | None) -> Response:
            return await run_turn(
                service,
                text,
                tools=RecordingTools(),
                after=after.id if after else None,
                model=model,
                stream=stream,
                options=LOOK,
                instructions="Be brief.",
            )

        first = await turn("chat", "Look", None)
        second = await turn("xai", "Again", first)
        third = await turn("chat", "And?", second)
        assert [first.status, second.status, third.status] == ["completed"] * 3
        assert outputs(second) == {"b": "look done"}
        assert texts(second) == ["I look.", "Two."]
        assert second.output[0] == Reasoning((SummaryText("Hm."),))
        assert second.end is not None
        assert second.end.usage is not None
        assert second.end.usage.output_tokens > 0

    play(kind, tmp_path, upstream, story)
    shown = [_shape(upstream.context(number)) for number in range(5)]
    received = [
        ("system", "Be brief."),
        ("user", "Look"),
        ("assistant", ["a"]),
        ("tool", "look done"),
        ("assistant", "One."),
        ("user", "Again"),
        ("assistant", "I look.", ["b"]),
        ("tool", "look done"),
        ("assistant", "Two."),
        ("user", "And?"),
    ]
    assert shown == [received[:2], received[:4], received[:6], received[:8], received]


def _shape(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (
            one["role"],
            *([one["content"]] if one.get("content") else []),
            *([[made["id"] for made in one["tool_calls"]]] if one.get("tool_calls") else []),
        )
        for one in messages
    ]


@pytest.mark.parametrize("kind", STORES)
def test_images_are_sent(kind: str, tmp_path: Path) -> None:
    upstream = ScriptedModel(["A dot.", "Red.", "Yes."])
    picture = Message("user", (InputText("What is this?"), InputImage(PIXEL, "low")))

    async def story(service: TurnService) -> None:
        first = await run_turn(service, picture, model="xai")
        second = await run_turn(service, "Colour?", model="chat", after=first.id)
        third = await run_turn(service, "Sure?", model="xai", after=second.id)
        assert texts(third) == ["Yes."]

    play(kind, tmp_path, upstream, story)
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    for number in range(3):
        content = upstream.context(number)[0]["content"]
        assert content == [{"type": "text", "text": "What is this?"}, image]


async def test_a_model_gets_its_reasoning_back_within_a_turn_and_after() -> None:
    made = chunk(encrypted_content="g1", reasoning_content="Hm.")
    async with RawXai(
        send_script(made, chunk(tool_calls=tool_calls(("c", "look", "{}")), finish=4)),
        send_script(chunk(encrypted_content="g2"), chunk(content="So.", finish=3)),
        send_script(chunk(content="Bye.", finish=3)),
    ) as raw:
        model = model_at(raw.port)
        service = TurnService(MemoryStore(), ModelRegistry({"m": model}, default="m"))
        first = await run_turn(service, "Look", tools=RecordingTools(), options=LOOK)
        assert [one.call_id for one in first.output if isinstance(one, FunctionCallOutput)] == ["c"]
        await run_turn(service, "Bye", after=first.id)
        sealed = [
            [one.encrypted_content for one in request.messages if one.encrypted_content]
            for request in raw.requests
        ]
        assert sealed == [[], ["g1"], ["g1", "g2"]]
        assert not any(request.store_messages for request in raw.requests)
        await model.close()
