"""Provider fields in the turn accumulator: attached to the item that they come with."""

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
TEXT_FIELD_NAME = ProviderFields(MODEL, text_field="reasoning")
TEXT, REFUSAL, SUMMARY = OutputTextDelta("a"), RefusalTextDelta("No."), SummaryText("Hm.")
REASONING = ReasoningSummaryDelta("Hm.", TEXT_FIELD_NAME)
CALL = ToolCallDelta(0, "c", "f", "{}")


def fields_delta(**fields: Any) -> ProviderFieldsDelta:
    return ProviderFieldsDelta(ProviderFields(MODEL, fields))


def provider_fields(**fields: Any) -> ProviderFields:
    return ProviderFields(MODEL, fields)


def reasoning_item(**fields: Any) -> Reasoning:
    return Reasoning((SUMMARY,), provider_fields=ProviderFields(MODEL, fields, "reasoning"))


def with_fields(text: str, **fields: Any) -> Message:
    return Message("assistant", text, provider_fields=provider_fields(**fields))


PLAIN_CALL = FunctionCall("c", "f", "{}")
CASES: dict[str, tuple[list[Delta], tuple[Item, ...]]] = {
    "in-an-answer": ([TEXT, fields_delta(x=1), TEXT], (with_fields("aa", x=1),)),
    "behind-an-answer": ([TEXT, fields_delta(x=1)], (with_fields("a", x=1),)),
    "before-an-answer": ([fields_delta(x=1), TEXT], (with_fields("a", x=1),)),
    "before-a-refusal": (
        [fields_delta(x=1), REFUSAL],
        (Message("assistant", (Refusal("No."),), provider_fields=provider_fields(x=1)),),
    ),
    "in-reasoning": (
        [REASONING, fields_delta(x=1), TEXT],
        (reasoning_item(x=1), Message("assistant", "a")),
    ),
    "before-reasoning": ([fields_delta(x=1), REASONING], (reasoning_item(x=1),)),
    "before-a-call": (
        [fields_delta(x=1), CALL],
        (Reasoning(provider_fields=provider_fields(x=1)), PLAIN_CALL),
    ),
    "behind-a-call": (
        [CALL, fields_delta(x=1)],
        (PLAIN_CALL, Reasoning(provider_fields=provider_fields(x=1))),
    ),
    "between-reasoning-and-a-call": (
        [REASONING, fields_delta(x=1), CALL],
        (reasoning_item(x=1), PLAIN_CALL),
    ),
    "nothing-else": (
        [fields_delta(x=1), fields_delta(y=2)],
        (Reasoning(provider_fields=provider_fields(x=1, y=2)),),
    ),
    "later-ones-count": (
        [TEXT, fields_delta(x=1), fields_delta(x=None), fields_delta(x=2)],
        (with_fields("a", x=2),),
    ),
    "objects-are-joined": (
        [TEXT, fields_delta(x={"a": {"b": 1}}), fields_delta(x={"a": {"c": 2}})],
        (with_fields("a", x={"a": {"b": 1, "c": 2}}),),
    ),
    "of-a-call-in-pieces": (
        [
            ToolCallDelta(0, "c", "f", "{", provider_fields(x={"a": 1})),
            ToolCallDelta(0, arguments="}", provider_fields=provider_fields(x={"b": 2}, y=3)),
        ],
        (FunctionCall("c", "f", "{}", provider_fields=provider_fields(x={"a": 1, "b": 2}, y=3)),),
    ),
    "of-two-calls": (
        [
            ToolCallDelta(0, "c", "f", "{}", provider_fields(x=1)),
            ToolCallDelta(1, "d", "f", "{}"),
            ToolCallDelta(0, provider_fields=provider_fields(y=2)),
        ],
        (
            FunctionCall("c", "f", "{}", provider_fields=provider_fields(x=1, y=2)),
            FunctionCall("d", "f", "{}"),
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_provider_fields_attach_to_their_item_and_are_replayed(name: str) -> None:
    deltas, expected = CASES[name]
    turn = TurnAccumulator()
    events: list[Event] = turn.feed(deltas) + turn.close(is_complete=True)
    assert turn.output == expected
    end = End("completed", 2.0, trace=trace_of(events))
    response = Response("resp_" + "0" * 32, 1.0, Header("m"), (), expected, end)
    replayed = [one for one in replay_events(response) if not isinstance(one, Created | Ended)]
    assert replayed == events


def test_reasoning_text_field_is_in_the_added_event() -> None:
    (begun, *_) = TurnAccumulator().feed([REASONING])
    shell = Reasoning((SummaryText(""),), provider_fields=ProviderFields(text_field="reasoning"))
    assert begun == ItemAdded(0, shell)


@pytest.mark.parametrize(
    ("deltas", "returned"),
    [([REASONING, CALL], True), ([REASONING, TEXT], False), ([CALL], False), ([TEXT, CALL], False)],
)
def test_only_reasoning_before_a_call_is_returned(deltas: list[Delta], returned: bool) -> None:
    turn = TurnAccumulator()
    turn.feed(deltas)
    turn.close(is_complete=True)
    assert turn.returns_thoughts is returned
    turn.start_round()
    assert not turn.returns_thoughts
