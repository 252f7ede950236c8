"""Tool calls in chat completions answers, however servers mark them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.deltas import Finish, ToolCallDelta
from antiphon.models.openai.tool_call_assembly import ToolCallAssembler
from antiphon.models.openai.tool_call_fragments import read_fragments
from support.chat_completions_chunks import chunk, function_fields, parse_deltas, parse_events

Json = dict[str, Any]
TOOLS = ("lookup", "now", "look_around")


def deltas_of(
    *chunks: Any, tools: Sequence[str] = TOOLS, whole: bool = False, is_cut: bool = False
) -> list[ToolCallDelta]:
    """The deltas from chunks with these ``tool_calls``, or with one entry each."""
    assembler = ToolCallAssembler(tools)
    feed = assembler.feed_whole if whole else assembler.feed
    out: list[ToolCallDelta] = []
    for one in chunks:
        out += feed(read_fragments(one if isinstance(one, list) else [one]))
    assembler.complete_names()
    return out + assembler.finish(is_cut=is_cut)


def calls_in(deltas: list[ToolCallDelta]) -> list[tuple[str | None, str, str]]:
    """Id, name and arguments of each call; a call's first delta has its name."""
    calls: dict[int, tuple[str | None, str, str]] = {}
    for one in deltas:
        if one.index not in calls:
            assert one.name
            calls[one.index] = one.call_id, one.name, one.arguments
        else:
            assert one.name is None
            call_id, name, arguments = calls[one.index]
            calls[one.index] = call_id, name, arguments + one.arguments
    assert list(calls) == list(range(len(calls)))
    return list(calls.values())


def made(*chunks: Any, **options: Any) -> list[tuple[str, str]]:
    """Name and arguments of each call."""
    return [(name, arguments) for _, name, arguments in calls_in(deltas_of(*chunks, **options))]


def entry(name: Any = None, arguments: Any = "", **marks: Any) -> Json:
    return {**marks, "function": function_fields(name, arguments)}


def test_fragments_are_emitted_as_they_come() -> None:
    assert deltas_of(
        entry("lookup", index=0, id="x"),
        entry(None, '{"a"', index=0),
        entry("now", '{"b":2}', index=1, id="y"),
        entry(None, ":1}", index=0),
    ) == [
        ToolCallDelta(0, "x", "lookup", ""),
        ToolCallDelta(0, None, None, '{"a"'),
        ToolCallDelta(1, "y", "now", '{"b":2}'),
        ToolCallDelta(0, None, None, ":1}"),
    ]


C1, C2 = '{"c":1}', '{"c":2}'
ONE = [("lookup", C1)]
TWO = [("lookup", C1), ("lookup", C2)]

