"""Encrypted reasoning in the turn accumulator: one item each, with or without visible text."""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.core.deltas import (
    Delta,
    EncryptedReasoning,
    ItemEnd,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    ToolCallDelta,
)
from antiphon.core.events import Created, Ended, Event, ItemAdded, ItemDone, ReasoningDelta
from antiphon.core.items import (
    FunctionCall,
    Item,
    Message,
    Reasoning,
    ReasoningText,
    SummaryText,
)
from antiphon.core.replay_trace import replay_events, trace_of
from antiphon.core.turns import End, Header, Response
from antiphon.turn.turn_accumulator import TurnAccumulator

ENCRYPTED = EncryptedReasoning("gAAA", "host/m")
EMPTY = Reasoning(encrypted_content="gAAA", origin="host/m")


def accumulate(*deltas: Delta) -> tuple[list[Event], tuple[Item, ...]]:
    accumulator = TurnAccumulator()
    events = accumulator.feed(deltas) + accumulator.close(is_complete=True)
    return events, accumulator.output


def test_encrypted_reasoning_ends_its_reasoning_item() -> None:
    events, output = accumulate(
        ReasoningSummaryDelta("Hm."),
        ENCRYPTED,
        ReasoningSummaryDelta("So."),
        EncryptedReasoning("gBBB", "host/m"),
    )
    assert output == (
        Reasoning((SummaryText("Hm."),), encrypted_content="gAAA", origin="host/m"),
        Reasoning((SummaryText("So."),), encrypted_content="gBBB", origin="host/m"),
    )
    assert events[:3] == [
        ItemAdded(0, Reasoning((SummaryText(""),))),
        ReasoningDelta(0, "Hm."),
        ItemDone(0, output[0]),
    ]
    assert accumulate(ReasoningTextDelta("Hm."), ENCRYPTED)[1] == (
        Reasoning((), (ReasoningText("Hm."),), "gAAA", origin="host/m"),
    )


def test_encrypted_reasoning_without_text_is_an_item() -> None:
    events, output = accumulate(ENCRYPTED, ToolCallDelta(0, "c", "f", "{}"))
    assert output == (EMPTY, FunctionCall("c", "f", "{}"))
    assert events[:2] == [ItemAdded(0, Reasoning()), ItemDone(0, EMPTY)]
    assert accumulate(OutputTextDelta("a"), ENCRYPTED, OutputTextDelta("b"))[1] == (
        Message("assistant", "a"),
        EMPTY,
        Message("assistant", "b"),
    )


def test_item_end_separates_items() -> None:
    _, output = accumulate(
        OutputTextDelta("a"),
        ItemEnd(),
        OutputTextDelta("b"),
        ItemEnd(),
        ItemEnd(),
        ReasoningSummaryDelta("c"),
        ItemEnd(),
    )
    assert output == (
        Message("assistant", "a"),
        Message("assistant", "b"),
        Reasoning((SummaryText("c"),)),
    )


def replayed_events(events: Iterable[Event], output: tuple[Item, ...]) -> list[Event]:
    """The events that a late reader of a turn gets."""
    end = End("completed", 2.0, trace=trace_of(events))
    turn = Response("resp_" + "0" * 32, 1.0, Header("m"), (), output, end)
    return [event for event in replay_events(turn) if not isinstance(event, Created | Ended)]


def test_events_with_reasoning_replay_unchanged() -> None:
    events, output = accumulate(
        ENCRYPTED,
        ReasoningSummaryDelta("Hm."),
        ENCRYPTED,
        ReasoningTextDelta("So."),
        ENCRYPTED,
        OutputTextDelta("a"),
        ItemEnd(),
    )
    assert replayed_events(events, output) == events
