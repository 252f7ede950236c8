"""A turn's events as the Responses API streams them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.api.http.responses_codec import response_body
from antiphon.api.http.stream_events import DONE, EventEncoder
from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    Finish,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.events import Created, Ended, Event, ItemDone
from antiphon.core.items import FunctionCall, Message
from antiphon.core.turns import End, Header, Response, TurnError, TurnStatus, Usage
from antiphon.errors import StoreError
from antiphon.turn.turn_accumulator import TurnAccumulator
from support.api_strategies import check_event
from support.http_server import parse_events

OPENING = Response(
    id="resp_" + "0" * 32,
    created_at=1700000000.0,
    header=Header("m"),
    input=(Message("system", "Be brief."), Message("user", "Hi")),
)


def turn(
    deltas: Iterable[Delta], end: End | None = None, *, whole: bool = True
) -> tuple[list[Event], Response]:
    """All events of a turn whose model said ``deltas``."""
    machine = TurnAccumulator()
    events: list[Event] = [Created(OPENING)]
    for delta in deltas:
        events += machine.feed([delta])
    events += machine.close(is_complete=whole)
    end = end or End("completed", 1700000009.0, Usage(1, 2))
    response = msgspec.structs.replace(OPENING, output=machine.output, end=end)
    return [*events, Ended(response)], response


def encoded(events: Sequence[Event]) -> list[dict[str, Any]]:
    return parse_events(EventEncoder(OPENING).encode(events) + DONE)


def kinds(events: Iterable[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_an_answer() -> None:
    events, response = turn([OutputTextDelta("Hel"), OutputTextDelta("lo"), Finish("stop")])
    shown = encoded(events)
    assert kinds(shown) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    name = "msg_" + "0" * 32 + "02"
    part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    place = {"item_id": name, "output_index": 0, "content_index": 0}
    assert shown[2]["item"] == {
        "id": name,
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    assert shown[3]["part"] == {**part, "text": ""}
    assert shown[4] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "delta": "Hel",
        "logprobs": [],
        **place,
    }
    assert shown[6] == {
        "type": "response.output_text.done",
        "sequence_number": 6,
        "text": "Hello",
        "logprobs": [],
        **place,
    }
    assert shown[7]["part"] == part
    assert shown[8]["item"]["status"] == "completed"
    assert shown[8]["item"] == response_body(response)["output"][0]
    assert shown[9]["response"] == response_body(response)


def test_the_opening_has_every_key() -> None:
    shown = encoded(turn([])[0])
    assert kinds(shown) == ["created", "in_progress", "completed"]
    assert shown[0]["response"] == shown[1]["response"] == response_body(OPENING)
    assert shown[0]["response"]["status"] == "in_progress"
    assert set(shown[0]["response"]) == set(shown[2]["response"])


def test_reasoning_refusal_and_answer() -> None:
    shown = encoded(
        turn([ReasoningSummaryDelta("Hm."), RefusalTextDelta("No."), OutputTextDelta("But yes.")])[
            0
        ]
    )
    assert kinds(shown)[2:-1] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert shown[2]["item"]["summary"] == []
    assert (shown[4]["delta"], shown[4]["summary_index"]) == ("Hm.", 0)
    assert shown[6]["part"] == {"type": "summary_text", "text": "Hm."}
    assert shown[11]["refusal"] == "No."
    assert shown[12]["part"] == {"type": "refusal", "refusal": "No."}
    assert [event["output_index"] for event in shown[2:-1]] == [0] * 6 + [1] * 6 + [2] * 6


def test_raw_reasoning() -> None:
    shown = encoded(turn([ReasoningTextDelta("Hm"), ReasoningTextDelta("m.")])[0])
    assert kinds(shown)[2:-1] == [
        "output_item.added",
        "content_part.added",
        "reasoning.delta",
        "reasoning.delta",
        "reasoning.done",
        "content_part.done",
        "output_item.done",
    ]
    place = {"item_id": f"rs_{'0' * 32}02", "output_index": 0, "content_index": 0}
    assert shown[2]["item"]["content"] == shown[2]["item"]["summary"] == []
    assert shown[4] == {
        "type": "response.reasoning.delta",
        "sequence_number": 4,
        "delta": "Hm",
        **place,
    }
    assert shown[6] == {
        "type": "response.reasoning.done",
        "sequence_number": 6,
        "text": "Hmm.",
        **place,
    }
    assert shown[3]["part"] == {"type": "reasoning_text", "text": ""}
    assert shown[8]["item"]["content"] == [shown[7]["part"]]


def test_an_answer_with_its_sources_and_odds() -> None:
    odds: tuple[Any, ...] = tuple(
        {"token": word, "logprob": -0.5, "bytes": [], "top_logprobs": []} for word in ("A", "b")
    )
    source = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    shown = encoded(
        turn(
            [
                OutputTextDelta("A", odds[:1]),
                AnnotationDelta(source),
                OutputTextDelta("b", odds[1:]),
                OutputTextDelta("c"),
                AnnotationDelta(source),
            ]
        )[0]
    )
    assert kinds(shown)[4:-1] == [
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    for event in shown:
        check_event(event)
    assert [event["logprobs"] for event in shown[4:7]] == [[odds[0]], [odds[1]], []]
    assert [event["annotation_index"] for event in shown[7:9]] == [0, 1]
    assert (shown[7]["annotation"], shown[7]["content_index"]) == (source, 0)
    assert shown[9]["logprobs"] == list(odds)
    part = {
        "type": "output_text",
        "text": "Abc",
        "annotations": [source, source],
        "logprobs": list(odds),
    }
    assert shown[10]["part"] == part
    assert shown[11]["item"]["content"] == [part]


def test_a_turn_in_the_background_waits_first() -> None:
    header = Header("m", background=True)
    opening = msgspec.structs.replace(OPENING, header=header)
    opening = msgspec.structs.replace(opening, expires_at=1702592000.0)
    encoder = EventEncoder(opening)
    shown = parse_events(encoder.encode([Created(opening)]) + DONE)
    assert [(event["type"], event["response"]["status"]) for event in shown] == [
        ("response.created", "queued"),
        ("response.queued", "queued"),
        ("response.in_progress", "in_progress"),
    ]
    assert {event["response"]["expires_at"] for event in shown} == {1702592000}


def test_an_error_event() -> None:
    encoder = EventEncoder(OPENING)
    begun = encoder.encode([Created(OPENING)])
    *_, shown = parse_events(begun + encoder.encode_error(StoreError("The disk is full.")) + DONE)
    said = {"code": "store_unavailable", "message": "The disk is full.", "param": None}
    assert shown == {
        "type": "error",
        "sequence_number": 2,
        "error": {"type": "server_error", **said},
        **said,
    }
    check_event(shown)


def test_an_end_that_could_not_be_kept_shows_what_came() -> None:
    events, _ = turn([ToolCallDelta(0, "c", "f", "{}"), ToolCallDelta(1, "d", "g", "{}")])
    # The second call is whole, the first is not.
    told = [event for event in events[:-1] if event != ItemDone(0, FunctionCall("c", "f", "{}"))]
    encoder = EventEncoder(OPENING)
    begun = encoder.encode(told)
    *_, shown = parse_events(begun + encoder.encode_failure(StoreError("The disk is full.")) + DONE)
    assert shown["type"] == "response.failed"
    assert shown["response"]["error"]["code"] == "store_unavailable"
    assert [item["id"] for item in shown["response"]["output"]] == [f"fc_{'0' * 32}03"]


def test_calls_side_by_side() -> None:
    shown = encoded(
        turn(
            [
                ToolCallDelta(0, "call_a", "get_weather", '{"city":'),
                ToolCallDelta(1, "call_b", "get_time", ""),
                ToolCallDelta(0, arguments='"Oslo"}'),
                ToolCallDelta(1, arguments="{}"),
                Finish("tool_calls"),
            ]
        )[0]
    )
    calls = shown[2:-1]
    assert [
        (kind, event["output_index"]) for kind, event in zip(kinds(calls), calls, strict=True)
    ] == [
        ("output_item.added", 0),
        ("function_call_arguments.delta", 0),
        ("output_item.added", 1),
        ("function_call_arguments.delta", 0),
        ("function_call_arguments.delta", 1),
        ("function_call_arguments.done", 0),
        ("output_item.done", 0),
        ("function_call_arguments.done", 1),
        ("output_item.done", 1),
    ]
    added = calls[0]["item"]
    assert (added["call_id"], added["name"], added["arguments"]) == ("call_a", "get_weather", "")
    assert {event.get("item_id", event.get("item", {}).get("id")) for event in calls} == {
        f"fc_{'0' * 32}02",
        f"fc_{'0' * 32}03",
    }
    assert calls[5]["arguments"] == calls[6]["item"]["arguments"] == '{"city":"Oslo"}'


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("completed", "response.completed"),
        ("incomplete", "response.incomplete"),
        ("failed", "response.failed"),
        ("cancelled", "response.incomplete"),
    ],
)
def test_the_last_event_says_how_it_ended(status: TurnStatus, kind: str) -> None:
    error = TurnError("upstream_error", "It broke.") if status == "failed" else None
    end = End(status, 1700000009.0, None, error)
    shown = encoded(turn([OutputTextDelta("Hel")], end, whole=status == "completed")[0])
    assert shown[-1]["type"] == kind
    response = shown[-1]["response"]
    assert response["status"] == status
    assert response["output"][0]["content"][0]["text"] == "Hel"
    fragment = "completed" if status == "completed" else "incomplete"
    assert response["output"][0]["status"] == shown[-2]["item"]["status"] == fragment
    assert bool(response["error"]) == (status == "failed")


words = st.text(max_size=5)
pieces = st.builds(
    lambda index, text: ToolCallDelta(index, f"call_{index}", f"f{index}", text),
    st.integers(0, 3),
    words,
)
deltas = st.lists(
    st.builds(OutputTextDelta, words)
    | st.builds(ReasoningSummaryDelta, words)
    | st.builds(ReasoningTextDelta, words)
    | st.builds(RefusalTextDelta, words)
    | pieces,
    max_size=12,
)


@settings(deadline=None)
@given(deltas, st.data())
def test_the_same_bytes_however_they_leave(said: list[Delta], data: st.DataObject) -> None:
    events, _ = turn(said)
    whole = EventEncoder(OPENING).encode(events)
    encoder = EventEncoder(OPENING)
    parts = []
    while events:
        size = data.draw(st.integers(1, len(events)))
        parts.append(encoder.encode(events[:size]))
        events = events[size:]
    assert b"".join(parts) == whole
    # Whatever leaves together is whole: some clients read no event across two reads.
    assert all(part.startswith(b"event: ") and part.endswith(b"\n\n") for part in parts)


@settings(deadline=None)
@given(deltas, st.sampled_from(["completed", "failed", "cancelled"]))
def test_a_reader_of_the_events_knows_the_response(said: list[Delta], status: TurnStatus) -> None:
    error = TurnError("upstream_error", "It broke.") if status == "failed" else None
    events, response = turn(
        [*said, UsageUpdate(Usage(1, 2))], End(status, 1700000009.0, None, error), whole=not error
    )
    shown = encoded(events)
    texts: dict[int, str] = {}
    items: dict[int, dict[str, Any]] = {}
    for event in shown:
        check_event(event)
        if event["type"].endswith(".delta"):
            assert event["output_index"] not in items
            texts[event["output_index"]] += event["delta"]
        elif event["type"] == "response.output_item.added":
            assert event["output_index"] == len(texts)
            texts[event["output_index"]] = ""
        elif event["type"] == "response.output_item.done":
            items[event["output_index"]] = event["item"]
    output = shown[-1]["response"]["output"]
    assert [items[index] for index in sorted(items)] == output
    assert [texts[index] for index in sorted(texts)] == [_text(item) for item in output]
    assert len(output) == len(response.output)


def _text(item: dict[str, Any]) -> str:
    if item["type"] == "function_call":
        return str(item["arguments"])
    (part,) = item["summary"] if item.get("summary") else item["content"]
    return str(part["refusal"] if part["type"] == "refusal" else part["text"])


def test_a_call_that_had_no_name_at_first() -> None:
    shown = encoded(turn([ToolCallDelta(0, "c", None, ""), ToolCallDelta(0, None, "f", "{}")])[0])
    assert shown[-1]["response"]["output"][0]["name"] == "f"
    done = next(e for e in shown if e["type"] == "response.function_call_arguments.done")
    assert (done["name"], done["arguments"]) == ("f", "{}")
    assert isinstance(turn([ToolCallDelta(0, "c", "f", "{}")])[1].output[0], FunctionCall)