CALLS: dict[str, tuple[list[Any], list[tuple[str, str]]]] = {
    "ids and names repeated": (
        [
            entry("lookup", '{"c"', index=0, id="x"),
            entry("lookup", ":1}", index=0, id="x"),
            entry("lookup", "", index=0, id="x"),
        ],
        ONE,
    ),
    "a name that comes late": ([entry("", "", index=0, id="x"), entry("lookup", C1, index=0)], ONE),
    "arguments before the name": ([entry(None, C1, index=0), entry("lookup", index=0)], ONE),
    "a new id under an old index": (
        [entry("lookup", C1, index=0, id="x"), entry("lookup", C2, index=0, id="y")],
        TWO,
    ),
    "interleaved ids under one index": (
        [
            entry("lookup", '{"c"', index=0, id="x"),
            entry("lookup", '{"c"', index=0, id="y"),
            entry(None, ":1}", index=0, id="x"),
            entry(None, ":2}", index=0, id="y"),
        ],
        TWO,
    ),
    "another id with each piece": (
        [
            entry("lookup", '{"c"', index=0, id="x"),
            entry(None, ":", index=0, id="y"),
            entry("lookup", "1}", index=0, id="z"),
        ],
        ONE,
    ),
    "an index that grows with each piece": (
        [
            entry("lookup", "", index=0, id="x"),
            entry(None, '{"c"', index=0),
            entry(None, ":1}", index=1),
        ],
        ONE,
    ),
    "by id, without index": (
        [
            entry("lookup", '{"c"', id="x"),
            entry("lookup", '{"c"', id="y"),
            entry(None, ":1}", id="x"),
            entry(None, ":2}", id="y"),
        ],
        TWO,
    ),
    "by name, without index and id": ([entry("lookup", C1), entry("lookup", C2)], TWO),
    "whole and equal, in one chunk": ([[entry("lookup", C1), entry("lookup", C1)]], ONE * 2),
    "whole and equal, again": ([entry("lookup", C1), entry("lookup", '{"c": 1}')], ONE),
    "all again at the end": (
        [
            entry("lookup", C1, index=0, id="x"),
            entry("lookup", C2, index=1, id="y"),
            [entry("lookup", C1, index=0, id="x"), entry("lookup", C2, index=1, id="y")],
        ],
        TWO,
    ),
    "all that came with each piece": (
        [
            entry("lookup", '{"c"', index=0),
            entry("lookup", '{"c":', index=0),
            entry("lookup", C1, index=0),
        ],
        ONE,
    ),
    "all that came with each piece, in a string": (
        [entry("lookup", '{"c":"a', index=0), entry("lookup", '{"c":"ab"}', index=0)],
        [("lookup", '{"c":"ab"}')],
    ),
    "nested objects that look alike": (
        [
            entry("lookup", '{"c":', index=0),
            entry(None, '{"c":', index=0),
            entry(None, "1}}", index=0),
        ],
        [("lookup", '{"c":{"c":1}}')],
    ),
    "glued": ([entry("lookup", C1 + C2, index=0, id="x")], TWO),
    "glued, in lines": ([entry("lookup", f"{C1}\n{C2}\n", index=0, id="x")], TWO),
    "glued, then pieces": (
        [entry("lookup", C1 + '{"c"', index=0, id="x"), entry(None, ":2}", index=0)],
        TWO,
    ),
    "signs behind the object": (
        [entry("lookup", C1, index=0), entry(None, "}</tool>", index=0)],
        ONE,
    ),
    "braces in strings": (
        [entry("lookup", '{"c":"}\\', index=0), entry(None, '"{"}', index=0)],
        [("lookup", '{"c":"}\\"{"}')],
    ),
    "an empty object first": (
        [
            entry("lookup", "{}", index=0, id="x"),
            entry(None, '{"c"', index=0),
            entry(None, ":1}", index=0),
        ],
        ONE,
    ),
    "an empty object first, as an object": (
        [entry("lookup", {}, index=0, id="x"), entry(None, C1, index=0)],
        ONE,
    ),
    "an empty object last": (
        [
            entry("lookup", C1, index=0, id="x"),
            entry(None, "{}", index=0),
            entry("lookup", "", index=0),
        ],
        ONE,
    ),
    "null, as a string, first": ([entry("lookup", "null", index=0), entry(None, C1, index=0)], ONE),
    "name in pieces": (
        [entry("look", index=0), entry("up", index=0), entry(None, C1, index=0)],
        ONE,
    ),
    "name in pieces, without index": ([entry("look"), entry("up"), entry(None, C1)], ONE),
    "name that is the beginning of another": (
        [entry("look", index=0), entry("_around", "{}", index=0)],
        [("look_around", "{}")],
    ),
    "name that grows": ([entry("look", index=0), entry("lookup", C1, index=0)], ONE),
    "two names without arguments": ([entry("now"), entry("lookup", C1)], [("now", "{}"), *ONE]),
    "two names, one index": (
        [entry("now", index=0), entry("lookup", C1, index=0)],
        [("now", "{}"), *ONE],
    ),
    "in a string": ([entry("lookup", json.dumps(C1), index=0)], ONE),
    "in a string, in pieces": (
        [entry("lookup", '"{\\"c\\"', index=0), entry(None, ':1}"', index=0)],
        ONE,
    ),
    "flat": ([{"index": 0, "id": "x", "name": "lookup", "arguments": C1}], ONE),
    "function as a string": ([{"index": 0, "function": "lookup", "arguments": C1}], ONE),
    "no json": ([entry("lookup", "Paris", index=0)], [("lookup", "Paris")]),
    "no json, in pieces": (
        [entry("lookup", "Pa", index=0), entry(None, "{ris", index=0)],
        [("lookup", "Pa{ris")],
    ),
    "a function nobody offered": ([entry("other", C1, index=0)], [("other", C1)]),
    "a list": ([entry("lookup", [1, 2], index=0)], [("lookup", "[1,2]")]),
    "an empty list": ([entry("lookup", [], index=0)], [("lookup", "{}")]),
    "an empty string in json": ([entry("lookup", '""', index=0)], [("lookup", "{}")]),
    "false": ([entry("lookup", False, index=0)], [("lookup", "{}")]),
    "a stub with an id": ([entry("lookup", C1, index=0), entry("", "", index=1, id="z")], ONE),
    "a stub with an empty object": ([entry("lookup", C1, index=0), entry("", "{}", index=1)], ONE),
    "a stub first": ([entry("", "", index=0), entry("lookup", C1, index=0, id="x")], ONE),
    "a stub with another id first": (
        [entry("", "", index=0, id="s"), entry("lookup", C1, index=0, id="x")],
        ONE,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_are_marked_in_odd_ways(name: str) -> None:
    chunks, calls = CALLS[name]
    assert made(*chunks) == calls


@pytest.mark.parametrize(
    "tool_calls",
    [
        None, {}, "", [], [None], [3], [{}], 7, [entry("", "")], [entry(None, None)],
        [entry("", "{}")], [{"index": 0, "function": None}], [{"index": 0, "id": "x"}],
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_stubs_are_no_calls(tool_calls: Any, whole: bool) -> None:
    assert deltas_of(tool_calls, whole=whole) == []


def test_entries_in_an_object_are_read() -> None:
    assert [one.name for one in read_fragments({"0": entry("now"), "1": entry("lookup")})] == [
        "now",
        "lookup",
    ]
    assert [one.name for one in read_fragments(entry("now"))] == ["now"]


def test_each_entry_of_a_whole_answer_is_a_call() -> None:
    entries = [
        entry("lookup", C1, index=0, id="x"),
        entry("lookup", C1, index=0, id="x"),
        entry("now"),
    ]
    assert made(entries, whole=True) == [*ONE, *ONE, ("now", "{}")]


def test_the_only_function_is_the_one_that_is_called_without_a_name() -> None:
    assert made(entry("", C1, index=0), tools=["lookup"]) == ONE


def test_a_call_without_a_name_fails() -> None:
    for reason in ("stop", "tool_calls"):
        deltas, parser = parse_events(chunk(tool_calls=[entry("", C1, index=0)]), chunk(reason))
        assert deltas == []
        assert "has no name" in str(getattr(parser.error, "error", None))


def test_a_cut_call_stays_as_it_came() -> None:
    for arguments in ('{"c"', "{", '"{', "nul"):
        assert made(entry("lookup", arguments, index=0), is_cut=True) == [("lookup", arguments)]
    # Whether its name is whole nobody knows.
    assert made(entry("look", "", index=0), is_cut=True) == [("look", "")]


def test_a_legacy_call() -> None:
    assert parse_deltas(
        chunk(function_call=function_fields("f", '{"a"')),
        chunk("function_call", function_call={"arguments": ":1}"}),
    ) == [
        ToolCallDelta(0, None, "f", '{"a"'),
        ToolCallDelta(0, None, None, ":1}"),
        Finish("tool_calls"),
    ]


def test_an_answer_with_calls_stops_for_them() -> None:
    assert parse_deltas(chunk("stop", tool_calls=[entry("f", index=0)]))[-1] == Finish("tool_calls")


# However calls are divided, mixed and repeated, they are the same.


class Marks:
    """How an upstream marks the pieces of its calls."""

    def __init__(self, data: st.DataObject, count: int) -> None:
        self.has_index = data.draw(st.booleans())
        # Something has to tell interleaved calls apart.
        self.has_id = not self.has_index or data.draw(st.booleans())
        self.index_type = data.draw(st.sampled_from([int, str, float]))
        self.first_index = data.draw(st.integers(0, 3))
        self.repeats_id = not self.has_index or data.draw(st.booleans())
        self.repeats_name = data.draw(st.booleans())
        self.blank_name = data.draw(st.sampled_from([None, ""]))


ARGUMENTS = st.dictionaries(
    st.text(max_size=3),
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=5), st.none(), st.booleans()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=2), inner, max_size=2)
        ),
        max_leaves=4,
    ),
    max_size=3,
)


