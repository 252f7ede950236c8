"""Fields of an answer belong to the item that they come with, and cost no item of their own."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.core.deltas import (
    Delta,
    OutputTextDelta,
    ProviderFieldsDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    ToolCallDelta,
)
from antiphon.core.events import Created, Ended, Event, ItemAdded
from antiphon.core.items import FunctionCall, Item, Message, Reasoning, Refusal, SummaryText
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.replay_trace import replay_events, trace_of
from antiphon.core.turns import End, Header, Response
from antiphon.turn.turn_accumulator import TurnAccumulator

MODEL = "host/m"
NAMED = ProviderFields(MODEL, text_field="reasoning")
TEXT, REFUSAL, THOUGHT = OutputTextDelta("a"), RefusalTextDelta("No."), SummaryText("Hm.")
THINK = ReasoningSummaryDelta("Hm.", NAMED)
CALL = ToolCallDelta(0, "c", "f", "{}")


def came(**fields: Any) -> ProviderFieldsDelta:
    return ProviderFieldsDelta(ProviderFields(MODEL, fields))


def given(**fields: Any) -> ProviderFields:
    return ProviderFields(MODEL, fields)


def thought(**fields: Any) -> Reasoning:
    return Reasoning((THOUGHT,), provider_fields=ProviderFields(MODEL, fields, "reasoning"))


def with_fields(text: str, **fields: Any) -> Message:
    return Message("assistant", text, provider_fields=given(**fields))


PLAIN_CALL = FunctionCall("c", "f", "{}")
CASES: dict[str, tuple[list[Delta], tuple[Item, ...]]] = {
    "in-an-answer": ([TEXT, came(x=1), TEXT], (with_fields("aa", x=1),)),
    "behind-an-answer": ([TEXT, came(x=1)], (with_fields("a", x=1),)),
    "before-an-answer": ([came(x=1), TEXT], (with_fields("a", x=1),)),
    "before-a-refusal": (
        [came(x=1), REFUSAL],
        (Message("assistant", (Refusal("No."),), provider_fields=given(x=1)),),
    ),
    "in-reasoning": ([THINK, came(x=1), TEXT], (thought(x=1), Message("assistant", "a"))),
    "before-reasoning": ([came(x=1), THINK], (thought(x=1),)),
    "before-a-call": ([came(x=1), CALL], (Reasoning(provider_fields=given(x=1)), PLAIN_CALL)),
    "behind-a-call": ([CALL, came(x=1)], (PLAIN_CALL, Reasoning(provider_fields=given(x=1)))),
    "between-reasoning-and-a-call": ([THINK, came(x=1), CALL], (thought(x=1), PLAIN_CALL)),
    "nothing-else": ([came(x=1), came(y=2)], (Reasoning(provider_fields=given(x=1, y=2)),)),
    "later-ones-count": ([TEXT, came(x=1), came(x=None), came(x=2)], (with_fields("a", x=2),)),
    "objects-are-joined": (
        [TEXT, came(x={"a": {"b": 1}}), came(x={"a": {"c": 2}})],
        (with_fields("a", x={"a": {"b": 1, "c": 2}}),),
    ),
    "of-a-call-in-pieces": (
        [
            ToolCallDelta(0, "c", "f", "{", given(x={"a": 1})),
            ToolCallDelta(0, arguments="}", provider_fields=given(x={"b": 2}, y=3)),
        ],
        (FunctionCall("c", "f", "{}", provider_fields=given(x={"a": 1, "b": 2}, y=3)),),
    ),
    "of-two-calls": (
        [
            ToolCallDelta(0, "c", "f", "{}", given(x=1)),
            ToolCallDelta(1, "d", "f", "{}"),
            ToolCallDelta(0, provider_fields=given(y=2)),
        ],
        (
            FunctionCall("c", "f", "{}", provider_fields=given(x=1, y=2)),
            FunctionCall("d", "f", "{}"),
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fields_belong_to_their_item_and_are_replayed(name: str) -> None:
    deltas, expected = CASES[name]
    turn = TurnAccumulator()
    events: list[Event] = turn.feed(deltas) + turn.close(is_complete=True)
    assert turn.output == expected
    end = End("completed", 2.0, trace=trace_of(events))
    response = Response("resp_" + "0" * 32, 1.0, Header("m"), (), expected, end)
    again = [one for one in replay_events(response) if not isinstance(one, Created | Ended)]
    assert again == events


def test_the_name_of_a_text_is_known_from_its_beginning() -> None:
    (begun, *_) = TurnAccumulator().feed([THINK])
    shell = Reasoning((SummaryText(""),), provider_fields=ProviderFields(text_field="reasoning"))
    assert begun == ItemAdded(0, shell)


@pytest.mark.parametrize(
    ("deltas", "returned"),
    [([THINK, CALL], True), ([THINK, TEXT], False), ([CALL], False), ([TEXT, CALL], False)],
)
def test_thoughts_that_led_to_a_call_are_shown_again(deltas: list[Delta], returned: bool) -> None:
    turn = TurnAccumulator()
    turn.feed(deltas)
    turn.close(is_complete=True)
    assert turn.returns_thoughts is returned
    turn.start_round()
    assert not turn.returns_thoughts
