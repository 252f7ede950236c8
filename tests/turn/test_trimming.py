"""Trimming a long history: whole turns, newest first, and a call never without its output."""

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

no_deadline = settings(deadline=None)


def total_tokens(segments: Sequence[RenderedTurn]) -> int:
    return sum(map(tokens_of, segments))


def rendered_turn(
    text: str, answer: str = "Yes.", *, system: str | None = None, tokens_used: int = 10
) -> RenderedTurn:
    before = [Message("system", system)] if system else []
    segment = render_turn([*before, Message("user", text), Message("assistant", answer)])
    return msgspec.structs.replace(segment, tokens=tokens_used)


def user_texts(shown: Sequence[RenderedTurn]) -> list[Any]:
    return with_role(check_well_formed(build_messages(shown)), "user")


ASKED = msgspec.structs.replace(
    render_turn([Message("user", "a"), FunctionCall("c", "f", "{}")]), tokens=10
)
ANSWERED = msgspec.structs.replace(
    render_turn([FunctionCallOutput("c", "1"), Message("assistant", "b")]), tokens=10
)


#: The turn after a history that may end in open calls.
NEXT = render_turn([Message("user", "And?")])


# Windows.


@no_deadline
@given(histories(), st.integers(1, 20))
def test_window_keeps_as_many_turns_as_fit(everything: list[RenderedTurn], limit: int) -> None:
    shown = check_whole_turns(everything, apply_policies(everything, [Window(limit)], 0))
    groups = groups_of(shown)
    count = sum(one.message_count for one in shown)
    assert count <= limit or len(groups) == 1
    older = groups_of(everything)[: -len(groups)]
    assert everything[len(everything) - len(shown) :] == shown, "the newest, without a hole"
    if older:
        assert count + sum(one.message_count for one in older[-1]) > limit, (
            "one more would have fitted"
        )


@no_deadline
@given(histories())
def test_message_count_matches_the_rendered_messages(everything: list[RenderedTurn]) -> None:
    messages = check_well_formed(build_messages(everything))
    assert sum(one.message_count for one in everything) == len(messages) - len(
        with_role(messages, "system")
    )


def test_window_never_separates_a_call_from_its_output() -> None:
    assert apply_policies([rendered_turn("old"), ASKED, ANSWERED], [Window(1)], 0) == [
        ASKED,
        ANSWERED,
    ]
    newest = rendered_turn("new")
    assert apply_policies([ASKED, ANSWERED, newest], [Window(4)], 0) == [newest]
    assert apply_policies([ASKED, ANSWERED, newest], [Window(6)], 0) == [ASKED, ANSWERED, newest]


# Budgets.


@no_deadline
@given(histories(), st.integers(1, 400), st.integers(0, 100))
def test_token_budget_is_filled_and_never_exceeded(
    everything: list[RenderedTurn], limit: int, base: int
) -> None:
    start = base + total_tokens(required_turns(everything))
    if start > limit:
        with pytest.raises(ContextLengthExceededError) as caught:
            apply_policies(everything, [TokenBudget(limit)], start)
        assert (caught.value.used, caught.value.limit, caught.value.status) == (start, limit, 400)
        return
    result = apply_policies(everything, [TokenBudget(limit)], start)
    shown = check_whole_turns(everything, result)
    assert base + total_tokens(result) <= limit
    groups = groups_of(everything)
    if (older := groups[: -len(groups_of(shown))]) and shown != everything:
        tokens_freed = sum(tokens_of(one) - estimate_tokens(len(one.system)) for one in older[-1])
        assert base + total_tokens(result) + tokens_freed > limit, "one more would have fitted"


def test_reported_tokens_are_used_before_an_estimate() -> None:
    one = rendered_turn("Hi.")
    assert tokens_of(one) == 10
    unknown = msgspec.structs.replace(one, tokens=None)
    assert tokens_of(unknown) == estimate_tokens(len(one.messages)) > 10
    assert [estimate_tokens(bytes_) for bytes_ in (0, 1, 7, 8)] == [0, 1, 2, 3]


