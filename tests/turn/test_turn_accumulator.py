"""The machine: whatever way a model speaks, the same words make the same items."""

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

#: A busy machine proves nothing against the code.
unhurried = settings(deadline=None)

PROSE = (OutputTextDelta, ReasoningSummaryDelta, ReasoningTextDelta, RefusalTextDelta)
_PIECES = st.builds(
    ToolCallDelta,
    st.integers(0, 3),
    st.none() | st.sampled_from(["", "a", "b"]),
    st.none() | st.sampled_from(["", "f", "g"]),
    st.text(max_size=3),
)
_USED = st.builds(UsageUpdate, st.builds(Usage, st.integers(0, 9)))
DELTAS: st.SearchStrategy[Delta] = st.one_of(
    *(st.builds(kind, st.text(max_size=3)) for kind in PROSE), _PIECES, _USED
)


def item_of(kind: type, text: str) -> Item:
    """What prose of one kind becomes."""
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


def fed(deltas: Sequence[Delta], cuts: Sequence[int] = ()) -> tuple[TurnAccumulator, list[Event]]:
    """A closed machine that was fed ``deltas``, in batches that begin at ``cuts``."""
    machine, events = TurnAccumulator(), []
    edges = [0, *sorted(min(cut, len(deltas)) for cut in cuts), len(deltas)]
    for start, end in pairwise(edges):
        events += machine.feed(deltas[start:end])
    events += machine.close(is_complete=True)
    return machine, events


@st.composite
def split(draw: st.DrawFn, texts: Sequence[tuple[type, str]]) -> list[Delta]:
    """The same prose, in deltas of any size, empty ones included."""
    deltas: list[Delta] = []
    for kind, text in texts:
        cuts = draw(st.lists(st.integers(0, len(text)), max_size=4))
        edges = [0, *sorted(cuts), len(text)]
        deltas += [kind(text[a:b]) for a, b in pairwise(edges)]
    return deltas


