"""Arguments: what a model wrote, and the sentences it reads back."""

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
def test_nothing_is_no_arguments(text: str) -> None:
    assert parse_arguments(text) == {}


def test_an_object_is_read() -> None:
    assert parse_arguments('{"a": [1, {"b": "ü"}]}') == {"a": [1, {"b": "ü"}]}


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidArgumentsError, match=said):
        parse_arguments(text)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ([], "the arguments"),
        (["a"], "argument 'a'"),
        (["items", 0, "price"], "argument 'items[0].price'"),
    ],
)
def test_a_place_is_written_as_in_python(path: list[str | int], said: str) -> None:
    assert format_path(path) == said


def test_faults_are_said_once_and_kept_short() -> None:
    many = invalid_arguments(
        ["b is missing", "a is bad", "b is missing", *(str(n) for n in range(9))]
    )
    assert str(many) == "Invalid arguments: b is missing; a is bad; 0; 1; 2; 3; and 5 more."
    assert len(str(invalid_arguments(["x" * 10_000]))) < 350


def test_what_cannot_say_what_it_is_is_named() -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError

    assert shorten(Mute()) == "Mute"
    assert shorten("abcdef", 3) == "ab…"
