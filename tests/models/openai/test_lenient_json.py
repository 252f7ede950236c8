"""What upstreams send that is not quite JSON, or not of the type that it should be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from antiphon.models.openai.lenient_json import (
    count_of_value,
    decode_lenient,
    name_of_value,
    split_objects,
    text_of_value,
)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'{"a":"x\ty"}', {"a": "x\ty"}),
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


@pytest.mark.parametrize(
    ("data", "objects"),
    [
        (b'{"a":1}{"b":"}{"}', [b'{"a":1}', b'{"b":"}{"}']),
        (b'{"a":1}data: {"b":2}\ndata: [DONE]', [b'{"a":1}', b'{"b":2}', b"[DONE]"]),
        (b'\x1e{"a":1}\n\x1e{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}, {"b":', [b'{"a":1}', b'{"b":']),
        (b'{"a":1}', []),
        (b'{"a":', []),
        (b"", []),
    ],
)
def test_the_objects_in_a_row(data: bytes, objects: list[bytes]) -> None:
    assert split_objects(data) == objects


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
    [("a", "a"), (7, "7"), (None, ""), (True, ""), ({}, "")],
)
def test_the_name_in_a_value(value: Any, name: str) -> None:
    assert name_of_value(value) == name
