"""Tool arguments: parsing, and the error messages that a model gets."""

from __future__ import annotations

import pytest

from antiphon.tools.tool_outputs import (
    InvalidArgumentsError,
    format_path,
    invalid_arguments,
    parse_arguments,
    shorten,
)


@pytest.mark.parametrize("text", ["", "  \n", "null", "{}"])
def test_empty_arguments_are_an_empty_object(text: str) -> None:
    assert parse_arguments(text) == {}


def test_json_object_is_parsed() -> None:
    assert parse_arguments('{"a": [1, {"b": "ü"}]}') == {"a": [1, {"b": "ü"}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a"', "not valid JSON"),
        ('{"a": NaN}', "not valid JSON"),
        ('{"a": 1e999}', "not valid JSON"),
        ('{"a": "\\ud800"}', "not valid JSON"),
        ('{"a": "\ud800"}', "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "not a JSON object"),
        ('"{}"', "not a JSON object"),
    ],
)
def test_other_arguments_are_refused(text: str, expected: str) -> None:
    with pytest.raises(InvalidArgumentsError, match=expected):
        parse_arguments(text)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([], "the arguments"),
        (["a"], "argument 'a'"),
        (["items", 0, "price"], "argument 'items[0].price'"),
    ],
)
def test_path_is_formatted_as_in_python(path: list[str | int], expected: str) -> None:
    assert format_path(path) == expected


def test_errors_are_deduplicated_and_truncated() -> None:
    many = invalid_arguments(
        ["b is missing", "a is bad", "b is missing", *(str(n) for n in range(9))]
    )
    assert str(many) == "Invalid arguments: b is missing; a is bad; 0; 1; 2; 3; and 5 more."
    assert len(str(invalid_arguments(["x" * 10_000]))) < 350


def test_unprintable_value_is_shown_by_its_type() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ValueError

    assert shorten(Unprintable()) == "Unprintable"
    assert shorten("abcdef", 3) == "ab…"
