"""What the tests of histories share: chains that the rules allow, and what a model may be shown."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from hypothesis import strategies as st

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    SummaryText,
)
from antiphon.turn.message_rendering import RenderedTurn, build_messages, render_turn

Messages: TypeAlias = list[dict[str, Any]]


class Turn(msgspec.Struct, frozen=True):
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    completed: bool

    def segment(self) -> RenderedTurn:
        return render_turn((*self.input, *self.output), completed=self.completed)


class Chain(msgspec.Struct, frozen=True):
    """Turns that the rules allow. ``outputs``: what each call's arguments were answered with."""

    turns: list[Turn]
    outputs: dict[str, str]


#: Few, so that models use them again and again.
CALL_IDS = ["call_0", "call_1", "call_2"]
WORDS = st.sampled_from(["", "a", 'quo"te', "née", "\N{PILE OF POO}", "line\nbreak", "\x00"])
ASSISTANT_ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(lambda text: Message("assistant", text), WORDS),
    st.builds(lambda text: Message("assistant", (Refusal(text),)), WORDS),
    st.builds(lambda text: Message("assistant", (OutputText(text), OutputText(text))), WORDS),
    st.builds(lambda text: Reasoning((SummaryText(text),)), WORDS),
)
IMAGE = InputImage("https://example.com/a.png")
MESSAGE_ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(Message, st.sampled_from(["user", "system", "developer"]), WORDS),
    st.builds(lambda text: Message("user", (InputText(text), IMAGE)), WORDS),
    ASSISTANT_ITEMS,
)


def interleave(draw: st.DrawFn, first: list[Item], second: list[Item]) -> list[Item]:
    """Both lists in one, each in its own order."""
    places = sorted(draw(st.integers(0, len(first))) for _ in second)
    out = list(first)
    for offset, (place, item) in enumerate(zip(places, second, strict=True)):
        out.insert(place + offset, item)
    return out


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    serial = itertools.count()
    truth: dict[str, str] = {}
    turns: list[Turn] = []
    #: The last turn's open calls: their ids and arguments, which are all different.
    waiting: dict[str, str] = {}
    open_calls = False

    def call(call_id: str) -> FunctionCall:
        return FunctionCall(call_id, "f", f'{{"n":{next(serial)}}}')

    def answer(call_id: str, arguments: str) -> FunctionCallOutput:
        truth[arguments] = f"result{next(serial)}"
        return FunctionCallOutput(call_id, truth[arguments])

    for _ in range(draw(st.integers(1, 6))):
        answered = draw(st.permutations(list(waiting)))
        if not open_calls:
            answered = answered[: draw(st.integers(0, len(answered)))]
        assistant_items: list[Item] = [answer(one, waiting[one]) for one in answered]
        # A client that keeps its own history sends old calls and their outputs along.
        for _ in range(draw(st.integers(0, 2))):
            pasted = [call(one) for one in draw(st.lists(st.sampled_from(CALL_IDS), unique=True))]
            results = [answer(one.call_id, one.arguments) for one in draw(st.permutations(pasted))]
            assistant_items += interleave(
                draw, [*pasted, *results], draw(st.lists(ASSISTANT_ITEMS, max_size=1))
            )
        message_items = draw(
            st.lists(MESSAGE_ITEMS, min_size=0 if assistant_items else 1, max_size=3)
        )
        new = [call(one) for one in draw(st.lists(st.sampled_from(CALL_IDS), unique=True))]
        output = interleave(draw, list(new), draw(st.lists(ASSISTANT_ITEMS, max_size=3)))
        open_calls = draw(st.booleans())
        waiting = {one.call_id: one.arguments for one in new}
        turns.append(
            Turn(tuple(interleave(draw, assistant_items, message_items)), tuple(output), open_calls)
        )
    # The last one is about to run: it has an input and no output yet.
    turns[-1] = msgspec.structs.replace(turns[-1], output=())
    return Chain(turns, truth)


def check_well_formed(raw: bytes) -> Messages:
    """The messages, if an upstream could find no fault with them."""
    messages: Messages = json.loads(raw)
    assert isinstance(messages, list)
    open_calls: list[str] = []
    for message in messages:
        role = message["role"]
        assert role in {"system", "user", "assistant", "tool"}
        assert isinstance(message["content"], str | list)
        if isinstance(message["content"], list):
            assert all(part["type"] in {"text", "image_url"} for part in message["content"])
        if role == "tool":
            assert message["tool_call_id"] in open_calls, "an output without its call"
            open_calls.remove(message["tool_call_id"])
        else:
            assert not open_calls, f"calls without outputs before {message}"
            assert "tool_call_id" not in message
        if "tool_calls" in message:
            assert role == "assistant"
            assert message["tool_calls"]
            open_calls = [call["id"] for call in message["tool_calls"]]
            assert len(set(open_calls)) == len(open_calls)
    assert not open_calls, "calls without outputs at the end"
    return messages


def results(messages: Messages) -> dict[str, str]:
    """What each call's arguments were answered with."""
    shown: dict[str, str] = {}
    calls: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            calls[call["id"]] = call["function"]["arguments"]
        if message["role"] == "tool":
            shown[calls.pop(message["tool_call_id"])] = message["content"]
    return shown


def with_role(messages: Messages, role: str) -> list[Any]:
    return [message["content"] for message in messages if message["role"] == role]


def count_messages(items: tuple[Item, ...], *roles: str) -> int:
    return sum(isinstance(item, Message) and item.role in roles for item in items)


def groups_of(segments: Sequence[RenderedTurn]) -> list[list[RenderedTurn]]:
    """Turns that calls and their outputs tie together, oldest first."""
    groups: list[list[RenderedTurn]] = []
    for before, segment in zip((None, *segments), segments, strict=False):
        if before is not None and set(segment.outputs) & set(before.open_calls):
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


@st.composite
def histories(draw: st.DrawFn) -> list[RenderedTurn]:
    """A chain's turns as they are shown, the newest without an answer yet.

    Some have tokens that a model reported, true or not.
    """
    chain = draw(chains())
    tokens = st.none() | st.integers(1, 200)
    past = [msgspec.structs.replace(turn.segment(), tokens=draw(tokens)) for turn in chain.turns]
    return [*past[:-1], chain.turns[-1].segment()]


def check_whole_turns(
    everything: Sequence[RenderedTurn], shown: Sequence[RenderedTurn]
) -> list[RenderedTurn]:
    """The turns that are shown of a history, if that is fair: whole, in order, no part of a group.

    What is not shown leaves its system messages behind, in their place.
    """
    there = {id(one) for one in shown}
    left = [one.messages if id(one) in there else one.system for one in everything]
    assert [one.messages for one in shown if one.messages] == [one for one in left if one]
    for group in groups_of(everything):
        turns = [one for one in group if one.messages != one.system]
        assert len({id(one) in there for one in turns}) <= 1, "a group was torn apart"
    assert id(everything[-1]) in there, "the newest turn is always shown"
    check_well_formed(build_messages(shown))
    return [one for one in everything if id(one) in there]
