"""Encrypted reasoning in rendered messages: attached to the answer or call it led to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from antiphon.core.items import (
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    SummaryText,
)
from antiphon.core.reasoning_sidecar import REASONING_KEY
from antiphon.turn.message_rendering import RenderedTurn, build_messages, render_turn

QUESTION = Message("user", "Weather?")
CALL, OUTPUT = FunctionCall("c", "f", "{}"), FunctionCallOutput("c", "sunny")
ANSWER = Message("assistant", "Sunny.")


def encrypted(content: str) -> Reasoning:
    return Reasoning(encrypted_content=content, origin="host/m")


def messages(*segments: RenderedTurn) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = json.loads(build_messages(segments))
    return decoded


def attached_reasoning(*items: Item) -> list[list[tuple[int, str]]]:
    """The reasoning attached to each message, as pairs of target and content."""
    return [
        [(one.get("target", 0), one["encrypted_content"]) for one in message.get(REASONING_KEY, ())]
        for message in messages(render_turn(items))
    ]


def test_reasoning_is_attached_to_the_answer_or_call_it_led_to() -> None:
    items: list[Item] = [
        QUESTION,
        encrypted("a"),
        CALL,
        OUTPUT,
        encrypted("b"),
        encrypted("c"),
        ANSWER,
    ]
    assert attached_reasoning(*items) == [[], [(1, "a")], [], [(0, "b"), (0, "c")]]
    more = FunctionCall("d", "f", "{}")
    together: list[Item] = [encrypted("a"), ANSWER, encrypted("b"), CALL, encrypted("c"), more]
    outputs: list[Item] = [OUTPUT, FunctionCallOutput("d", "")]
    assert attached_reasoning(*together, *outputs) == [[(0, "a"), (1, "b"), (2, "c")], [], []]


def test_reasoning_keeps_its_summary_and_origin() -> None:
    item = Reasoning((SummaryText("Hm."),), encrypted_content="a", origin="host/m")
    (message,) = messages(render_turn([item, ANSWER]))
    assert message[REASONING_KEY] == [
        {
            "encrypted_content": "a",
            "origin": "host/m",
            "summary": [{"type": "summary_text", "text": "Hm."}],
        }
    ]


def test_reasoning_around_an_open_call_is_attached_to_its_message() -> None:
    turn = render_turn([QUESTION, encrypted("a"), CALL, encrypted("b"), ANSWER])
    then = render_turn([OUTPUT, encrypted("c"), ANSWER])
    shown = messages(turn, then)
    assert [message["role"] for message in shown] == ["user", "assistant", "tool", "assistant"]
    assert [len(message.get(REASONING_KEY, ())) for message in shown] == [0, 2, 0, 1]


def test_reasoning_that_led_to_nothing_is_omitted() -> None:
    """Models refuse reasoning that leads to nothing."""
    dangling: list[list[Item]] = [
        [QUESTION, encrypted("a")],
        [encrypted("a"), QUESTION, ANSWER],
        [QUESTION, encrypted("a"), ErasedItem(), ANSWER],
        [QUESTION, Reasoning((SummaryText("Hm."),)), ANSWER],
    ]
    for items in dangling:
        assert REASONING_KEY not in json.dumps(messages(render_turn(items)))


def test_reasoning_does_not_change_weight_or_other_properties() -> None:
    items: Sequence[Item] = [
        QUESTION,
        encrypted("a" * 9000),
        CALL,
        OUTPUT,
        encrypted("b" * 9000),
        ANSWER,
    ]
    plain = render_turn([item for item in items if not isinstance(item, Reasoning)])
    with_reasoning = render_turn([*items, encrypted("c" * 9000)])
    assert with_reasoning.weight == plain.weight
    assert with_reasoning.size > plain.size + 18000
    same = ("open_calls", "outputs", "message_count", "system", "completed")
    assert all(getattr(with_reasoning, field) == getattr(plain, field) for field in same)
