"""Replay traces: the events of a stored turn equal the original events."""

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
from antiphon.core.replay_trace import (
    Rhythm,
    RhythmRecorder,
    is_trace_of,
    logprob_counts,
    read_rhythm,
    replay_events,
    trace_of,
)
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
    output: tuple[Item, ...], trace: tuple[int, ...] = (), counts: tuple[int, ...] = ()
) -> Response:
    end = End("completed", 2.0, trace=trace, logprob_counts=counts)
    return Response("resp_" + "0" * 32, 1.0, Header("m"), (Message("user", "Hi."),), output, end)


@given(st.lists(st.lists(DELTAS, max_size=8), max_size=4), st.booleans(), st.booleans())
def test_replayed_events_equal_the_original_events(
    rounds: list[list[deltas.Delta]], is_complete: bool, runs_tools: bool
) -> None:
    accumulator = TurnAccumulator()
    events: list[Event] = []
    for batch in rounds:
        events += accumulator.feed(batch)
        calls, end_events = accumulator.end_round() if runs_tools else ([], [])
        events += end_events
        for call in calls:
            events += accumulator.add_item(FunctionCallOutput(call.call_id, "done"))
        if runs_tools:
            events += accumulator.close(is_complete=True)
            accumulator.start_round()
    events += accumulator.close(is_complete=is_complete)
    response = response_with(
        accumulator.output, trace_of(events), logprob_counts(events, accumulator.output)
    )
    initial = msgspec.structs.replace(response, output=(), end=None)
    replayed = list(map(_bare, replay_events(response)))
    assert replayed == [Created(initial), *map(_bare, events), Ended(response)]


def _bare(event: Event) -> Event:
    """An empty answer is a string or a part: both are equal to readers."""
    if isinstance(event, ItemAdded) and event.item == Message("assistant", (OutputText(""),)):
        return ItemAdded(event.index, Message("assistant", ""))
    return event


LOGPROBS = ({"token": "a"}, {"token": "b"}, {"token": "c"})
ANSWER = Message("assistant", (OutputText("abc", logprobs=LOGPROBS),))


def replayed_logprobs(response: Response) -> list[tuple[object, ...]]:
    return [event.logprobs for event in replay_events(response) if isinstance(event, TextDelta)]


def test_logprobs_are_replayed_with_their_deltas() -> None:
    trace = (-1, 1, 2, -3, 1, -2, 0, -4, 0)
    other = Message("assistant", "d")
    output: tuple[Item, ...] = (ANSWER, other)
    assert replayed_logprobs(response_with(output, trace, (1, 2, 0))) == [
        LOGPROBS[:1],
        LOGPROBS[1:],
        (),
    ]
    assert replayed_logprobs(response_with(output, trace, (0, 3))) == [(), LOGPROBS, ()]


def test_logprobs_without_counts_or_without_a_trace() -> None:
    assert replayed_logprobs(response_with((ANSWER,), (-1, 1, 2, 0))) == [(), ()]
    assert replayed_logprobs(response_with((Message("assistant", "a"), ANSWER))) == [(), LOGPROBS]
    assert logprob_counts([], [Message("assistant", "a")]) == ()
    assert msgspec.json.encode(End("completed", 2.0)) == (b'{"status":"completed","ended_at":2.0}')


def test_without_a_trace_each_item_is_one_delta() -> None:
    items: tuple[Item, ...] = (
        Reasoning((SummaryText("Hm."),)),
        FunctionCall("c", "f", "{}"),
        FunctionCallOutput("c", "1"),
        Message("assistant", "One."),
        Message("assistant", (OutputText("a"), OutputText("b"))),
    )
    events = list(replay_events(response_with(items)))
    assert [type(event).__name__ for event in events] == [
        "Created",
        *("ItemAdded", "ReasoningDelta", "ItemDone"),
        *("ItemAdded", "ArgumentsDelta", "ItemDone"),
        *("ItemAdded", "ItemDone"),
        *("ItemAdded", "TextDelta", "ItemDone"),
        *("ItemAdded", "ItemDone"),
        "Ended",
    ]


def test_trace_of_changed_items_is_ignored() -> None:
    trace = (-1, 2, 2, 0, -3, 1, 0)
    items = (Message("assistant", "Good"), Message("assistant", "!"))
    assert is_trace_of(trace, items)
    assert not is_trace_of(trace, (ErasedItem(), items[1]))
    events = list(replay_events(response_with((ErasedItem(), items[1]), trace)))
    assert [type(event).__name__ for event in events][1:3] == ["ItemAdded", "ItemDone"]


@given(st.lists(st.integers(-9, 9)))
def test_any_trace_can_be_replayed(trace: list[int]) -> None:
    response = response_with((Message("assistant", "Good day."),), tuple(trace))
    events = list(replay_events(response))
    assert isinstance(events[-1], Ended)


def test_rhythm_tells_when_text_came() -> None:
    # The turn began, a thought came, and then "Hel", "lo" and "." at these times.
    recorder = RhythmRecorder(began=10.0)
    for moment, count in ((10.0, 0), (10.304, 1), (10.5, 4), (10.54, 5), (12.0, 6), (12.1, 7)):
        recorder.note(moment, count)
    rhythm = recorder.rhythm
    assert rhythm == (0, 0, 1, 30, 3, 20, 2, 150, 1, 10)
    trace = (-1, 3, 0, -3, 3, 2, 1, 0)
    output = (Reasoning((SummaryText("Hm."),)), Message("assistant", (OutputText("Hello."),)))
    end = End("completed", 2.0, trace=trace, rhythm=rhythm)
    response = Response("resp_1", 1.0, Header("model"), (), output, end)
    beats = [(0.0, 0), (0.3, 0), (0.5, 0), (2.0, 1), (2.1, 2)]
    assert read_rhythm(response) == Rhythm(beats, first_word_after=0.5)
    # One that came with an imported chat may say anything.
    stranger = msgspec.structs.replace(end, rhythm=(-9, 0, 99, 50))
    strange = msgspec.structs.replace(response, end=stranger)
    assert read_rhythm(strange) == Rhythm([(0.0, 0), (0.5, 3)], first_word_after=0.0)
    silent = msgspec.structs.replace(end, trace=(-1, 3, 0))
    thought = msgspec.structs.replace(response, output=output[:1], end=silent)
    assert read_rhythm(thought).first_word_after is None
    for other in (End("completed", 2.0, trace=trace), End("completed", 2.0, rhythm=rhythm)):
        unknown = msgspec.structs.replace(response, end=other)
        assert read_rhythm(unknown) == Rhythm()
