"""Reasoning in a context: it goes along with what it led to, and changes nothing else."""

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

ASKED = Message("user", "Weather?")
CALL, OUTPUT = FunctionCall("c", "f", "{}"), FunctionCallOutput("c", "sunny")
SAID = Message("assistant", "Sunny.")


def sealed(content: str) -> Reasoning:
    return Reasoning(encrypted_content=content, origin="host/m")


def messages(*segments: RenderedTurn) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = json.loads(build_messages(segments))
    return decoded


def carried(*items: Item) -> list[list[tuple[int, str]]]:
    """What each message carries, as place and content."""
    return [
        [(one.get("target", 0), one["encrypted_content"]) for one in message.get(REASONING_KEY, ())]
        for message in messages(render_turn(items))
    ]


def test_it_goes_with_the_answer_or_the_call_that_it_led_to() -> None:
    items: list[Item] = [ASKED, sealed("a"), CALL, OUTPUT, sealed("b"), sealed("c"), SAID]
    assert carried(*items) == [[], [(1, "a")], [], [(0, "b"), (0, "c")]]
    more = FunctionCall("d", "f", "{}")
    together: list[Item] = [sealed("a"), SAID, sealed("b"), CALL, sealed("c"), more]
    outputs: list[Item] = [OUTPUT, FunctionCallOutput("d", "")]
    assert carried(*together, *outputs) == [[(0, "a"), (1, "b"), (2, "c")], [], []]


def test_all_of_it_goes_along() -> None:
    item = Reasoning((SummaryText("Hm."),), encrypted_content="a", origin="host/m")
    (message,) = messages(render_turn([item, SAID]))
    assert message[REASONING_KEY] == [
        {
            "encrypted_content": "a",
            "origin": "host/m",
            "summary": [{"type": "summary_text", "text": "Hm."}],
        }
    ]


def test_a_call_that_waits_takes_it_to_the_end_of_its_turn() -> None:
    turn = render_turn([ASKED, sealed("a"), CALL, sealed("b"), SAID])
    then = render_turn([OUTPUT, sealed("c"), SAID])
    shown = messages(turn, then)
    assert [message["role"] for message in shown] == ["user", "assistant", "tool", "assistant"]
    assert [len(message.get(REASONING_KEY, ())) for message in shown] == [0, 2, 0, 1]


def test_without_what_it_led_to_it_is_left_out() -> None:
    """Models refuse reasoning that leads to nothing."""
    hopeless: list[list[Item]] = [
        [ASKED, sealed("a")],
        [sealed("a"), ASKED, SAID],
        [ASKED, sealed("a"), ErasedItem(), SAID],
        [ASKED, Reasoning((SummaryText("Hm."),)), SAID],
    ]
    for items in hopeless:
        assert REASONING_KEY not in json.dumps(messages(render_turn(items)))


def test_it_weighs_nothing_and_changes_nothing_else() -> None:
    items: Sequence[Item] = [ASKED, sealed("a" * 9000), CALL, OUTPUT, sealed("b" * 9000), SAID]
    plain = render_turn([item for item in items if not isinstance(item, Reasoning)])
    loaded = render_turn([*items, sealed("c" * 9000)])
    assert loaded.weight == plain.weight
    assert loaded.size > plain.size + 18000
    same = ("open_calls", "outputs", "message_count", "system", "completed")
    assert all(getattr(loaded, field) == getattr(plain, field) for field in same)
