"""Custom tool input: text encoded in the JSON arguments of a function."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.custom_tool_input import CustomInputDecoder, custom_arguments, input_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def decoded(arguments: str, cuts: list[int]) -> str:
    """The text decoded from arguments that are split at these positions."""
    decoder = CustomInputDecoder()
    boundaries = sorted({min(cut, len(arguments)) for cut in cuts} | {0, len(arguments)})
    pieces = [arguments[start:end] for start, end in pairwise(boundaries)]
    return "".join([*map(decoder.feed, pieces), decoder.finish()])


@given(TEXTS, st.booleans(), st.lists(st.integers(0, 60)))
def test_text_round_trips_for_any_split(text: str, escapes: bool, cuts: list[int]) -> None:
    for arguments in (json.dumps({"input": text}, ensure_ascii=escapes), custom_arguments(text)):
        assert decoded(arguments, cuts) == text
        assert input_of(arguments) == text


@given(
    TEXTS
    | st.dictionaries(st.sampled_from(["input", "a"]), TEXTS | st.integers()).map(json.dumps)
    | TEXTS.map(lambda text: '{"input":"' + text),
    st.lists(st.integers(0, 60)),
)
def test_decoded_text_does_not_depend_on_the_split(arguments: str, cuts: list[int]) -> None:
    text = decoded(arguments, cuts)
    assert text == decoded(arguments, [])
    text.encode()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"patch":"x"}', "x"),
        ('{"why":"y","input":"x"}', "x"),
        ('{"input":"x","why":"y"}', "x"),
        ('{"why":"y","what":"x"}', '{"why":"y","what":"x"}'),
        ('"x"', "x"),
        ("x", "x"),
        ("", ""),
        ("{}", ""),
        ("null", ""),
        ('{"input":null}', ""),
        ('{"input":{"a":1}}', '{"a":1}'),
        ('{"input":["a"]}', '["a"]'),
        ('{"input":"cut', "cut"),
        ('{"inp', ""),
        (r'{"input":"\d+\ "}', r"\d+\ "),
        (r'{"input":"\u12 \ud83d!"}', r"\u12 " + "�!"),
        (r'{"input":"\ud83d\ude00\/\b"}', "😀/\b"),
        ('{"input":"a\nb\tc"}', "a\nb\tc"),
    ],
)
def test_unusual_arguments_are_decoded(arguments: str, text: str) -> None:
    for cuts in ([], list(range(len(arguments)))):
        assert decoded(arguments, cuts) == text