def test_policies_apply_in_sequence() -> None:
    history = [rendered_turn(str(number)) for number in range(6)]
    both: list[ContextPolicy] = [Window(6), TokenBudget(20), Summarize(max_messages=1)]
    assert user_texts(apply_policies(history, both[:1], 10)) == ["3", "4", "5"]
    assert user_texts(apply_policies(history, both, 10)) == ["4", "5"]
    assert user_texts(apply_policies(history, both[::-1], 10)) == ["4", "5"]
    assert apply_policies(history, [Summarize(max_messages=1)], 10) is history
    assert budget_of([Window(1), TokenBudget(9), TokenBudget(5)]) == 5
    assert budget_of([Window(1)]) is None


def test_budget_counts_system_messages_of_dropped_turns() -> None:
    """System messages are always sent: their tokens are reserved first."""
    rule = "Be kind. " * 10
    history = [
        rendered_turn("0", system=rule, tokens_used=40),
        rendered_turn("1"),
        rendered_turn("2"),
    ]
    room = estimate_tokens(len(history[0].system))
    required = room + 10
    assert total_tokens(required_turns(history)) == required
    assert user_texts(apply_policies(history, [TokenBudget(required + 9)], required)) == ["2"]
    assert user_texts(apply_policies(history, [TokenBudget(required + 10)], required)) == ["1", "2"]
    rest = 40 - room
    assert user_texts(apply_policies(history, [TokenBudget(required + 9 + rest)], required)) == [
        "1",
        "2",
    ]
    assert user_texts(apply_policies(history, [TokenBudget(required + 10 + rest)], required)) == [
        "0",
        "1",
        "2",
    ]


@pytest.mark.parametrize("with_a_call", [False, True])
def test_image_in_a_system_message_of_a_dropped_turn_is_counted_once(
    with_a_call: bool,
) -> None:
    photo = InputImage("data:image/png;base64," + "A" * 1_000_000)
    items: list[Item] = [
        Message("system", (InputText("This is our logo:"), photo)),
        Message("user", "Hi. " * 500),
    ]
    if with_a_call:
        items += [FunctionCall("c", "f", "{}"), FunctionCallOutput("c", "1")]
    history = [render_turn(items), rendered_turn("Well?"), rendered_turn("And?")]
    required = total_tokens(required_turns(history))
    assert required < 2000
    assert len(apply_policies(history, [TokenBudget(3000)], required)) == 3
    # Dropping the turn frees its text, not the image that stays: that is enough here.
    assert user_texts(trim_by_ratio(history, 1000, 1000)) == ["Well?", "And?"]


def test_exceeded_budget_error_names_both_counts() -> None:
    check_budget(5, 5)
    with pytest.raises(
        ContextLengthExceededError, match="about 6 tokens, and the budget is 5"
    ) as caught:
        check_budget(6, 5)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


# Required turns.


@no_deadline
@given(histories())
def test_required_turns_are_the_newest_group_and_system_messages(
    everything: list[RenderedTurn],
) -> None:
    required = required_turns(everything)
    shown = check_whole_turns(everything, required)
    assert groups_of(everything)[-1] == shown[-len(groups_of(everything)[-1]) :]
    assert all(one.messages == one.system for one in required[: -len(groups_of(everything)[-1])])
    assert list(required_turns(required)) == list(required)


def test_empty_history_stays_empty() -> None:
    assert (
        list(required_turns([]))
        == list(apply_policies([], [Window(1), TokenBudget(1)], 0))
        == list(apply_summaries([]))
        == []
    )


