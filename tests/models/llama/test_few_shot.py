"""The guide's dialogue on the real model: told a name, it says that name when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from antiphon.core.turns import Options
from antiphon.models.llama.few_shot import FEW_SHOT_EXAMPLES
from antiphon.models.llama.model import LlamaModel
from support.embedded_model import generate, needs_model, open_model
from support.model_calls import call_with_messages

pytestmark = pytest.mark.slow

NAMES = ("Alice", "Bob", "Priya", "Carlos", "Mei", "Fatima")
QUESTIONS = ("What's my name?", "Do you remember my name?", "Who am I?")
CHATTER = (
    "Hello!",
    "What is the capital of France?",
    "Tell me a joke.",
    "What is 2 + 2?",
    "What can you do?",
    "Who are you?",
)
GREEDY = Options(temperature=0.0, max_output_tokens=40)

Bench = tuple[asyncio.Runner, LlamaModel]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with open_model(context=1024) as pair:
        yield pair


async def answer(model: LlamaModel, *talk: str) -> str:
    """The model's answer, shown what a turn shows it: instructions, primer, history."""
    output = [{"role": "system", "content": "You are a helpful assistant."}]
    history = [
        {"role": ("user", "assistant")[position % 2], "content": text}
        for position, text in enumerate(talk)
    ]
    parts = (
        msgspec.json.encode(output)[1:-1],
        FEW_SHOT_EXAMPLES,
        msgspec.json.encode(history)[1:-1],
    )
    messages = b"[" + b",".join(parts) + b"]"
    return (
        await generate(model, call_with_messages("smollm2", messages, GREEDY, stream=True))
    ).text


def test_the_primer_is_turns_without_brackets() -> None:
    turns = msgspec.json.decode(b"[" + FEW_SHOT_EXAMPLES + b"]")
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    assert not any(name.encode() in FEW_SHOT_EXAMPLES for name in NAMES)


@needs_model
def test_a_name_is_remembered(bench: Bench) -> None:
    runner, model = bench

    async def recalled(name: str) -> list[bool]:
        received = f"My name is {name}."
        greeting = await answer(model, received)
        return [name in await answer(model, received, greeting, question) for question in QUESTIONS]

    async def main() -> int:
        return sum([sum(await recalled(name)) for name in NAMES])

    assert runner.run(main()) >= 14


@needs_model
def test_the_names_of_the_examples_stay_where_they_are(bench: Bench) -> None:
    runner, model = bench

    async def main() -> list[str]:
        return [await answer(model, question) for question in CHATTER]

    answers = runner.run(main())
    assert sum("Grace" in text or "Ivan" in text for text in answers) <= 1
