"""What an answer is to its turn: it stays with its item, and is replayed as it was told."""

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

ON_THE_WAY, AT_LAST = PhaseDelta("commentary"), PhaseDelta("final_answer")


def told(*deltas: Delta) -> tuple[list[Event], tuple[Item, ...]]:
    machine = TurnAccumulator()
    events = machine.feed(deltas) + machine.close(is_complete=True)
    return events, machine.output


def again(events: list[Event], output: tuple[Item, ...]) -> list[Event]:
    end = End("completed", 2.0, trace=trace_of(events))
    turn = Response("resp_" + "0" * 32, 1.0, Header("m"), (), output, end)
    return [event for event in replay_events(turn) if not isinstance(event, Created | Ended)]


def test_it_is_told_with_the_beginning() -> None:
    events, output = told(
        ON_THE_WAY, OutputTextDelta("I look."), ItemEnd(), AT_LAST, OutputTextDelta("Sunny.")
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


def test_told_late_it_is_in_the_whole_item() -> None:
    events, output = told(
        OutputTextDelta("I look."), ON_THE_WAY, ItemEnd(), OutputTextDelta("Sunny.")
    )
    assert output == (
        Message("assistant", "I look.", phase="commentary"),
        Message("assistant", "Sunny."),
    )
    assert events[0] == ItemAdded(0, Message("assistant", ""))
    assert again(events, output) == events


def test_it_belongs_to_answers_only() -> None:
    assert told(ReasoningSummaryDelta("Hm."), ON_THE_WAY, RefusalTextDelta("No."))[1][1:] == (
        Message("assistant", (Refusal("No."),), phase="commentary"),
    )
    # An answer of no words takes its own along.
    assert told(ON_THE_WAY, ItemEnd(), OutputTextDelta("Hi."))[1] == (Message("assistant", "Hi."),)


DELTAS = st.sampled_from(
    [
        ON_THE_WAY,
        AT_LAST,
        OutputTextDelta("ab"),
        ReasoningSummaryDelta("c"),
        RefusalTextDelta("d"),
        ItemEnd(),
        ToolCallDelta(0, "c", "f"),
    ]
)


@given(st.lists(DELTAS, max_size=12))
def test_it_is_replayed_as_it_was_told(deltas: list[Delta]) -> None:
    events, output = told(*deltas)
    assert again(events, output) == events


@pytest.mark.parametrize("phase", [None, "commentary", "final_answer"])
def test_it_is_kept(phase: Phase | None) -> None:
    item = Message("assistant", "Hi.", phase=phase)
    assert decode_item(encode_item(item)) == item
    assert (b"phase" in encode_item(item)) is (phase is not None)
