"""An answer's items are the same in whatever order and however often a stream says them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.items import FunctionCall, Item, Message, Reasoning, message_text
from antiphon.models.openai.responses_stream import ResponsesParser
from antiphon.turn.turn_accumulator import TurnAccumulator

Json = dict[str, Any]

words = st.text("ab \U0001f600", min_size=1, max_size=12)


def message(index: int, text: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": f"msg_{index}", "role": "assistant", "content": content}


def reasoning(index: int, text: str) -> Json:
    summary = [{"type": "summary_text", "text": text}]
    return {"type": "reasoning", "id": f"rs_{index}", "summary": summary}


def call(index: int, text: str) -> Json:
    arguments = json.dumps({"a": text})
    fields = {"call_id": f"call_{index}", "name": "f", "arguments": arguments}
    return {"type": "function_call", "id": f"fc_{index}", **fields}


@st.composite
def answers(draw: st.DrawFn) -> list[Json]:
    makers = draw(st.lists(st.sampled_from([message, reasoning, call]), min_size=1, max_size=4))
    return [make(index, draw(words)) for index, make in enumerate(makers)]


def text_of(item: Json) -> str:
    match item["type"]:
        case "message":
            return str(item["content"][0]["text"])
        case "reasoning":
            return str(item["summary"][0]["text"])
    return str(item["arguments"])


_NAMES = {
    "message": ("response.output_text", "text"),
    "reasoning": ("response.reasoning_summary_text", "text"),
    "function_call": ("response.function_call_arguments", "arguments"),
}


def begun(item: Json) -> Json:
    empty: Json = {"content": [], "summary": [], "arguments": ""}
    return {**item, **{name: value for name, value in empty.items() if name in item}}


@st.composite
def item_events(
    draw: st.DrawFn, item: Json, index: int, *, everything: bool = False, has_begin: bool = False
) -> list[Json]:
    """The events of one item: all of its deltas, or its end, or both."""
    text, (name, field) = text_of(item), _NAMES[item["type"]]
    where: Json = {"output_index": index, "item_id": item["id"]}
    has_end = everything or draw(st.booleans())
    is_added = everything or has_begin or draw(st.booleans()) or item["type"] == "function_call"
    events: list[Json] = []
    if is_added:
        added = {"type": "response.output_item.added", "output_index": index, "item": begun(item)}
        events += [added] * (1 if everything else draw(st.integers(1, 2)))
    if everything or not has_end or draw(st.booleans()):
        cuts = [*sorted(draw(st.sets(st.integers(1, len(text)), max_size=4))), len(text)]
        pieces = [text[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
        events += [{"type": f"{name}.delta", "delta": piece, **where} for piece in pieces]
    if everything or draw(st.booleans()):
        events.append({"type": f"{name}.done", field: text, **where})
    if has_end:
        done = {"type": "response.output_item.done", "output_index": index, "item": item}
        events += [done] * (1 if everything else draw(st.integers(1, 2)))
    return events


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Json], list[Json]]:
    """An answer, and the events that tell it, in any order between its items."""
    items = draw(answers())
    # Ids alone, or indices alone, are enough.
    missing = draw(st.sampled_from(["none", "output_index", "item_id"]))
    has_begin = missing == "output_index"
    queues = [
        draw(item_events(item, index, has_begin=has_begin)) for index, item in enumerate(items)
    ]
    events: list[Json] = []
    while any(queues):
        queue = draw(st.sampled_from([one for one in queues if one]))
        events.append(queue.pop(0))
    events = [{key: it for key, it in event.items() if key != missing} for event in events]
    output = items if draw(st.booleans()) else []
    end = {"type": "response.completed", "response": {"status": "completed", "output": output}}
    return items, [*events, end]


def assembled(events: Iterator[bytes]) -> tuple[list[Item], ResponsesParser]:
    parser, accumulator = ResponsesParser("host/m"), TurnAccumulator()
    for event in events:
        accumulator.feed(parser.feed([event]))
    accumulator.feed(parser.finish())
    accumulator.close(is_complete=parser.error is None)
    return list(accumulator.output), parser


def encoded(events: list[Json]) -> Iterator[bytes]:
    return (json.dumps(event).encode() for event in events)


def shown(item: Item) -> tuple[str, ...]:
    match item:
        case Message():
            return ("message", message_text(item), item.status)
        case Reasoning(summary=summary):
            return ("reasoning", "".join(part.text for part in summary), item.status)
        case FunctionCall():
            return ("function_call", item.call_id, item.arguments, item.status)
    return ("other",)


def expected(item: Json) -> tuple[str, ...]:
    ids = (item["call_id"],) if item["type"] == "function_call" else ()
    return (item["type"], *ids, text_of(item), "completed")


@settings(deadline=None)
@given(streams())
def test_items_are_the_same_however_they_come(stream: tuple[list[Json], list[Json]]) -> None:
    items, events = stream
    output, parser = assembled(encoded(events))
    assert parser.error is None
    assert sorted(map(shown, output)) == sorted(map(expected, items)), json.dumps(events)


@settings(deadline=None)
@given(answers(), st.data())
def test_items_in_their_order_keep_it(items: list[Json], data: st.DataObject) -> None:
    events: list[Json] = [
        event for index, item in enumerate(items) for event in data.draw(item_events(item, index))
    ]
    end = {"type": "response.completed", "response": {"output": items}}
    output, _ = assembled(encoded([*events, end]))
    assert list(map(shown, output)) == list(map(expected, items))


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from paths_of(child, (*path, key))


@settings(deadline=None)
@given(answers(), st.data())
def test_a_field_of_another_type_loses_no_words(items: list[Json], data: st.DataObject) -> None:
    """A stream says everything several times: one of them may be odd."""
    events: list[Json] = [
        event
        for index, item in enumerate(items)
        for event in data.draw(item_events(item, index, everything=True))
    ]
    events.append({"type": "response.completed", "response": {"output": items}})
    events = copy.deepcopy(events)
    target: Any = events[number := data.draw(st.integers(0, len(events) - 1))]
    *path, last = data.draw(st.sampled_from(list(paths_of(target))))
    for key in path:
        target = target[key]
    odd: list[Any] = [None, True, 7, -1, 0.5, [], {}, [7], {"a": []}, 10**30]
    target[last] = data.draw(st.sampled_from(odd if target[last] != [] else ["none", *odd]))
    output, parser = assembled(encoded(events))
    told = "\n".join(shown(item)[-2] for item in output)
    for item in items:
        assert text_of(item) in told, (events[number], told)
    if (number, last) != (len(events) - 1, "type"):
        assert parser.error is None


_CALL = {"type": "function_call", "id": "fc_0", "call_id": "call_0", "name": "f"}


def _arguments_of(pieces: list[str], last: object, **done: object) -> list[str]:
    """The arguments of a call that came in pieces, whose end has ``last`` and its item ``done``."""
    where = {"output_index": 0, "item_id": "fc_0"}
    kind = "response.function_call_arguments"
    item = {**_CALL, **done}
    events: list[Json] = [
        {"type": "response.output_item.added", "output_index": 0, "item": _CALL},
        *({"type": f"{kind}.delta", "delta": piece, **where} for piece in pieces),
        {"type": f"{kind}.done", "arguments": last, **where},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"output": [item]}},
    ]
    output, _ = assembled(encoded(events))
    return [shown(item)[-2] for item in output]


@pytest.mark.parametrize("last", [{}, {"a": []}, [], None, "", "{}", 7])
def test_arguments_that_came_in_pieces_outlive_an_end_that_has_none(last: object) -> None:
    assert _arguments_of(['{"a": ', "1}"], last, arguments=last) == ['{"a": 1}']


@pytest.mark.parametrize("pieces", [["{}"], ["{", "}"], [""], ["{"], ['{"a":']])
@pytest.mark.parametrize(
    ("last", "done"),
    [
        ('{"a":1}', {}),
        ('{"a":1}', {"arguments": None}),
        ("", {"arguments": '{"a":1}'}),
        ({"a": 1}, {"arguments": {"a": 1}}),
    ],
)
def test_arguments_of_the_end_stand_where_those_in_pieces_are_none_or_cut(
    pieces: list[str], last: object, done: Json
) -> None:
    assert _arguments_of(pieces, last, **done) == ['{"a":1}']
