"""Phases in the turn accumulator: commentary or final answer, kept with the item and replayed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.deltas import (
    Delta,
    ItemEnd,
    OutputTextDelta,
    PhaseDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    ToolCallDelta,
)
from antiphon.core.events import Created, Ended, Event, ItemAdded
from antiphon.core.items import Item, Message, Phase, Refusal, decode_item, encode_item
from antiphon.core.replay_trace import replay_events, trace_of
from antiphon.core.turns import End, Header, Response
from antiphon.turn.turn_accumulator import TurnAccumulator

COMMENTARY, FINAL_ANSWER = PhaseDelta("commentary"), PhaseDelta("final_answer")


def accumulate(*deltas: Delta) -> tuple[list[Event], tuple[Item, ...]]:
    accumulator = TurnAccumulator()
    events = accumulator.feed(deltas) + accumulator.close(is_complete=True)
    return events, accumulator.output


def replayed_events(events: list[Event], output: tuple[Item, ...]) -> list[Event]:
    end = End("completed", 2.0, trace=trace_of(events))
    turn = Response("resp_" + "0" * 32, 1.0, Header("m"), (), output, end)
    return [event for event in replay_events(turn) if not isinstance(event, Created | Ended)]


def test_phase_is_in_the_added_event() -> None:
    events, output = accumulate(
        COMMENTARY, OutputTextDelta("I look."), ItemEnd(), FINAL_ANSWER, OutputTextDelta("Sunny.")
    )
    assert output == (
        Message("assistant", "I look.", phase="commentary"),
        Message("assistant", "Sunny.", phase="final_answer"),
    )
    begun = [event.item for event in events if isinstance(event, ItemAdded)]
    assert begun == [
        Message("assistant", "", phase="commentary"),
        Message("assistant", "", phase="final_answer"),
    ]


def test_late_phase_is_in_the_completed_item() -> None:
    events, output = accumulate(
        OutputTextDelta("I look."), COMMENTARY, ItemEnd(), OutputTextDelta("Sunny.")
    )
    assert output == (
        Message("assistant", "I look.", phase="commentary"),
        Message("assistant", "Sunny."),
    )
    assert events[0] == ItemAdded(0, Message("assistant", ""))
    assert replayed_events(events, output) == events


def test_phase_applies_to_answers_only() -> None:
    assert accumulate(ReasoningSummaryDelta("Hm."), COMMENTARY, RefusalTextDelta("No."))[1][1:] == (
        Message("assistant", (Refusal("No."),), phase="commentary"),
    )
    # The phase of an answer without text is dropped with it.
    assert accumulate(COMMENTARY, ItemEnd(), OutputTextDelta("Hi."))[1] == (
        Message("assistant", "Hi."),
    )


DELTAS = st.sampled_from(
    [
        COMMENTARY,
        FINAL_ANSWER,
        OutputTextDelta("ab"),
        ReasoningSummaryDelta("c"),
        RefusalTextDelta("d"),
        ItemEnd(),
        ToolCallDelta(0, "c", "f"),
    ]
)


@given(st.lists(DELTAS, max_size=12))
def test_events_with_phases_replay_unchanged(deltas: list[Delta]) -> None:
    events, output = accumulate(*deltas)
    assert replayed_events(events, output) == events


@pytest.mark.parametrize("phase", [None, "commentary", "final_answer"])
def test_phase_survives_encoding(phase: Phase | None) -> None:
    item = Message("assistant", "Hi.", phase=phase)
    assert decode_item(encode_item(item)) == item
    assert (b"phase" in encode_item(item)) is (phase is not None)
