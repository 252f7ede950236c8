"""Tool calls in chat completions answers, however servers mark them."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.core.deltas import Finish, ToolCallDelta
from support.chat_completions_chunks import chunk, function_fields, parse_deltas


def called(*calls: Any) -> list[ToolCallDelta]:
    """The pieces from chunks with these ``tool_calls`` entries."""
    chunks = [chunk(tool_calls=one if isinstance(one, list) else [one]) for one in calls]
    return [one for one in parse_deltas(*chunks, b"[DONE]") if isinstance(one, ToolCallDelta)]


def test_calls_in_fragments() -> None:
    assert called(
        {"index": 0, "id": "x", "function": function_fields("f")},
        {"index": 0, "function": function_fields(None, '{"a"')},
        {"index": 1, "id": "y", "function": function_fields("g", "{}")},
        {"index": 0, "function": function_fields(None, ":1}")},
    ) == [
        ToolCallDelta(0, "x", "f", ""),
        ToolCallDelta(0, None, None, '{"a"'),
        ToolCallDelta(1, "y", "g", "{}"),
        ToolCallDelta(0, None, None, ":1}"),
    ]


def test_repeated_ids_and_names_are_emitted_once() -> None:
    piece = {"index": 0, "id": "x", "function": function_fields("f", "1")}
    assert called(piece, piece) == [
        ToolCallDelta(0, "x", "f", "1"),
        ToolCallDelta(0, None, None, "1"),
    ]


def test_a_name_or_id_that_comes_late() -> None:
    assert called(
        {"index": 0, "id": ""}, {"index": 0, "id": "x", "function": function_fields("f")}
    ) == [
        ToolCallDelta(0),
        ToolCallDelta(0, "x", "f"),
    ]


def test_a_new_id_under_an_old_index_is_a_new_call() -> None:
    assert called(
        {"index": 0, "id": "x", "function": function_fields("f", "{}")},
        {"index": 0, "id": "y", "function": function_fields("f", "{}")},
        {"index": 0, "id": "y", "function": function_fields("f", " ")},
    ) == [
        ToolCallDelta(0, "x", "f", "{}"),
        ToolCallDelta(1, "y", "f", "{}"),
        ToolCallDelta(1, None, None, " "),
    ]


def test_indexes_that_do_not_begin_at_0() -> None:
    pieces = called({"index": 3, "id": "x"}, {"index": 1, "id": "y"}, {"index": 3})
    assert [piece.index for piece in pieces] == [0, 1, 0]


def test_without_an_index_the_id_identifies_the_call() -> None:
    pieces = called(
        {"id": "x", "function": function_fields("f", "{")},
        {"id": "y", "function": function_fields("f", "[")},
        {"id": "x", "function": function_fields(None, "}")},
        {"function": function_fields(None, "]")},
    )
    assert [(one.index, one.arguments) for one in pieces] == [
        (0, "{"),
        (1, "["),
        (0, "}"),
        (1, "]"),
    ]


def test_without_index_and_id_the_name_identifies_the_call() -> None:
    pieces = called(
        {"function": function_fields("f", '{"a":')},
        {"function": function_fields("f", "1}")},
        {"function": function_fields("f", "{}")},
        {"function": function_fields("g", "{}")},
        [{"function": function_fields("g", "{")}, {"function": function_fields("g", "{}")}],
        {"function": function_fields(None, "...")},
    )
    assert [piece.index for piece in pieces] == [0, 0, 1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("sent", "arguments"),
    [
        (None, ""),
        ("", ""),
        ({"a": [1]}, '{"a": [1]}'),
        ('{"é":1}', '{"é":1}'),
        ("no json", "no json"),
    ],
)
def test_arguments_as_text_or_object(sent: Any, arguments: str) -> None:
    assert called({"index": 0, "id": "x", "function": function_fields("f", sent)}) == [
        ToolCallDelta(0, "x", "f", arguments)
    ]


def test_the_old_way_to_call_a_function() -> None:
    deltas = parse_deltas(
        chunk(function_call=function_fields("f", "{")),
        chunk("function_call", function_call={"arguments": "}"}),
    )
    assert deltas == [
        ToolCallDelta(0, None, "f", "{"),
        ToolCallDelta(0, None, None, "}"),
        Finish("tool_calls"),
    ]


def test_an_answer_with_calls_stops_for_them() -> None:
    assert parse_deltas(chunk("stop", tool_calls=[{"index": 0, "function": function_fields("f")}]))[
        -1
    ] == Finish("tool_calls")
