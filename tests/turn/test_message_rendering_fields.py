"""Provider fields in rendered messages: sent back with the message or the call they came with."""

from __future__ import annotations

import json
from typing import Any

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    SummaryText,
)
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.reasoning_sidecar import insert_fields
from antiphon.turn.message_rendering import build_messages, render_turn

QUESTION, ANSWER = Message("user", "Weather?"), Message("assistant", "Sunny.")
MODEL = "host/m"


def reasoning(text: str, origin: str | None = MODEL, **fields: Any) -> Reasoning:
    fields_given = ProviderFields(origin, fields, "reasoning")
    return Reasoning((SummaryText(text),), provider_fields=fields_given)


def call(call_id: str, **fields: Any) -> FunctionCall:
    fields_given = ProviderFields(MODEL, fields) if fields else None
    return FunctionCall(call_id, "f", "{}", provider_fields=fields_given)


def sent_fields(*turns: list[Item]) -> list[dict[str, Any]]:
    """The keys of each assistant message other than its role and content."""
    messages = build_messages([render_turn(turn) for turn in turns])
    decoded = json.loads(insert_fields(messages, MODEL))
    return [
        {name: value for name, value in one.items() if name not in ("role", "content")}
        for one in decoded
        if one["role"] == "assistant"
    ]


def call_ids(message: dict[str, Any]) -> list[str]:
    return [one["id"] for one in message["tool_calls"]]


def test_reasoning_around_the_calls_of_an_answer_is_joined() -> None:
    outputs: list[Item] = [FunctionCallOutput("c", "1"), FunctionCallOutput("d", "2")]
    items = [
        QUESTION,
        reasoning("A"),
        ANSWER,
        reasoning("B"),
        call("c"),
        call("d"),
        reasoning("C"),
        *outputs,
    ]
    (message,) = sent_fields(items)
    assert call_ids(message) == ["c", "d"]
    assert message["reasoning"] == "ABC"


def test_each_tool_round_has_its_own_reasoning() -> None:
    items: list[Item] = [QUESTION]
    for name in ("c", "d"):
        items += [reasoning(name.upper()), call(name), FunctionCallOutput(name, "")]
    assert [one["reasoning"] for one in sent_fields([*items, reasoning("E"), ANSWER])[:2]] == [
        "C",
        "D",
    ]


def test_open_calls_keep_their_reasoning_and_fields() -> None:
    answered: list[Item] = [FunctionCallOutput("c", "1"), reasoning("B"), ANSWER]
    first, last = sent_fields([QUESTION, reasoning("A", x=1), call("c", y=2)], answered)
    assert (first["reasoning"], first["x"], first["tool_calls"][0]["y"]) == ("A", 1, 2)
    assert last == {}


def test_calls_of_one_answer_in_two_messages_repeat_its_reasoning() -> None:
    """One of several parallel calls may run here, and another in the client."""
    output = FunctionCallOutput("c", "1")
    items: list[Item] = [QUESTION, reasoning("A", x=1), call("c"), call("d"), output]
    first, second = sent_fields(items)
    assert (call_ids(first), call_ids(second)) == (["c"], ["d"])
    assert first["reasoning"] == second["reasoning"] == "A"


def test_answer_without_a_call_has_its_fields_without_reasoning() -> None:
    answer_with_fields = Message(
        "assistant", "Hm.", provider_fields=ProviderFields(MODEL, {"z": 3})
    )
    assert sent_fields([QUESTION, reasoning("A", x=1), ANSWER, QUESTION, answer_with_fields]) == [
        {"x": 1},
        {"z": 3},
    ]
    assert sent_fields([QUESTION, answer_with_fields]) == [{"z": 3}]


def test_fields_of_other_models_are_not_sent() -> None:
    items: list[Item] = []
    for origin in (MODEL, "host/other", None):
        items += [QUESTION, reasoning(str(origin), origin), call("c"), FunctionCallOutput("c", "")]
    assert [one.get("reasoning") for one in sent_fields(items)] == [MODEL, None, "None"]


def test_provider_fields_do_not_change_the_weight() -> None:
    plain = render_turn([QUESTION, ANSWER, call("c"), FunctionCallOutput("c", "1")])
    big = "x" * 9000
    rendered = render_turn(
        [QUESTION, reasoning(big, a=big), ANSWER, call("c", b=big), FunctionCallOutput("c", "1")]
    )
    assert rendered.weight == plain.weight
    assert rendered.size > plain.size + 27000
