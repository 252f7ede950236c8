"""Arguments that are meant as an object are one, and others stay as they are."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.models.openai.argument_mending import normalize_arguments
from antiphon.models.openai.tool_call_assembly import ToolCallAssembler
from antiphon.models.openai.tool_call_fragments import ToolCallFragment
from antiphon.models.openai.tool_names import known_name

ONE = {"c": 1}
MENDED: dict[str, Any] = {
    '```json\n{"c":1}\n```': ONE,
    '```\n{"c": 1}```': ONE,
    '<|tool_call_argument_begin|>{"c":1}': ONE,
    '{"c":1}<|tool_call_end|>': ONE,
    '<tool_call>\n{"c":1}\n</tool_call>': ONE,
    '\ufeff{"c":1}': ONE,
    '"{\\"c\\":1}"': ONE,
    json.dumps(json.dumps('{"c":1}')): ONE,
    "{'c': 1}": ONE,
    '{"c":1,}': ONE,
    '{"c": True, "d": None}': {"c": True, "d": None},
    '{"c":NaN}': {"c": None},
    '{"c":"a\nb"}': {"c": "a\nb"},
    "{c: 1}": ONE,
    "{c: 'x', d_e: [1, {f: true}]}": {"c": "x", "d_e": [1, {"f": True}]},
    '{c: "a, b: 1"}': {"c": "a, b: 1"},
    '{"c": 1 // one\n}': ONE,
    "None": {},
    "undefined": {},
    "null": {},
    " ": {},
    "[]": {},
}
LEFT = (
    *('{"c":', "{", "[1]", "5", "words", '"words"', '{"c":1}{"c":2}', "<b>", "```"),
    *('{"c":1} {"c":', "{'c': open('x')}", "(" * 300),
)


@pytest.mark.parametrize("arguments", MENDED)
def test_an_object_is_what_was_meant(arguments: str) -> None:
    assert json.loads(normalize_arguments(arguments)) == MENDED[arguments]


@pytest.mark.parametrize("arguments", LEFT)
def test_what_has_no_one_meaning_stays(arguments: str) -> None:
    assert normalize_arguments(arguments) == arguments


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES, min_size=1), st.sampled_from([None, 2]), st.booleans())
def test_an_object_of_json_stays_as_it_is_written(
    value: dict[str, Any], indent: int | None, is_ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    assert normalize_arguments(text) == text


@given(st.text())
def test_any_text_is_arguments(text: str) -> None:
    normalized = normalize_arguments(text)
    assert normalized == text or isinstance(json.loads(normalized), dict)


def assembled(arguments: str, cuts: list[int]) -> str:
    """The arguments of a call that come in pieces."""
    assembler = ToolCallAssembler(("lookup",))
    edges = sorted({0, len(arguments), *(one % (len(arguments) + 1) for one in cuts)})
    pieces = [arguments[a:b] for a, b in pairwise(edges)]
    deltas = assembler.feed([ToolCallFragment(0, "a", "lookup", "")])
    for piece in pieces:
        deltas += assembler.feed([ToolCallFragment(0, "", "", piece)])
    deltas += assembler.finish()
    assert {one.index for one in deltas} == {0}
    return "".join(one.arguments for one in deltas)


@given(st.dictionaries(st.text(), st.text(), min_size=1), st.lists(st.integers(0, 99), max_size=5))
def test_raw_control_characters_are_escaped_wherever_pieces_end(
    value: dict[str, str], cuts: list[int]
) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    for escape, raw in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r"), ("\\u0000", "\0")):
        text = text.replace("\\\\", "\x7f").replace(escape, raw).replace("\x7f", "\\\\")
    if "\x7f" not in "".join((*value, *value.values())):
        assert json.loads(assembled(text, cuts)) == value


@pytest.mark.parametrize(
    "arguments",
    [one for one in MENDED if one.startswith(("`", "<", '"', "{'", "N", "u", "\ufeff"))],
)
@given(st.lists(st.integers(0, 99), max_size=5))
def test_what_can_wait_for_its_end_is_mended_wherever_pieces_end(
    arguments: str, cuts: list[int]
) -> None:
    assert json.loads(assembled(arguments, cuts)) == MENDED[arguments]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("lookup", "lookup"),
        ("functions.lookup", "lookup"),
        ("functions.lookup:0", "lookup"),
        ("default_api.lookup", "lookup"),
        ("lookup<|channel|>commentary", "lookup"),
        ("lookup()", "lookup"),
        ('"lookup"', "lookup"),
        ("api.lookup", "api.lookup"),
        ("Lookup", "Lookup"),
        ("lookup2", "lookup2"),
        ("functions.other", "functions.other"),
        ("", ""),
    ],
)
def test_a_name_is_that_of_a_tool_where_it_can_only_be_that(name: str, known: str) -> None:
    assert known_name(name, {"lookup", "api.lookup"}) == known
    assert known_name(name, ()) == name
