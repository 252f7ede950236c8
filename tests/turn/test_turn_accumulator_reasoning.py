"""Reasoning that its model will want back: one item of the machine's, whatever was shown of it."""

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

SEAL = EncryptedReasoning("gAAA", "host/m")
EMPTY = Reasoning(encrypted_content="gAAA", origin="host/m")


def told(*deltas: Delta) -> tuple[list[Event], tuple[Item, ...]]:
    machine = TurnAccumulator()
    events = machine.feed(deltas) + machine.close(is_complete=True)
    return events, machine.output


def test_the_seal_ends_the_reasoning_and_stays_with_it() -> None:
    events, output = told(
        ReasoningSummaryDelta("Hm."),
        SEAL,
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
    assert told(ReasoningTextDelta("Hm."), SEAL)[1] == (
        Reasoning((), (ReasoningText("Hm."),), "gAAA", origin="host/m"),
    )


def test_reasoning_of_which_nothing_is_shown_is_an_item() -> None:
    events, output = told(SEAL, ToolCallDelta(0, "c", "f", "{}"))
    assert output == (EMPTY, FunctionCall("c", "f", "{}"))
    assert events[:2] == [ItemAdded(0, Reasoning()), ItemDone(0, EMPTY)]
    assert told(OutputTextDelta("a"), SEAL, OutputTextDelta("b"))[1] == (
        Message("assistant", "a"),
        EMPTY,
        Message("assistant", "b"),
    )


def test_answers_that_are_over_are_items_of_their_own() -> None:
    _, output = told(
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


def again(events: Iterable[Event], output: tuple[Item, ...]) -> list[Event]:
    """What a late reader is told of a turn."""
    end = End("completed", 2.0, trace=trace_of(events))
    turn = Response("resp_" + "0" * 32, 1.0, Header("m"), (), output, end)
    return [event for event in replay_events(turn) if not isinstance(event, Created | Ended)]


def test_it_is_replayed_as_it_was_told() -> None:
    events, output = told(
        SEAL,
        ReasoningSummaryDelta("Hm."),
        SEAL,
        ReasoningTextDelta("So."),
        SEAL,
        OutputTextDelta("a"),
        ItemEnd(),
    )
    assert again(events, output) == events