@unhurried
@given(st.data(), st.lists(st.tuples(st.sampled_from(PROSE), st.text(max_size=8)), max_size=6))
def test_prose_is_the_same_however_it_is_split(
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
    deltas = data.draw(split(texts))
    cuts = data.draw(st.lists(st.integers(0, 20), max_size=4))
    machine, _ = fed(deltas, cuts)
    assert list(machine.output) == [item_of(kind, text) for kind, text in runs]


def arguments_of(text: str) -> str:
    """The arguments of a whole call: none are an empty object."""
    return text if text.strip() else "{}"


@unhurried
@given(st.data(), st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_calls_are_the_same_however_their_fragments_interleave(
    data: st.DataObject, arguments: list[str]
) -> None:
    """Fragments of one call come in order; those of several mix at will."""
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
    machine, _ = fed(deltas, data.draw(st.lists(st.integers(0, 8), max_size=3)))
    assert list(machine.output) == [
        FunctionCall(f"id{number}", f"f{number}", arguments_of(arguments[number]))
        for number in order
    ]


@unhurried
@given(st.lists(DELTAS, max_size=25), st.lists(st.integers(0, 25), max_size=5))
def test_events_tell_of_each_item_from_its_start_to_its_end(
    deltas: list[Delta], cuts: list[int]
) -> None:
    machine, events = fed(deltas, cuts)
    shells: dict[int, Item] = {}
    heard: dict[int, list[str]] = {}
    done: dict[int, Item] = {}
    for event in events:
        match event:
            case ItemAdded(index, item):
                assert index == len(shells), "items are numbered in the order they begin"
                shells[index], heard[index] = item, []
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
                heard[event.index].append(event.text)
    assert [done[index] for index in range(len(shells))] == list(machine.output)
    assert ["".join(heard[index]) for index in heard] == [text_in(item) for item in machine.output]
    for index, item in done.items():
        shell = shells[index]
        if isinstance(item, FunctionCall) and isinstance(shell, FunctionCall):
            assert item.call_id == shell.call_id, "an id that was announced stays"


@unhurried
@given(st.lists(DELTAS, max_size=25))
def test_nothing_that_was_said_is_lost_or_changes_its_order(deltas: list[Delta]) -> None:
    machine, _ = fed(deltas)
    for kind in PROSE:
        said = "".join(one.text for one in deltas if isinstance(one, kind))
        kept = "".join(
            text_in(item) for item in machine.output if item == item_of(kind, text_in(item))
        )
        assert kept == said
    calls = [one for one in deltas if isinstance(one, ToolCallDelta)]
    # A call begins with its name; one that never gets any comes last.
    named = [one.index for one in calls if one.name]
    order = list(dict.fromkeys((*named, *(one.index for one in calls))))
    expected = [
        arguments_of("".join(one.arguments for one in calls if one.index == at)) for at in order
    ]
    made = [item for item in machine.output if isinstance(item, FunctionCall)]
    assert [call.arguments for call in made] == expected
    assert len({call.call_id for call in made}) == len(made)
    assert all(call.call_id for call in made)


@unhurried
@given(st.lists(st.lists(DELTAS, max_size=5), max_size=8), st.sets(st.integers(0, 8)))
def test_finished_items_are_taken_once_and_in_order(
    batches: list[list[Delta]], looks: set[int]
) -> None:
    machine, taken, ended = TurnAccumulator(), [], set()
    for number, batch in enumerate(batches):
        events = machine.feed(batch)
        ended |= {event.index for event in events if isinstance(event, ItemDone)}
        if number in looks:
            taken += machine.pop_completed_items()
            assert set(range(len(taken))) <= ended, "none that still grows, none before its turn"
    machine.close(is_complete=True)
    taken += machine.pop_completed_items()
    assert tuple(taken) == machine.output
    assert machine.pop_completed_items() == []


def test_an_item_behind_one_that_grows_waits() -> None:
    machine = TurnAccumulator()
    machine.feed(
        [ToolCallDelta(0, "a", "f", "{"), OutputTextDelta("Well."), ReasoningSummaryDelta("Hm.")]
    )
    assert machine.output == (Message("assistant", "Well."),)
    assert machine.pop_completed_items() == []
    machine.feed([ToolCallDelta(0, arguments="}")])
    machine.close(is_complete=True)
    assert machine.pop_completed_items() == [
        FunctionCall("a", "f", "{}"),
        Message("assistant", "Well."),
        Reasoning((SummaryText("Hm."),)),
    ]


def test_what_is_cut_off_is_marked_and_what_was_over_is_not() -> None:
    machine = TurnAccumulator()
    machine.feed(
        [ReasoningSummaryDelta("Hm."), OutputTextDelta("We"), ToolCallDelta(0, "a", "f", "{")]
    )
    machine.close(is_complete=False)
    assert machine.output == (
        Reasoning((SummaryText("Hm."),)),
        Message("assistant", "We"),
        FunctionCall("a", "f", "{", "incomplete"),
    )


@pytest.mark.parametrize(
    ("reason", "status", "verdict"),
    [
        ("stop", "completed", TurnOutcome("completed")),
        ("tool_calls", "completed", TurnOutcome("completed")),
        ("length", "incomplete", TurnOutcome("incomplete", "max_output_tokens")),
        ("content_filter", "incomplete", TurnOutcome("incomplete", "content_filter")),
    ],
)
def test_why_the_model_stopped(reason: Any, status: Any, verdict: TurnOutcome) -> None:
    machine = TurnAccumulator()
    assert machine.finish_reason is None
    machine.feed([OutputTextDelta("Well"), Finish(reason)])
    assert machine.finish_reason == reason
    assert machine.outcome() == verdict
    events = machine.close(is_complete=True)
    assert events == [ItemDone(0, Message("assistant", "Well", status=status))]


def test_two_calls_never_share_an_id() -> None:
    """An output could not be told which of them it is for."""
    machine = TurnAccumulator()
    machine.feed([ToolCallDelta(0, "same", "f", "1"), ToolCallDelta(1, "same", "g", "2")])
    machine.feed([ToolCallDelta(0, "same", arguments="1"), ToolCallDelta(1, "same", arguments="2")])
    machine.close(is_complete=True)
    first, second = machine.output
    assert first == FunctionCall("same", "f", "11")
    assert isinstance(second, FunctionCall)
    assert (second.name, second.arguments) == ("g", "22")
    assert second.call_id not in ("same", "")


@pytest.mark.parametrize("given_id", [None, ""])
def test_a_call_without_an_id_gets_one_and_keeps_it(given_id: str | None) -> None:
    machine = TurnAccumulator()
    (added,) = machine.feed([ToolCallDelta(0, given_id, "f")])
    machine.feed([ToolCallDelta(0, "late", None, "{}")])
    (done,) = machine.close(is_complete=True)
    assert isinstance(added, ItemAdded)
    assert isinstance(done, ItemDone)
    assert isinstance(added.item, FunctionCall)
    assert added.item.call_id.startswith("call_")
    assert done.item == FunctionCall(added.item.call_id, "f", "{}")


def test_a_name_that_comes_late_still_comes() -> None:
    machine = TurnAccumulator()
    machine.feed(
        [ToolCallDelta(0, "a"), ToolCallDelta(0, name="f"), ToolCallDelta(0, name="ignored")]
    )
    machine.close(is_complete=True)
    assert machine.output == (FunctionCall("a", "f", "{}"),)


@pytest.mark.parametrize("pieces", [[], [""], [" "], ["", "\n", " "]])
def test_a_call_without_arguments_has_an_empty_object(pieces: list[str]) -> None:
    deltas = [ToolCallDelta(0, "a", "f"), *(ToolCallDelta(0, arguments=one) for one in pieces)]
    machine, events = fed(deltas)
    assert machine.output == (FunctionCall("a", "f", "{}"),)
    assert [one.text for one in events if isinstance(one, ArgumentsDelta)] == ["{}"]


def test_white_space_before_arguments_stays() -> None:
    machine, events = fed([ToolCallDelta(0, "a", "f", " "), ToolCallDelta(0, arguments="{}")])
    assert machine.output == (FunctionCall("a", "f", " {}"),)
    assert [one.text for one in events if isinstance(one, ArgumentsDelta)] == [" {}"]


def test_a_call_that_was_cut_before_its_arguments_has_none() -> None:
    machine = TurnAccumulator()
    machine.feed([ToolCallDelta(0, "a", "f", " ")])
    machine.close(is_complete=False)
    assert machine.output == (FunctionCall("a", "f", "", "incomplete"),)


def test_the_id_of_a_call_in_the_context_is_taken() -> None:
    machine = TurnAccumulator()
    machine.set_context(b'[{"role":"assistant","tool_calls":[{"id":"a","type":"function"}]}]')
    machine.feed([ToolCallDelta(0, "a", "f"), ToolCallDelta(1, "b", "f")])
    machine.close(is_complete=True)
    first, second = (item for item in machine.output if isinstance(item, FunctionCall))
    assert first.call_id != "a"
    assert second.call_id == "b"


def test_sources_and_odds_stay_with_their_answer() -> None:
    odds = ({"token": "a"}, {"token": "b"})
    source = {"type": "url_citation", "url": "u"}
    machine, events = fed(
        [
            AnnotationDelta(source),
            OutputTextDelta("a", odds[:1]),
            AnnotationDelta(source),
            OutputTextDelta("b", odds[1:]),
            ReasoningSummaryDelta("c"),
        ]
    )
    assert [event for event in events if isinstance(event, TextDelta)] == [
        TextDelta(0, "a", odds[:1]),
        TextDelta(0, "b", odds[1:]),
    ]
    # What is cited before there is an answer is cited by nothing.
    answer = Message("assistant", (OutputText("ab", (source,), odds),))
    assert machine.output == (answer, Reasoning((SummaryText("c"),)))


def test_the_last_count_of_tokens_holds() -> None:
    machine, events = fed(
        [UsageUpdate(Usage(1, 1)), OutputTextDelta("Hi."), UsageUpdate(Usage(5, 2))]
    )
    assert machine.usage == Usage(5, 2)
    assert len(events) == 3
    assert fed([OutputTextDelta("Hi.")])[0].usage is None


def test_a_model_is_silent_until_it_says_something() -> None:
    machine = TurnAccumulator()
    machine.feed([OutputTextDelta(""), UsageUpdate(Usage(1)), Finish("stop")])
    assert machine.is_round_empty
    assert machine.close(is_complete=True) == []
    assert machine.output == ()
    machine = TurnAccumulator()
    machine.feed([ToolCallDelta(0, "a", "f")])
    assert not machine.is_round_empty


def test_answers_that_are_written_in_turn_stay_apart() -> None:
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


def test_a_correction_replaces_a_text() -> None:
    turn = TurnAccumulator()
    turn.feed([TextCorrection("nothing is open"), OutputTextDelta("Helo"), TextCorrection("Hello")])
    turn.feed([ToolCallDelta(0, "c", "f", "{"), TextCorrection("{}", 0), TextCorrection("{}", 1)])
    turn.close(is_complete=True)
    assert turn.output == (Message("assistant", "Hello"), FunctionCall("c", "f", "{}"))


def test_an_item_that_only_its_server_understands_stays_as_it_is() -> None:
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