@pytest.mark.parametrize(
    ("instructions", "grows"), [(None, 0), ("", 0), ("a" * 7, 2), ("\N{SNOWMAN}" * 7, 6)]
)
def test_base_tokens_count_instructions_tools_and_few_shot(
    instructions: str | None, grows: int
) -> None:
    """A character of more bytes takes more tokens."""
    assert base_tokens(Header("m", instructions), b"") == grows
    assert base_tokens(Header("m", instructions), b"x" * 7) == grows + 2
    offered = Options(tools=(FunctionTool("look", "x" * 700),))
    assert base_tokens(Header("m", instructions, offered), b"") > grows + 200


# Dropping turns.


@no_deadline
@given(histories(), st.integers(1, 300))
def test_oldest_turns_are_dropped_until_the_excess_is_freed(
    everything: list[RenderedTurn], excess: int
) -> None:
    remaining = drop_oldest_turns(everything, excess)
    shown = check_whole_turns(everything, remaining)
    droppable = [one for one in groups_of(everything) if any(x.messages != x.system for x in one)]
    if remaining is everything:
        assert droppable in ([], [groups_of(everything)[-1]]), "there was one to drop"
        return
    remaining_ids = {id(one) for one in shown}
    dropped = [one for one in droppable if not all(id(x) in remaining_ids for x in one)]
    assert dropped == droppable[: len(dropped)] != [], "oldest first"
    freed_per_group = [
        sum(tokens_of(x) - estimate_tokens(len(x.system)) for x in one) for one in dropped
    ]
    assert sum(max(0, tokens_freed) for tokens_freed in freed_per_group[:-1]) < excess, (
        "one fewer was enough"
    )
    assert (
        sum(max(0, tokens_freed) for tokens_freed in freed_per_group) >= excess
        or len(droppable) - len(dropped) <= 1
    )


def test_dropping_turns_ends_at_the_newest() -> None:
    history: Sequence[RenderedTurn] = [
        rendered_turn(str(n), system="Hm." if n == 1 else None, tokens_used=40) for n in range(4)
    ]
    seen = []
    while (shorter := drop_oldest_turns(history, 1)) is not history:
        history = shorter
        seen.append(user_texts(history))
    assert seen == [["1", "2", "3"], ["2", "3"], ["3"]]
    assert with_role(check_well_formed(build_messages(history)), "system") == ["Hm."]


def test_turn_with_too_low_token_report_frees_nothing() -> None:
    low = rendered_turn("0", system="Be kind. " * 20, tokens_used=1)
    history = [low, rendered_turn("1"), rendered_turn("2"), rendered_turn("3")]
    assert user_texts(drop_oldest_turns(history, 10)) == ["2", "3"]


# Summaries.


@no_deadline
@given(histories(), st.integers(0, 7))
def test_split_for_summary_partitions_the_history(
    everything: list[RenderedTurn], keep: int
) -> None:
    covered, retained = split_for_summary(everything, keep)
    assert [*covered, *retained] == everything
    assert len(retained) >= min(keep, len(everything))
    for cut in range(len(covered) + 1, max(0, len(everything) - keep) + 1):
        # A later split would have separated a group.
        if cut == len(everything):
            assert everything[-1].open_calls
        else:
            assert set(everything[cut].outputs) & set(everything[cut - 1].open_calls)
    assert not covered or not retained or not set(retained[0].outputs) & set(covered[-1].open_calls)
    check_well_formed(build_messages([*covered, NEXT]))
    check_well_formed(build_messages([*retained, NEXT]))


def test_open_calls_are_not_summarized() -> None:
    covered, retained = split_for_summary([rendered_turn("0"), ASKED], 0)
    assert (user_texts(covered), retained) == (["0"], [ASKED])
    assert split_for_summary([rendered_turn("0"), ASKED, ANSWERED, rendered_turn("1")], 2)[0] == [
        rendered_turn("0")
    ]
    assert split_for_summary([], 3) == ([], [])


