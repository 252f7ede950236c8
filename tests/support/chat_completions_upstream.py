"""A model over a misbehaving upstream, and a clock that only its waiting moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from antiphon.core.deltas import Delta, Finish, OutputTextDelta, UsageUpdate
from antiphon.core.turns import Options, Usage
from antiphon.errors import (
    AntiphonError,
)
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.turn.protocols import Model, ModelCall, ModelInfo
from support.misbehaving_upstream import (
    MisbehavingUpstream,
)
from support.model_calls import call_with_messages

KEY = "xai-0123456789abcdefghij"
HELLO = [OutputTextDelta("Hel"), OutputTextDelta("lo."), UsageUpdate(Usage(5, 2)), Finish("stop")]
INVALID_JSON_EVENT = b'data: {"choices": [}\n\n'


class ChatCompletionsUpstream(MisbehavingUpstream):
    """The upstream, models that talk to it, and a clock that only their waiting moves."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waits: list[float] = []

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def model(self, **options: Any) -> ChatCompletionsModel:
        options = {"api_key": KEY, "clock": lambda: self.now, "sleep": self._sleep, **options}
        return ChatCompletionsModel(ModelInfo("m"), options.pop("url", self.base_url), **options)


def run_with_upstream(
    work: Callable[[ChatCompletionsUpstream, ChatCompletionsModel], Coroutine[Any, Any, None]],
) -> None:
    """Run ``work`` with an upstream and a model; nothing may be left open after it."""
    with_model(work)


def with_model(
    work: Callable[[ChatCompletionsUpstream, ChatCompletionsModel], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    async def main() -> None:
        async with ChatCompletionsUpstream() as upstream:
            model = upstream.model(**options)
            try:
                await work(upstream, model)
            finally:
                await model.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def make_call(*, streamed: bool = True, options: Options | None = None) -> ModelCall:
    messages = b'[{"role":"user","content":"Hi"}]'
    return call_with_messages("grok-4", messages, options or Options(), streamed)


async def batches(model: Model, call: ModelCall) -> list[list[Delta]]:
    return [list(batch) async for batch in model.generate(call)]


async def collect_deltas(model: Model, *, streamed: bool = True) -> list[Delta]:
    return [
        delta for batch in await batches(model, make_call(streamed=streamed)) for delta in batch
    ]


async def expect_failure(
    model: Model, kind: type[AntiphonError], *, streamed: bool = True
) -> tuple[list[Delta], Any]:
    """What was heard before the call failed, and the error."""
    deltas: list[Delta] = []

    async def listen() -> None:
        async for batch in model.generate(make_call(streamed=streamed)):
            deltas.extend(batch)

    with pytest.raises(kind) as caught:
        await listen()
    assert type(caught.value) is kind
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    return deltas, caught.value
