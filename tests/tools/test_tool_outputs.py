"""Tool outputs: results encoded as text for the model."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from antiphon.tools.tool_outputs import (
    ResultEncodingError,
    declined_output,
    encode_output,
    error_output,
    replace_surrogates,
)


class Priority(str, enum.Enum):  # noqa: UP042 - as many still write it
    low = "low"


class Level(enum.Enum):
    one = 1


class Ticket(BaseModel):
    id: str
    priority: Priority = Priority.low


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is: {", "as it is: {"),
        ("", ""),
        (Priority.low, "low"),
        (None, "null"),
        (True, "true"),
        (Level.one, "1"),
        ({"a": [1, 2.5, None], "b": "ü"}, '{"a":[1,2.5,null],"b":"ü"}'),
        (Ticket(id="T-1"), '{"id":"T-1","priority":"low"}'),
        ([Ticket(id="T-1")], '[{"id":"T-1","priority":"low"}]'),
        (Point(1, datetime.date(2026, 1, 2)), '{"x":1,"when":"2026-01-02"}'),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), '"2026-01-02T00:00:00Z"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        ((1, 2), "[1,2]"),
        ({"says": "NaN and Infinity"}, '{"says":"NaN and Infinity"}'),
    ],
)
def test_results_are_encoded(result: Any, text: str) -> None:
    assert encode_output(result) == text


def test_result_is_never_truncated() -> None:
    assert len(encode_output(["x" * 1000] * 1000)) > 1_000_000


def cyclic_list() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "result",
    [
        float("nan"),
        {"a": [float("inf")]},
        object(),
        {"a": "\ud800"},
        b"\xff",
        cyclic_list(),
        ValueError("no"),
    ],
    ids=lambda result: type(result).__name__,
)
def test_result_that_is_not_json_is_refused(result: Any) -> None:
    with pytest.raises(ResultEncodingError) as raised:
        encode_output(result)
    assert str(raised.value)


@given(st.text(st.characters()))
def test_any_text_result_is_encodable(text: str) -> None:
    sent = encode_output(text)
    sent.encode()
    assert sent == text or any("\ud800" <= one <= "\udfff" for one in text)


def test_lone_surrogate_is_replaced_and_a_pair_is_joined() -> None:
    assert replace_surrogates("a\ud800b") == "a\ufffdb"
    assert replace_surrogates("\ud83d\ude00") == "\U0001f600"


def test_error_output_is_json_and_truncated() -> None:
    assert error_output('no "order"') == '{"error":"no \\"order\\""}'
    assert len(json.loads(error_output("x" * 10_000))["error"]) == 1500
    error_output("\ud800").encode()


def test_declined_output_names_the_person_and_reason() -> None:
    assert "person declined" in json.loads(declined_output())["error"]
    assert json.loads(declined_output("too much"))["error"].endswith("The reason given: too much")
