"""Exchanges: where a history that comes as one input may be divided."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Message
from antiphon.turn.exchanges import render_exchanges, split_exchanges
from antiphon.turn.message_rendering import build_messages, render_turn

ITEMS = st.lists(
    st.sampled_from(["user", "assistant", "system", "call", "call", "output"]), max_size=12
)


def history(kinds: list[str]) -> list[Item]:
    """Items of these kinds, where an output answers the oldest open call."""
    items: list[Item] = []
    waiting: list[str] = []
    for number, kind in enumerate(kinds):
        if kind == "call":
            waiting.append(f"c{number}")
            items.append(FunctionCall(waiting[-1], "f", "{}"))
        elif kind == "output":
            if waiting:
                items.append(FunctionCallOutput(waiting.pop(0), f"o{number}"))
        else:
            items.append(Message(kind, f"m{number}"))  # type: ignore[arg-type]
    return items


@given(ITEMS)
def test_the_exchanges_of_a_history_are_the_history(kinds: list[str]) -> None:
    items = history(kinds)
    groups = split_exchanges(items)
    assert [item for group in groups for item in group] == items
    assert build_messages(render_exchanges(items)) == build_messages([render_turn(items)])


@given(ITEMS)
def test_a_later_exchange_begins_with_a_question_and_has_its_outputs(kinds: list[str]) -> None:
    for group in split_exchanges(history(kinds))[1:]:
        first = group[0]
        assert isinstance(first, Message)
        assert first.role != "assistant"
        assert not render_turn(group).outputs


def test_a_question_in_several_messages_is_one() -> None:
    kinds = ["system", "user", "user", "assistant", "user", "system", "user", "assistant"]
    groups = split_exchanges(history(kinds))
    assert [len(group) for group in groups] == [4, 4]


def test_an_output_for_an_earlier_turns_call_stays_with_the_input_after_it() -> None:
    items: list[Item] = [
        FunctionCallOutput("call of an earlier turn", "found"),
        Message("user", "And now?"),
        Message("assistant", "Now this."),
        Message("user", "Good."),
    ]
    assert [len(group) for group in split_exchanges(items)] == [3, 1]