def test_summary_is_due_over_message_or_token_limit() -> None:
    history = [rendered_turn("0"), rendered_turn("1"), rendered_turn("2")]
    assert not should_summarize(history, Summarize(max_messages=6), 0)
    assert should_summarize(history, Summarize(max_messages=5), 0)
    assert not should_summarize(history, Summarize(max_tokens=30), 0)
    assert should_summarize(history, Summarize(max_tokens=30), 1)
    assert should_summarize(history, Summarize(max_tokens=29), 0)
    assert should_summarize(history, Summarize(max_tokens=29, max_messages=99), 0)
    assert should_summarize(history, Summarize(max_tokens=99, max_messages=5), 0)
    assert not should_summarize(history, Summarize(max_tokens=30, max_messages=6), 0)


def summary(text: str, retained: int, replaced: int) -> RenderedTurn:
    return render_turn([Compaction(text, retained, replaced)])


def test_summarized_turns_are_not_summarized_again() -> None:
    old = render_turn([Message("system", "Be kind.")])
    (leftover,) = required_turns([old, rendered_turn("x")])[:1]
    assert not has_unsummarized_turns([])
    assert not has_unsummarized_turns([leftover, summary("s", 0, 3)])
    assert has_unsummarized_turns([summary("s", 0, 3), rendered_turn("0")])
    assert has_unsummarized_turns([old])


@no_deadline
@given(histories(), st.data())
def test_stored_summaries_reproduce_the_summarized_history(
    turns: list[RenderedTurn], data: st.DataObject
) -> None:
    """After any number of summaries, the stored turns give the same context."""
    stored: list[RenderedTurn] = []
    view: list[RenderedTurn] = []
    for number, turn in enumerate(turns):
        stored.append(turn)
        view.append(turn)
        covered, retained = split_for_summary(view, data.draw(st.integers(0, 4)))
        if has_unsummarized_turns(covered) and data.draw(st.booleans()):
            new = summary(
                f"summary {number}",
                sum(one.turns for one in retained),
                sum(one.turns for one in covered),
            )
            stored.append(new)
            view = insert_summary(covered, new, retained)
        assert list(apply_summaries(stored)) == view
        check_well_formed(build_messages([*view, NEXT]))
        systems = [one.system for one in turns[: number + 1] if one.system]
        assert [one.system for one in view if one.system and one.retained_turns is None] == systems
    dropped = data.draw(st.sets(st.integers(0, len(stored) - 1)))
    check_erased(stored, [one for at, one in enumerate(stored) if at not in dropped])


def check_erased(stored: list[RenderedTurn], remaining: list[RenderedTurn]) -> None:
    """After erasures every remaining turn is sent, itself or in a summary without erased turns."""
    shown = apply_summaries(remaining)
    summaries = [one for one in shown if one.retained_turns is not None]
    assert len(summaries) <= 1
    plain = [one for one in remaining if one.retained_turns is None]
    if not summaries:
        assert list(shown) == plain
        return
    (newest,) = summaries
    assert newest.retained_turns is not None
    place = next(at for at, one in enumerate(stored) if one is newest)
    before = [one for one in stored[:place] if one.retained_turns is None]
    covered = before[: len(before) - newest.retained_turns]
    ids = {id(one) for one in remaining}
    assert all(id(one) in ids for one in covered), "an erased turn is still in a summary"
    rest = [one for one in plain if not any(one is other for other in covered)]
    assert [one for one in shown if any(one is other for other in rest)] == rest


def test_summary_of_an_erased_turn_falls_back_to_an_older_summary() -> None:
    turns = [rendered_turn(str(number)) for number in range(5)]
    first, second = summary("first", 1, 1), summary("second", 1, 3)
    stored = [*turns[:2], first, *turns[2:4], second, turns[4]]
    assert list(apply_summaries(stored)) == [second, turns[3], turns[4]]
    without = [one for one in stored if one is not turns[2]]
    assert list(apply_summaries(without)) == [first, turns[1], turns[3], turns[4]]
    without = [one for one in without if one is not turns[0]]
    assert list(apply_summaries(without)) == [turns[1], turns[3], turns[4]]
    assert apply_summaries(turns) is turns
