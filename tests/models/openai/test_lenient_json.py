"""What upstreams send that is not quite JSON, or not of the type that it should be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.models.openai.lenient_json import (
    SurrogateJoiner,
    count_of_value,
    decode_lenient,
    join_surrogates,
    name_of_value,
    text_of_value,
    without_surrogates,
)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'{"a":"x\ty"}', {"a": "x\ty"}),
        (b'"\\ud83d"', "\ud83d"),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b"1e999", float("inf")),
        (b"1" * 5000, float("inf")),
    ],
)
def test_what_is_decoded(data: bytes, value: Any) -> None:
    assert decode_lenient(data) == value


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":1}}', b"<html>"])
def test_what_is_no_json_is_an_error(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_lenient(data)


@given(st.text(), st.data())
def test_a_text_is_the_same_however_its_surrogates_are_divided(text: str, data: Any) -> None:
    raw = text.encode("utf-16-le")
    units = [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]
    joiner = SurrogateJoiner()
    out = ""
    while units:
        size = data.draw(st.integers(1, len(units)))
        out += joiner.feed("".join(units[:size]))
        del units[:size]
    assert out + joiner.close() == text


@given(st.text(st.characters(codec=None)))
def test_what_is_left_of_halves_can_be_encoded(text: str) -> None:
    joiner = SurrogateJoiner()
    assert (joiner.feed(text) + joiner.close()) == join_surrogates(text)
    msgspec.json.encode(without_surrogates({text: [text, 1, None]}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (6, "6"),
        (0, "0"),
        (0.5, "0.5"),
        (None, ""),
        (False, ""),
        ([], ""),
        (["6", " or 7"], "6 or 7"),
        ({"type": "text", "text": "6"}, "6"),
        ([{"type": "output_text", "text": "6"}, None, {"content": "7"}], "67"),
        ({"other": 1}, ""),
    ],
)
def test_the_text_in_a_value(value: Any, text: str) -> None:
    assert text_of_value(value) == text


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (12, 12),
        (12.0, 12),
        (12.4, 12),
        ("12", 12),
        (" 12.0", 12),
        ("many", None),
        (-3, None),
        (True, None),
        (None, None),
        ([], None),
        (float("nan"), None),
        ("1e999", None),
        (10**30, None),
    ],
)
def test_the_count_in_a_value(value: Any, count: int | None) -> None:
    assert count_of_value(value) == count


@pytest.mark.parametrize(
    ("value", "name"),
    [("a", "a"), (7, "7"), (None, ""), (True, ""), ({}, ""), ("\ud83d", "\ufffd")],
)
def test_the_name_in_a_value(value: Any, name: str) -> None:
    assert name_of_value(value) == name
