"""Fields that go back to their model, in a context: with the message or the call they came with."""

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

ASKED, SAID = Message("user", "Weather?"), Message("assistant", "Sunny.")
MODEL = "host/m"


def thought(text: str, origin: str | None = MODEL, **fields: Any) -> Reasoning:
    given = ProviderFields(origin, fields, "reasoning")
    return Reasoning((SummaryText(text),), provider_fields=given)


def call(call_id: str, **fields: Any) -> FunctionCall:
    given = ProviderFields(MODEL, fields) if fields else None
    return FunctionCall(call_id, "f", "{}", provider_fields=given)


def sent(*turns: list[Item]) -> list[dict[str, Any]]:
    """What of each assistant's message is not its content or its calls."""
    messages = build_messages([render_turn(turn) for turn in turns])
    decoded = json.loads(insert_fields(messages, MODEL))
    return [
        {name: value for name, value in one.items() if name not in ("role", "content")}
        for one in decoded
        if one["role"] == "assistant"
    ]


def names_of(message: dict[str, Any]) -> list[str]:
    return [one["id"] for one in message["tool_calls"]]


def test_reasoning_before_between_and_after_the_calls_of_an_answer_is_one_text() -> None:
    outputs: list[Item] = [FunctionCallOutput("c", "1"), FunctionCallOutput("d", "2")]
    items = [ASKED, thought("A"), SAID, thought("B"), call("c"), call("d"), thought("C"), *outputs]
    (message,) = sent(items)
    assert names_of(message) == ["c", "d"]
    assert message["reasoning"] == "ABC"


def test_each_round_has_its_own_reasoning() -> None:
    items: list[Item] = [ASKED]
    for name in ("c", "d"):
        items += [thought(name.upper()), call(name), FunctionCallOutput(name, "")]
    assert [one["reasoning"] for one in sent([*items, thought("E"), SAID])[:2]] == ["C", "D"]


def test_calls_that_wait_for_an_output_take_it_along() -> None:
    answered: list[Item] = [FunctionCallOutput("c", "1"), thought("B"), SAID]
    first, last = sent([ASKED, thought("A", x=1), call("c", y=2)], answered)
    assert (first["reasoning"], first["x"], first["tool_calls"][0]["y"]) == ("A", 1, 2)
    assert last == {}


def test_calls_of_one_answer_that_become_two_messages_both_have_its_reasoning() -> None:
    """Of calls made together one may be run here, and another by the client."""
    output = FunctionCallOutput("c", "1")
    items: list[Item] = [ASKED, thought("A", x=1), call("c"), call("d"), output]
    first, second = sent(items)
    assert (names_of(first), names_of(second)) == (["c"], ["d"])
    assert first["reasoning"] == second["reasoning"] == "A"


def test_an_answer_without_a_call_has_its_fields_and_not_its_thoughts() -> None:
    signed = Message("assistant", "Hm.", provider_fields=ProviderFields(MODEL, {"z": 3}))
    assert sent([ASKED, thought("A", x=1), SAID, ASKED, signed]) == [{"x": 1}, {"z": 3}]
    assert sent([ASKED, signed]) == [{"z": 3}]


def test_fields_of_two_models_in_one_history_stay_apart() -> None:
    items: list[Item] = []
    for origin in (MODEL, "host/other", None):
        items += [ASKED, thought(str(origin), origin), call("c"), FunctionCallOutput("c", "")]
    assert [one.get("reasoning") for one in sent(items)] == [MODEL, None, "None"]


def test_fields_weigh_nothing() -> None:
    plain = render_turn([ASKED, SAID, call("c"), FunctionCallOutput("c", "1")])
    big = "x" * 9000
    loaded = render_turn(
        [ASKED, thought(big, a=big), SAID, call("c", b=big), FunctionCallOutput("c", "1")]
    )
    assert loaded.weight == plain.weight
    assert loaded.size > plain.size + 27000
