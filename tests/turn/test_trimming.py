"""What of a long history fits: whole turns, the newest first, and never half of a tool call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.context_policies import ContextPolicy, Summarize, TokenBudget, Window
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
)
from antiphon.core.turns import FunctionTool, Header, Options
from antiphon.errors import ContextLengthExceededError
from antiphon.turn.message_rendering import RenderedTurn, build_messages, render_turn
from antiphon.turn.trimming import (
    apply_policies,
    apply_summaries,
    base_tokens,
    budget_of,
    check_budget,
    drop_oldest_turns,
    estimate_tokens,
    has_unsummarized_turns,
    insert_summary,
    required_turns,
    should_summarize,
    split_for_summary,
    tokens_of,
    trim_by_ratio,
)
from support.chain_strategies import (
    check_well_formed,
    check_whole_turns,
    groups_of,
    histories,
    with_role,
)

unhurried = settings(deadline=None)


def tokens(segments: Sequence[RenderedTurn]) -> int:
    return sum(map(tokens_of, segments))


def turn_of(
    text: str, answer: str = "Yes.", *, system: str | None = None, took: int = 10
) -> RenderedTurn:
    before = [Message("system", system)] if system else []
    segment = render_turn([*before, Message("user", text), Message("assistant", answer)])
    return msgspec.structs.replace(segment, tokens=took)


def users(shown: Sequence[RenderedTurn]) -> list[Any]:
    return with_role(check_well_formed(build_messages(shown)), "user")


ASKED = msgspec.structs.replace(
    render_turn([Message("user", "a"), FunctionCall("c", "f", "{}")]), tokens=10
)
ANSWERED = msgspec.structs.replace(
    render_turn([FunctionCallOutput("c", "1"), Message("assistant", "b")]), tokens=10
)


#: What comes after a history that may end in calls.
NEXT = render_turn([Message("user", "And?")])


# Windows.


@unhurried
@given(histories(), st.integers(1, 20))
def test_a_window_shows_as_many_turns_as_it_holds(
    everything: list[RenderedTurn], most: int
) -> None:
    shown = check_whole_turns(everything, apply_policies(everything, [Window(most)], 0))
    groups = groups_of(shown)
    count = sum(one.message_count for one in shown)
    assert count <= most or len(groups) == 1
    older = groups_of(everything)[: -len(groups)]
    assert everything[len(everything) - len(shown) :] == shown, "the newest, without a hole"
    if older:
        assert count + sum(one.message_count for one in older[-1]) > most, (
            "one more would have fitted"
        )


@unhurried
@given(histories())
def test_a_turn_counts_the_messages_that_are_shown_of_it(everything: list[RenderedTurn]) -> None:
    messages = check_well_formed(build_messages(everything))
    assert sum(one.message_count for one in everything) == len(messages) - len(
        with_role(messages, "system")
    )


def test_a_window_never_parts_a_call_from_its_output() -> None:
    assert apply_policies([turn_of("old"), ASKED, ANSWERED], [Window(1)], 0) == [ASKED, ANSWERED]
    newest = turn_of("new")
    assert apply_policies([ASKED, ANSWERED, newest], [Window(4)], 0) == [newest]
    assert apply_policies([ASKED, ANSWERED, newest], [Window(6)], 0) == [ASKED, ANSWERED, newest]


# Budgets.


@unhurried
@given(histories(), st.integers(1, 400), st.integers(0, 100))
def test_a_budget_is_used_and_never_exceeded(
    everything: list[RenderedTurn], most: int, base: int
) -> None:
    start = base + tokens(required_turns(everything))
    if start > most:
        with pytest.raises(ContextLengthExceededError) as caught:
            apply_policies(everything, [TokenBudget(most)], start)
        assert (caught.value.used, caught.value.limit, caught.value.status) == (start, most, 400)
        return
    result = apply_policies(everything, [TokenBudget(most)], start)
    shown = check_whole_turns(everything, result)
    assert base + tokens(result) <= most
    groups = groups_of(everything)
    if (older := groups[: -len(groups_of(shown))]) and shown != everything:
        gain = sum(tokens_of(one) - estimate_tokens(len(one.system)) for one in older[-1])
        assert base + tokens(result) + gain > most, "one more would have fitted"


def test_what_was_reported_counts_and_else_an_estimate() -> None:
    one = turn_of("Hi.")
    assert tokens_of(one) == 10
    unknown = msgspec.structs.replace(one, tokens=None)
    assert tokens_of(unknown) == estimate_tokens(len(one.messages)) > 10
    assert [estimate_tokens(bytes_) for bytes_ in (0, 1, 7, 8)] == [0, 1, 2, 3]


def test_policies_apply_one_after_another() -> None:
    history = [turn_of(str(number)) for number in range(6)]
    both: list[ContextPolicy] = [Window(6), TokenBudget(20), Summarize(max_messages=1)]
    assert users(apply_policies(history, both[:1], 10)) == ["3", "4", "5"]
    assert users(apply_policies(history, both, 10)) == ["4", "5"]
    assert users(apply_policies(history, both[::-1], 10)) == ["4", "5"]
    assert apply_policies(history, [Summarize(max_messages=1)], 10) is history
    assert budget_of([Window(1), TokenBudget(9), TokenBudget(5)]) == 5
    assert budget_of([Window(1)]) is None


def test_a_budget_counts_what_stays_of_turns_that_go() -> None:
    """System messages are shown in any case: room for them is taken first."""
    rule = "Be kind. " * 10
    history = [turn_of("0", system=rule, took=40), turn_of("1"), turn_of("2")]
    room = estimate_tokens(len(history[0].system))
    smallest = room + 10
    assert tokens(required_turns(history)) == smallest
    assert users(apply_policies(history, [TokenBudget(smallest + 9)], smallest)) == ["2"]
    assert users(apply_policies(history, [TokenBudget(smallest + 10)], smallest)) == ["1", "2"]
    rest = 40 - room
    assert users(apply_policies(history, [TokenBudget(smallest + 9 + rest)], smallest)) == [
        "1",
        "2",
    ]
    assert users(apply_policies(history, [TokenBudget(smallest + 10 + rest)], smallest)) == [
        "0",
        "1",
        "2",
    ]


@pytest.mark.parametrize("with_a_call", [False, True])
def test_an_image_in_a_system_message_weighs_no_more_once_its_turn_has_gone(
    with_a_call: bool,
) -> None:
    photo = InputImage("data:image/png;base64," + "A" * 1_000_000)
    items: list[Item] = [
        Message("system", (InputText("This is our logo:"), photo)),
        Message("user", "Hi. " * 500),
    ]
    if with_a_call:
        items += [FunctionCall("c", "f", "{}"), FunctionCallOutput("c", "1")]
    history = [render_turn(items), turn_of("Well?"), turn_of("And?")]
    smallest = tokens(required_turns(history))
    assert smallest < 2000
    assert len(apply_policies(history, [TokenBudget(3000)], smallest)) == 3
    # To let the turn go gains the words in it, not the image that stays: that is enough here.
    assert users(trim_by_ratio(history, 1000, 1000)) == ["Well?", "And?"]


def test_what_is_over_its_budget_alone_is_refused_with_its_numbers() -> None:
    check_budget(5, 5)
    with pytest.raises(
        ContextLengthExceededError, match="about 6 tokens, and the budget is 5"
    ) as caught:
        check_budget(6, 5)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


# What is shown in any case.


@unhurried
@given(histories())
def test_what_is_shown_in_any_case_is_the_newest_group_and_the_system(
    everything: list[RenderedTurn],
) -> None:
    smallest = required_turns(everything)
    shown = check_whole_turns(everything, smallest)
    assert groups_of(everything)[-1] == shown[-len(groups_of(everything)[-1]) :]
    assert all(one.messages == one.system for one in smallest[: -len(groups_of(everything)[-1])])
    assert list(required_turns(smallest)) == list(smallest)


def test_of_no_turns_nothing_is_shown() -> None:
    assert (
        list(required_turns([]))
        == list(apply_policies([], [Window(1), TokenBudget(1)], 0))
        == list(apply_summaries([]))
        == []
    )


@pytest.mark.parametrize(
    ("instructions", "grows"), [(None, 0), ("", 0), ("a" * 7, 2), ("\N{SNOWMAN}" * 7, 6)]
)
def test_instructions_tools_and_a_primer_count(instructions: str | None, grows: int) -> None:
    """A character that takes more bytes takes more tokens too."""
    assert base_tokens(Header("m", instructions), b"") == grows
    assert base_tokens(Header("m", instructions), b"x" * 7) == grows + 2
    offered = Options(tools=(FunctionTool("look", "x" * 700),))
    assert base_tokens(Header("m", instructions, offered), b"") > grows + 200


# Letting go.


@unhurried
@given(histories(), st.integers(1, 300))
def test_the_oldest_go_until_so_many_tokens_are_gone(
    everything: list[RenderedTurn], excess: int
) -> None:
    left = drop_oldest_turns(everything, excess)
    shown = check_whole_turns(everything, left)
    spoken = [one for one in groups_of(everything) if any(x.messages != x.system for x in one)]
    if left is everything:
        assert spoken in ([], [groups_of(everything)[-1]]), "there was one to let go"
        return
    there = {id(one) for one in shown}
    gone = [one for one in spoken if not all(id(x) in there for x in one)]
    assert gone == spoken[: len(gone)] != [], "oldest first"
    gains = [sum(tokens_of(x) - estimate_tokens(len(x.system)) for x in one) for one in gone]
    assert sum(max(0, gain) for gain in gains[:-1]) < excess, "one fewer was enough"
    assert sum(max(0, gain) for gain in gains) >= excess or len(spoken) - len(gone) <= 1


def test_what_can_be_let_go_of_ends() -> None:
    history: Sequence[RenderedTurn] = [
        turn_of(str(n), system="Hm." if n == 1 else None, took=40) for n in range(4)
    ]
    seen = []
    while (shorter := drop_oldest_turns(history, 1)) is not history:
        history = shorter
        seen.append(users(history))
    assert seen == [["1", "2", "3"], ["2", "3"], ["3"]]
    assert with_role(check_well_formed(build_messages(history)), "system") == ["Hm."]


def test_a_turn_whose_report_was_too_low_gives_nothing_and_takes_nothing() -> None:
    low = turn_of("0", system="Be kind. " * 20, took=1)
    history = [low, turn_of("1"), turn_of("2"), turn_of("3")]
    assert users(drop_oldest_turns(history, 10)) == ["2", "3"]


# Summaries.


@unhurried
@given(histories(), st.integers(0, 7))
def test_what_is_summed_up_and_what_stays_part_a_history(
    everything: list[RenderedTurn], keep: int
) -> None:
    covered, kept = split_for_summary(everything, keep)
    assert [*covered, *kept] == everything
    assert len(kept) >= min(keep, len(everything))
    for cut in range(len(covered) + 1, max(0, len(everything) - keep) + 1):
        # A place that would have kept less would have torn a group apart.
        if cut == len(everything):
            assert everything[-1].open_calls
        else:
            assert set(everything[cut].outputs) & set(everything[cut - 1].open_calls)
    assert not covered or not kept or not set(kept[0].outputs) & set(covered[-1].open_calls)
    check_well_formed(build_messages([*covered, NEXT]))
    check_well_formed(build_messages([*kept, NEXT]))


def test_calls_that_wait_are_not_summed_up() -> None:
    covered, kept = split_for_summary([turn_of("0"), ASKED], 0)
    assert (users(covered), kept) == (["0"], [ASKED])
    assert split_for_summary([turn_of("0"), ASKED, ANSWERED, turn_of("1")], 2)[0] == [turn_of("0")]
    assert split_for_summary([], 3) == ([], [])


def test_when_a_summary_is_due() -> None:
    history = [turn_of("0"), turn_of("1"), turn_of("2")]
    assert not should_summarize(history, Summarize(max_messages=6), 0)
    assert should_summarize(history, Summarize(max_messages=5), 0)
    assert not should_summarize(history, Summarize(max_tokens=30), 0)
    assert should_summarize(history, Summarize(max_tokens=30), 1)
    assert should_summarize(history, Summarize(max_tokens=29), 0)
    assert should_summarize(history, Summarize(max_tokens=29, max_messages=99), 0)
    assert should_summarize(history, Summarize(max_tokens=99, max_messages=5), 0)
    assert not should_summarize(history, Summarize(max_tokens=30, max_messages=6), 0)


def summary(text: str, kept: int, replaced: int) -> RenderedTurn:
    return render_turn([Compaction(text, kept, replaced)])


def test_what_has_been_summed_up_is_not_worth_it_again() -> None:
    old = render_turn([Message("system", "Be kind.")])
    (leftover,) = required_turns([old, turn_of("x")])[:1]
    assert not has_unsummarized_turns([])
    assert not has_unsummarized_turns([leftover, summary("s", 0, 3)])
    assert has_unsummarized_turns([summary("s", 0, 3), turn_of("0")])
    assert has_unsummarized_turns([old])


@unhurried
@given(histories(), st.data())
def test_a_history_read_again_is_the_one_that_was_summed_up(
    turns: list[RenderedTurn], data: st.DataObject
) -> None:
    """However often: what the store gives folds into what was shown before."""
    stored: list[RenderedTurn] = []
    view: list[RenderedTurn] = []
    for number, turn in enumerate(turns):
        stored.append(turn)
        view.append(turn)
        covered, kept = split_for_summary(view, data.draw(st.integers(0, 4)))
        if has_unsummarized_turns(covered) and data.draw(st.booleans()):
            new = summary(
                f"summary {number}",
                sum(one.turns for one in kept),
                sum(one.turns for one in covered),
            )
            stored.append(new)
            view = insert_summary(covered, new, kept)
        assert list(apply_summaries(stored)) == view
        check_well_formed(build_messages([*view, NEXT]))
        systems = [one.system for one in turns[: number + 1] if one.system]
        assert [one.system for one in view if one.system and one.retained_turns is None] == systems
    gone = data.draw(st.sets(st.integers(0, len(stored) - 1)))
    check_erased(stored, [one for at, one in enumerate(stored) if at not in gone])


def check_erased(stored: list[RenderedTurn], left: list[RenderedTurn]) -> None:
    """Some were erased: every turn that is left is shown, or a summary that covers no other."""
    shown = apply_summaries(left)
    summaries = [one for one in shown if one.retained_turns is not None]
    assert len(summaries) <= 1
    plain = [one for one in left if one.retained_turns is None]
    if not summaries:
        assert list(shown) == plain
        return
    (newest,) = summaries
    assert newest.retained_turns is not None
    place = next(at for at, one in enumerate(stored) if one is newest)
    before = [one for one in stored[:place] if one.retained_turns is None]
    covered = before[: len(before) - newest.retained_turns]
    ids = {id(one) for one in left}
    assert all(id(one) in ids for one in covered), "what was erased lives on in a summary"
    rest = [one for one in plain if not any(one is other for other in covered)]
    assert [one for one in shown if any(one is other for other in rest)] == rest


def test_a_summary_of_what_was_erased_gives_way_to_an_older_one() -> None:
    turns = [turn_of(str(number)) for number in range(5)]
    first, second = summary("first", 1, 1), summary("second", 1, 3)
    stored = [*turns[:2], first, *turns[2:4], second, turns[4]]
    assert list(apply_summaries(stored)) == [second, turns[3], turns[4]]
    without = [one for one in stored if one is not turns[2]]
    assert list(apply_summaries(without)) == [first, turns[1], turns[3], turns[4]]
    without = [one for one in without if one is not turns[0]]
    assert list(apply_summaries(without)) == [turns[1], turns[3], turns[4]]
    assert apply_summaries(turns) is turns
