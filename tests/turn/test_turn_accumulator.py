"""The turn accumulator: the same text and calls make the same items, however they are split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    Finish,
    ForeignItemDelta,
    ItemEnd,
    ItemSwitch,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
    TextCorrection,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.events import (
    ArgumentsDelta,
    Event,
    ItemAdded,
    ItemDone,
    RawReasoningDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from antiphon.core.items import (
    ForeignItem,
    FunctionCall,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
)
from antiphon.core.turns import Usage
from antiphon.turn.turn_accumulator import TurnAccumulator, TurnOutcome

#: A slow run on a loaded computer is not a failure.
no_deadline = settings(deadline=None)

TEXT_DELTAS = (OutputTextDelta, ReasoningSummaryDelta, ReasoningTextDelta, RefusalTextDelta)
_CALL_FRAGMENTS = st.builds(
    ToolCallDelta,
    st.integers(0, 3),
    st.none() | st.sampled_from(["", "a", "b"]),
    st.none() | st.sampled_from(["", "f", "g"]),
    st.text(max_size=3),
)
_USAGE_UPDATES = st.builds(UsageUpdate, st.builds(Usage, st.integers(0, 9)))
DELTAS: st.SearchStrategy[Delta] = st.one_of(
    *(st.builds(kind, st.text(max_size=3)) for kind in TEXT_DELTAS), _CALL_FRAGMENTS, _USAGE_UPDATES
)


def item_of(kind: type, text: str) -> Item:
    """The item that text of one delta type becomes."""
    if kind is OutputTextDelta:
        return Message("assistant", text)
    if kind is RefusalTextDelta:
        return Message("assistant", (Refusal(text),))
    if kind is ReasoningTextDelta:
        return Reasoning(content=(ReasoningText(text),))
    return Reasoning((SummaryText(text),))


def text_in(item: Item) -> str:
    match item:
        case Message(content=str(text)) | FunctionCall(arguments=text):
            return text
        case Message(content=(Refusal(text),)) | Reasoning(summary=(SummaryText(text),)):
            return text
        case Reasoning(content=(ReasoningText(text),)):
            return text
    raise AssertionError(f"no text in {item}")


def accumulate(
    deltas: Sequence[Delta], cuts: Sequence[int] = ()
) -> tuple[TurnAccumulator, list[Event]]:
    """A closed accumulator that got ``deltas``, in batches that begin at ``cuts``."""
    accumulator, events = TurnAccumulator(), []
    edges = [0, *sorted(min(cut, len(deltas)) for cut in cuts), len(deltas)]
    for start, end in pairwise(edges):
        events += accumulator.feed(deltas[start:end])
    events += accumulator.close(is_complete=True)
    return accumulator, events


@st.composite
def split_text(draw: st.DrawFn, texts: Sequence[tuple[type, str]]) -> list[Delta]:
    """The same text, in deltas of any size, including empty ones."""
    deltas: list[Delta] = []
    for kind, text in texts:
        cuts = draw(st.lists(st.integers(0, len(text)), max_size=4))
        edges = [0, *sorted(cuts), len(text)]
        deltas += [kind(text[a:b]) for a, b in pairwise(edges)]
    return deltas


@no_deadline
@given(
    st.data(), st.lists(st.tuples(st.sampled_from(TEXT_DELTAS), st.text(max_size=8)), max_size=6)
)
def test_text_items_do_not_depend_on_delta_boundaries(
    data: st.DataObject, texts: list[tuple[type, str]]
) -> None:
    runs: list[tuple[type, str]] = []
    for kind, text in texts:
        if not text:
            continue
        if runs and runs[-1][0] is kind:
            runs[-1] = (kind, runs[-1][1] + text)
        else:
            runs.append((kind, text))
    deltas = data.draw(split_text(texts))
    cuts = data.draw(st.lists(st.integers(0, 20), max_size=4))
    accumulator, _ = accumulate(deltas, cuts)
    assert list(accumulator.output) == [item_of(kind, text) for kind, text in runs]


def arguments_of(text: str) -> str:
    """The arguments of a complete call: blank ones become an empty object."""
    return text if text.strip() else "{}"


@no_deadline
@given(st.data(), st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_calls_do_not_depend_on_fragment_interleaving(
    data: st.DataObject, arguments: list[str]
) -> None:
    """Fragments of one call come in order; those of several calls interleave."""
    queues: list[list[ToolCallDelta]] = []
    for index, text in enumerate(arguments):
        cut = data.draw(st.integers(0, len(text)))
        queues.append(
            [
                ToolCallDelta(index, f"id{index}", f"f{index}", text[:cut]),
                ToolCallDelta(index, arguments=text[cut:]),
            ]
        )
    order: list[int] = []
    deltas: list[Delta] = []
    while waiting := [number for number, queue in enumerate(queues) if queue]:
        number = data.draw(st.sampled_from(waiting))
        deltas.append(queues[number].pop(0))
        if number not in order:
            order.append(number)
    accumulator, _ = accumulate(deltas, data.draw(st.lists(st.integers(0, 8), max_size=3)))
    assert list(accumulator.output) == [
        FunctionCall(f"id{number}", f"f{number}", arguments_of(arguments[number]))
        for number in order
    ]


@no_deadline
@given(st.lists(DELTAS, max_size=25), st.lists(st.integers(0, 25), max_size=5))
def test_events_cover_each_item_from_added_to_done(deltas: list[Delta], cuts: list[int]) -> None:
    accumulator, events = accumulate(deltas, cuts)
    shells: dict[int, Item] = {}
    texts_by_index: dict[int, list[str]] = {}
    done: dict[int, Item] = {}
    for event in events:
        match event:
            case ItemAdded(index, item):
                assert index == len(shells), "items are numbered in the order they begin"
                shells[index], texts_by_index[index] = item, []
                assert text_in(item) == ""
            case ItemDone(index, item):
                assert index not in done
                assert type(item) is type(shells[index])
                done[index] = item
            case (
                TextDelta()
                | ReasoningDelta()
                | RawReasoningDelta()
                | RefusalDelta()
                | ArgumentsDelta()
            ):
                assert event.index not in done
                assert event.text
                texts_by_index[event.index].append(event.text)
    assert [done[index] for index in range(len(shells))] == list(accumulator.output)
    assert ["".join(texts_by_index[index]) for index in texts_by_index] == [
        text_in(item) for item in accumulator.output
    ]
    for index, item in done.items():
        shell = shells[index]
        if isinstance(item, FunctionCall) and isinstance(shell, FunctionCall):
            assert item.call_id == shell.call_id, "an id that was announced stays"


@no_deadline
@given(st.lists(DELTAS, max_size=25))
def test_no_text_or_argument_is_lost_or_reordered(deltas: list[Delta]) -> None:
    accumulator, _ = accumulate(deltas)
    for kind in TEXT_DELTAS:
        sent_text = "".join(one.text for one in deltas if isinstance(one, kind))
        stored_text = "".join(
            text_in(item) for item in accumulator.output if item == item_of(kind, text_in(item))
        )
        assert stored_text == sent_text
    calls = [one for one in deltas if isinstance(one, ToolCallDelta)]
    # A call begins with its name; one that never gets a name comes last.
    named = [one.index for one in calls if one.name]
    order = list(dict.fromkeys((*named, *(one.index for one in calls))))
    expected = [
        arguments_of("".join(one.arguments for one in calls if one.index == at)) for at in order
    ]
    calls_made = [item for item in accumulator.output if isinstance(item, FunctionCall)]
    assert [call.arguments for call in calls_made] == expected
    assert len({call.call_id for call in calls_made}) == len(calls_made)
    assert all(call.call_id for call in calls_made)


@no_deadline
@given(st.lists(st.lists(DELTAS, max_size=5), max_size=8), st.sets(st.integers(0, 8)))
def test_completed_items_are_popped_once_and_in_order(
    batches: list[list[Delta]], pops: set[int]
) -> None:
    accumulator, popped, ended = TurnAccumulator(), [], set()
    for number, batch in enumerate(batches):
        events = accumulator.feed(batch)
        ended |= {event.index for event in events if isinstance(event, ItemDone)}
        if number in pops:
            popped += accumulator.pop_completed_items()
            assert set(range(len(popped))) <= ended, "no unfinished item, and none out of order"
    accumulator.close(is_complete=True)
    popped += accumulator.pop_completed_items()
    assert tuple(popped) == accumulator.output
    assert accumulator.pop_completed_items() == []


def test_item_after_an_unfinished_call_is_not_popped() -> None:
    accumulator = TurnAccumulator()
    accumulator.feed(
        [ToolCallDelta(0, "a", "f", "{"), OutputTextDelta("Well."), ReasoningSummaryDelta("Hm.")]
    )
    assert accumulator.output == (Message("assistant", "Well."),)
    assert accumulator.pop_completed_items() == []
    accumulator.feed([ToolCallDelta(0, arguments="}")])
    accumulator.close(is_complete=True)
    assert accumulator.pop_completed_items() == [
        FunctionCall("a", "f", "{}"),
        Message("assistant", "Well."),
        Reasoning((SummaryText("Hm."),)),
    ]


def test_only_the_unfinished_item_is_marked_incomplete() -> None:
    accumulator = TurnAccumulator()
    accumulator.feed(
        [ReasoningSummaryDelta("Hm."), OutputTextDelta("We"), ToolCallDelta(0, "a", "f", "{")]
    )
    accumulator.close(is_complete=False)
    assert accumulator.output == (
        Reasoning((SummaryText("Hm."),)),
        Message("assistant", "We"),
        FunctionCall("a", "f", "{", "incomplete"),
    )


@pytest.mark.parametrize(
    ("reason", "status", "outcome"),
    [
        ("stop", "completed", TurnOutcome("completed")),
        ("tool_calls", "completed", TurnOutcome("completed")),
        ("length", "incomplete", TurnOutcome("incomplete", "max_output_tokens")),
        ("content_filter", "incomplete", TurnOutcome("incomplete", "content_filter")),
    ],
)
def test_finish_reason_maps_to_outcome_and_status(
    reason: Any, status: Any, outcome: TurnOutcome
) -> None:
    accumulator = TurnAccumulator()
    assert accumulator.finish_reason is None
    accumulator.feed([OutputTextDelta("Well"), Finish(reason)])
    assert accumulator.finish_reason == reason
    assert accumulator.outcome() == outcome
    events = accumulator.close(is_complete=True)
    assert events == [ItemDone(0, Message("assistant", "Well", status=status))]


def test_duplicate_call_id_is_replaced() -> None:
    """Otherwise an output could belong to either."""
    accumulator = TurnAccumulator()
    accumulator.feed([ToolCallDelta(0, "same", "f", "1"), ToolCallDelta(1, "same", "g", "2")])
    accumulator.feed(
        [ToolCallDelta(0, "same", arguments="1"), ToolCallDelta(1, "same", arguments="2")]
    )
    accumulator.close(is_complete=True)
    first, second = accumulator.output
    assert first == FunctionCall("same", "f", "11")
    assert isinstance(second, FunctionCall)
    assert (second.name, second.arguments) == ("g", "22")
    assert second.call_id not in ("same", "")


@pytest.mark.parametrize("given_id", [None, ""])
def test_call_without_an_id_gets_one_and_keeps_it(given_id: str | None) -> None:
    accumulator = TurnAccumulator()
    (added,) = accumulator.feed([ToolCallDelta(0, given_id, "f")])
    accumulator.feed([ToolCallDelta(0, "late", None, "{}")])
    (done,) = accumulator.close(is_complete=True)
    assert isinstance(added, ItemAdded)
    assert isinstance(done, ItemDone)
    assert isinstance(added.item, FunctionCall)
    assert added.item.call_id.startswith("call_")
    assert done.item == FunctionCall(added.item.call_id, "f", "{}")


def test_late_function_name_is_used() -> None:
    accumulator = TurnAccumulator()
    accumulator.feed(
        [ToolCallDelta(0, "a"), ToolCallDelta(0, name="f"), ToolCallDelta(0, name="ignored")]
    )
    accumulator.close(is_complete=True)
    assert accumulator.output == (FunctionCall("a", "f", "{}"),)


@pytest.mark.parametrize("fragments", [[], [""], [" "], ["", "\n", " "]])
def test_call_without_arguments_has_an_empty_object(fragments: list[str]) -> None:
    deltas = [ToolCallDelta(0, "a", "f"), *(ToolCallDelta(0, arguments=one) for one in fragments)]
    accumulator, events = accumulate(deltas)
    assert accumulator.output == (FunctionCall("a", "f", "{}"),)
    assert [one.text for one in events if isinstance(one, ArgumentsDelta)] == ["{}"]


def test_whitespace_before_arguments_is_kept() -> None:
    accumulator, events = accumulate(
        [ToolCallDelta(0, "a", "f", " "), ToolCallDelta(0, arguments="{}")]
    )
    assert accumulator.output == (FunctionCall("a", "f", " {}"),)
    assert [one.text for one in events if isinstance(one, ArgumentsDelta)] == [" {}"]


def test_truncated_call_without_arguments_has_empty_arguments() -> None:
    accumulator = TurnAccumulator()
    accumulator.feed([ToolCallDelta(0, "a", "f", " ")])
    accumulator.close(is_complete=False)
    assert accumulator.output == (FunctionCall("a", "f", "", "incomplete"),)


def test_call_id_used_in_the_context_is_replaced() -> None:
    accumulator = TurnAccumulator()
    accumulator.set_context([b'{"role":"assistant","tool_calls":[{"id":"a","type":"function"}]}'])
    accumulator.feed([ToolCallDelta(0, "a", "f"), ToolCallDelta(1, "b", "f")])
    accumulator.close(is_complete=True)
    first, second = (item for item in accumulator.output if isinstance(item, FunctionCall))
    assert first.call_id != "a"
    assert second.call_id == "b"


def test_annotations_and_logprobs_stay_with_their_answer() -> None:
    logprobs = ({"token": "a"}, {"token": "b"})
    source = {"type": "url_citation", "url": "u"}
    accumulator, events = accumulate(
        [
            AnnotationDelta(source),
            OutputTextDelta("a", logprobs[:1]),
            AnnotationDelta(source),
            OutputTextDelta("b", logprobs[1:]),
            ReasoningSummaryDelta("c"),
        ]
    )
    assert [event for event in events if isinstance(event, TextDelta)] == [
        TextDelta(0, "a", logprobs[:1]),
        TextDelta(0, "b", logprobs[1:]),
    ]
    # An annotation before any answer text is dropped.
    answer = Message("assistant", (OutputText("ab", (source,), logprobs),))
    assert accumulator.output == (answer, Reasoning((SummaryText("c"),)))


def test_last_usage_update_wins() -> None:
    accumulator, events = accumulate(
        [UsageUpdate(Usage(1, 1)), OutputTextDelta("Hi."), UsageUpdate(Usage(5, 2))]
    )
    assert accumulator.usage == Usage(5, 2)
    assert len(events) == 3
    assert accumulate([OutputTextDelta("Hi.")])[0].usage is None


def test_round_is_empty_until_the_first_content() -> None:
    accumulator = TurnAccumulator()
    accumulator.feed([OutputTextDelta(""), UsageUpdate(Usage(1)), Finish("stop")])
    assert accumulator.is_round_empty
    assert accumulator.close(is_complete=True) == []
    assert accumulator.output == ()
    accumulator = TurnAccumulator()
    accumulator.feed([ToolCallDelta(0, "a", "f")])
    assert not accumulator.is_round_empty


def test_interleaved_items_stay_separate() -> None:
    turn = TurnAccumulator()
    events = turn.feed(
        [
            *(OutputTextDelta("a"), ItemSwitch(1), ReasoningTextDelta("x"), ItemSwitch(0)),
            *(OutputTextDelta("b"), ItemSwitch(2), ToolCallDelta(0, "c", "f", "{}")),
            *(ItemSwitch(1), ReasoningTextDelta("y"), ItemEnd(), OutputTextDelta("c")),
        ]
    )
    events += turn.close(is_complete=True)
    assert turn.output == (
        Message("assistant", "ab"),
        Reasoning(content=(ReasoningText("xy"),)),
        FunctionCall("c", "f", "{}"),
        Message("assistant", "c"),
    )
    assert sum(isinstance(event, ItemAdded) for event in events) == 4
    assert sum(isinstance(event, ItemDone) for event in events) == 4


def test_text_correction_replaces_text_and_arguments() -> None:
    turn = TurnAccumulator()
    turn.feed([TextCorrection("nothing is open"), OutputTextDelta("Helo"), TextCorrection("Hello")])
    turn.feed([ToolCallDelta(0, "c", "f", "{"), TextCorrection("{}", 0), TextCorrection("{}", 1)])
    turn.close(is_complete=True)
    assert turn.output == (Message("assistant", "Hello"), FunctionCall("c", "f", "{}"))


def test_foreign_item_is_passed_through_unchanged() -> None:
    turn = TurnAccumulator()
    body = {"type": "web_search_call", "id": "ws_1", "action": {"query": "a"}}
    events = turn.feed([OutputTextDelta("a"), ForeignItemDelta(body), OutputTextDelta("b")])
    turn.close(is_complete=True)
    assert turn.output == (
        Message("assistant", "a"),
        ForeignItem(body),
        Message("assistant", "b"),
    )
    assert ItemDone(1, ForeignItem(body)) in events