@st.composite
def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(st.data(), st.lists(st.tuples(st.sampled_from(TOOLS), ARGUMENTS), min_size=1, max_size=4))
def test_calls_are_the_same_however_they_come(
    data: st.DataObject, calls: list[tuple[str, Json]]
) -> None:
    marks = Marks(data, len(calls))
    queues: list[list[Json]] = []
    expected = []
    for number, (name, value) in enumerate(calls):
        text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
        expected.append((name, "{}" if not value else text))
        queue = []
        for position, piece in enumerate(data.draw(pieces_of(text))):
            is_first = position == 0
            one = entry(name if is_first or marks.repeats_name else marks.blank_name, piece)
            if marks.has_index:
                one["index"] = marks.index_type(number + marks.first_index)
            if marks.has_id and (is_first or marks.repeats_id):
                one["id"] = f"id{number}"
            queue.append(one)
        if data.draw(st.booleans()) and value:
            # Some repeat the whole call at its end.
            queue.append({**queue[0], "function": {"name": name, "arguments": text}})
        queues.append(queue)
    chunks: list[list[Json]] = []
    order: list[int] = []
    while waiting := [number for number, queue in enumerate(queues) if queue]:
        number = data.draw(st.sampled_from(waiting))
        if number not in order:
            order.append(number)
        chunks.append([queues[number].pop(0)])
    found = calls_in(deltas_of(*chunks))
    assert [(name, arguments) for _, name, arguments in found] == [expected[n] for n in order]
    if marks.has_id:
        assert [call_id for call_id, _, _ in found] == [f"id{number}" for number in order]


@given(st.data(), st.lists(st.tuples(st.sampled_from(TOOLS), ARGUMENTS), min_size=1, max_size=4))
def test_whole_calls_need_no_marks(data: st.DataObject, calls: list[tuple[str, Json]]) -> None:
    """In one answer, or in one chunk, each entry is a call."""
    as_object = data.draw(st.booleans())
    index = data.draw(st.sampled_from([None, 0, "0"]))
    entries = [
        entry(name, value if as_object else json.dumps(value), index=index) for name, value in calls
    ]
    expected = [(name, value) for name, value in calls]
    for whole in (True, False):
        found = made(entries, whole=whole)
        assert [(name, json.loads(arguments)) for name, arguments in found] == expected


@given(st.lists(st.text(alphabet='{}[]":,\\a1 ', max_size=6), max_size=5))
def test_no_text_of_arguments_is_an_error(pieces: list[str]) -> None:
    chunks = [entry("lookup" if at == 0 else None, one, index=0) for at, one in enumerate(pieces)]
    for is_cut in (True, False):
        calls_in(deltas_of(*chunks, is_cut=is_cut))
