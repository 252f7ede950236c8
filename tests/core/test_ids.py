"""Ids: random for responses and conversations, derived for items."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.ids import (
    item_id,
    new_call_id,
    new_conversation_id,
    new_response_id,
    response_id_of,
    response_key,
)
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    item_kind,
)

KINDS = ("message", "function_call", "function_call_output", "reasoning")


@pytest.mark.parametrize("new", [new_response_id, new_conversation_id])
def test_new_id_has_its_time_and_80_random_bits(new: Callable[[], str]) -> None:
    before = time.time()
    ids = [new() for _ in range(1000)]
    after = time.time()
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"(resp|conv)_[0-9a-f]{32}", one) for one in ids)
    seconds = [int(one[5:17], 16) / 1000 for one in ids]
    assert before - 0.001 <= min(seconds) <= max(seconds) <= after
    assert seconds == sorted(seconds)
    # Every one of the 80 bits is seen as 0 and as 1.
    numbers = [int(one[17:], 16) for one in ids]
    ones = zeros = 0
    for number in numbers:
        ones |= number
        zeros |= ~number
    assert ones & zeros & (1 << 80) - 1 == (1 << 80) - 1


def test_ids_are_valid_for_extreme_clock_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for now in (-1e9, 1e15):
        monkeypatch.setattr("antiphon.core.ids.time.time", lambda now=now: now)
        assert response_key(new_response_id()) is not None


def test_call_ids_are_unique() -> None:
    ids = {new_call_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(one.startswith("call_") for one in ids)


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16))
def test_response_id_and_key_convert_both_ways(key: bytes) -> None:
    assert response_key(response_id_of(key)) == key


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "resp_",
        "resp_" + "0" * 31,
        "resp_" + "0" * 33,
        "resp_" + "A" * 32,
        "resp_" + "g" * 32,
        "resp_" + "0" * 32 + "\n",
        " resp_" + "0" * 32,
        "conv_" + "0" * 32,
        "resp_" + "\N{ARABIC-INDIC DIGIT ZERO}" * 32,
        "resp_'; DROP TABLE log; --",
    ],
)
def test_malformed_response_id_has_no_key(wrong: str) -> None:
    assert response_key(wrong) is None


@settings(deadline=None)
@given(st.text())
def test_only_generated_ids_have_keys(text: str) -> None:
    key = response_key(text)
    assert key is None or response_id_of(key) == text


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 40_000)), unique=True))
def test_items_of_a_turn_have_unique_ids(positions: list[tuple[str, int]]) -> None:
    response = new_response_id()
    ids = {item_id(response, kind, position) for kind, position in positions}
    assert len(ids) == len(positions)
    assert all(response[5:] in one for one in ids)


@pytest.mark.parametrize(
    "item",
    [
        Message("user", "Hi."),
        FunctionCall("c", "f", "{}"),
        FunctionCallOutput("c", "1"),
        Reasoning(),
    ],
)
def test_every_kind_of_item_has_an_id(item: Item) -> None:
    assert re.fullmatch(r"[a-z]+_[0-9a-f]{34}", item_id(new_response_id(), item_kind(item), 0))
