"""A trace tells a turn again just as it was told."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core import deltas
from antiphon.core.events import Created, Ended, Event, ItemAdded, TextDelta
from antiphon.core.items import (
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    SummaryText,
)
from antiphon.core.replay_trace import is_trace_of, logprob_counts, replay_events, trace_of
from antiphon.core.turns import End, Header, Response
from antiphon.turn.turn_accumulator import TurnAccumulator

TEXTS = st.text(max_size=6)
DELTAS = st.one_of(
    st.builds(deltas.OutputTextDelta, TEXTS, st.lists(st.integers(), max_size=2).map(tuple)),
    st.builds(deltas.ReasoningSummaryDelta, TEXTS),
    st.builds(deltas.RefusalTextDelta, TEXTS),
    st.builds(
        deltas.ToolCallDelta,
        st.integers(0, 2),
        st.sampled_from(["a", "b", "c"]),
        st.just("tool"),
        TEXTS,
    ),
)


def response_with(
    output: tuple[Item, ...], trace: tuple[int, ...] = (), odds: tuple[int, ...] = ()
) -> Response:
    end = End("completed", 2.0, trace=trace, logprob_counts=odds)
    return Response("resp_" + "0" * 32, 1.0, Header("m"), (Message("user", "Hi."),), output, end)


@given(st.lists(st.lists(DELTAS, max_size=8), max_size=4), st.booleans(), st.booleans())
def test_a_turn_is_told_again_as_it_was(
    rounds: list[list[deltas.Delta]], whole: bool, runs_tools: bool
) -> None:
    machine = TurnAccumulator()
    told: list[Event] = []
    for batch in rounds:
        told += machine.feed(batch)
        calls, ends = machine.end_round() if runs_tools else ([], [])
        told += ends
        for call in calls:
            told += machine.add_item(FunctionCallOutput(call.call_id, "done"))
        if runs_tools:
            told += machine.close(is_complete=True)
            machine.start_round()
    told += machine.close(is_complete=whole)
    response = response_with(machine.output, trace_of(told), logprob_counts(told, machine.output))
    opening = msgspec.structs.replace(response, output=(), end=None)
    again = list(map(_bare, replay_events(response)))
    assert again == [Created(opening), *map(_bare, told), Ended(response)]


def _bare(event: Event) -> Event:
    """An answer without words is a string or a part: what is shown of it is the same."""
    if isinstance(event, ItemAdded) and event.item == Message("assistant", (OutputText(""),)):
        return ItemAdded(event.index, Message("assistant", ""))
    return event


ODDS = ({"token": "a"}, {"token": "b"}, {"token": "c"})
TOLD = Message("assistant", (OutputText("abc", logprobs=ODDS),))


def odds_told(response: Response) -> list[tuple[object, ...]]:
    return [event.logprobs for event in replay_events(response) if isinstance(event, TextDelta)]


def test_odds_come_again_with_their_deltas() -> None:
    trace = (-1, 1, 2, -3, 1, -2, 0, -4, 0)
    other = Message("assistant", "d")
    output: tuple[Item, ...] = (TOLD, other)
    assert odds_told(response_with(output, trace, (1, 2, 0))) == [ODDS[:1], ODDS[1:], ()]
    assert odds_told(response_with(output, trace, (0, 3))) == [(), ODDS, ()]


def test_a_trace_of_before_has_none_and_no_trace_has_them_all() -> None:
    assert odds_told(response_with((TOLD,), (-1, 1, 2, 0))) == [(), ()]
    assert odds_told(response_with((Message("assistant", "a"), TOLD))) == [(), ODDS]
    assert logprob_counts([], [Message("assistant", "a")]) == ()
    assert msgspec.json.encode(End("completed", 2.0)) == (b'{"status":"completed","ended_at":2.0}')


def test_without_a_trace_each_item_comes_in_one_piece() -> None:
    items: tuple[Item, ...] = (
        Reasoning((SummaryText("Hm."),)),
        FunctionCall("c", "f", "{}"),
        FunctionCallOutput("c", "1"),
        Message("assistant", "One."),
        Message("assistant", (OutputText("a"), OutputText("b"))),
    )
    told = list(replay_events(response_with(items)))
    assert [type(event).__name__ for event in told] == [
        "Created",
        *("ItemAdded", "ReasoningDelta", "ItemDone"),
        *("ItemAdded", "ArgumentsDelta", "ItemDone"),
        *("ItemAdded", "ItemDone"),
        *("ItemAdded", "TextDelta", "ItemDone"),
        *("ItemAdded", "ItemDone"),
        "Ended",
    ]


def test_a_trace_of_items_that_have_changed_is_not_followed() -> None:
    trace = (-1, 2, 2, 0, -3, 1, 0)
    items = (Message("assistant", "Good"), Message("assistant", "!"))
    assert is_trace_of(trace, items)
    assert not is_trace_of(trace, (ErasedItem(), items[1]))
    told = list(replay_events(response_with((ErasedItem(), items[1]), trace)))
    assert [type(event).__name__ for event in told][1:3] == ["ItemAdded", "ItemDone"]


@given(st.lists(st.integers(-9, 9)))
def test_any_trace_can_be_told(trace: list[int]) -> None:
    response = response_with((Message("assistant", "Good day."),), tuple(trace))
    told = list(replay_events(response))
    assert isinstance(told[-1], Ended)
