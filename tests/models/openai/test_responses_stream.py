"""The Responses dialect, the way back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    EncryptedReasoning,
    Finish,
    ForeignItemDelta,
    ItemEnd,
    ItemSwitch,
    OutputTextDelta,
    PhaseDelta,
    ProviderFieldsDelta,
    ReasoningSummaryDelta,
    ReasoningTextDelta,
    RefusalTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.turns import Usage
from antiphon.models.openai.responses_stream import ResponsesParser
from antiphon.models.retry import AttemptError
from support.responses_upstream import (
    Json,
    body,
    function_call_item,
    message,
    reasoning_item,
    refusal,
    stream_events,
)

ORIGIN = "host/m"
USED = UsageUpdate(Usage(5, 2))
SOURCE = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "u", "title": "t"}
LOGPROBS = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


def read(*events: Json | bytes) -> tuple[list[Delta], ResponsesParser]:
    reader = ResponsesParser(ORIGIN)
    data = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in events]
    return reader.feed(data) + reader.finish(), reader


def parsed(*events: Json | bytes) -> list[Delta]:
    deltas, reader = read(*events)
    assert reader.error is None
    assert reader.done
    return deltas


def whole(answer: Json | bytes) -> tuple[list[Delta], ResponsesParser]:
    reader = ResponsesParser(ORIGIN)
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return reader.parse_body(data) + reader.finish(), reader


def joined(deltas: list[Delta]) -> list[Delta]:
    """With neighbours of one kind made one."""
    out: list[Delta] = []
    for delta in deltas:
        last = out[-1] if out else None
        if isinstance(
            delta, OutputTextDelta | ReasoningSummaryDelta | ReasoningTextDelta | RefusalTextDelta
        ) and type(last) is type(delta):
            out[-1] = msgspec.structs.replace(delta, text=last.text + delta.text)
        elif (
            isinstance(delta, ToolCallDelta) and isinstance(last, ToolCallDelta) and not delta.name
        ):
            more = last.arguments + delta.arguments
            out[-1] = msgspec.structs.replace(last, arguments=more)
        else:
            out.append(delta)
    return out


ANSWERS: list[tuple[list[Json], list[Delta]]] = [
    ([message("Hello, you.")], [OutputTextDelta("Hello, you."), ItemEnd(), USED, Finish("stop")]),
    ([refusal("I will not.")], [RefusalTextDelta("I will not."), ItemEnd(), USED, Finish("stop")]),
    (
        [message("I look."), message("It is sunny.")],
        [
            OutputTextDelta("I look."),
            ItemEnd(),
            OutputTextDelta("It is sunny."),
            ItemEnd(),
            USED,
            Finish("stop"),
        ],
    ),
    (
        [
            {**message("I look."), "phase": "commentary"},
            {**message("Sunny."), "phase": "final_answer"},
            {**message("Bye."), "phase": "epilogue"},
        ],
        [
            *(PhaseDelta("commentary"), OutputTextDelta("I look."), ItemEnd()),
            *(PhaseDelta("final_answer"), OutputTextDelta("Sunny."), ItemEnd()),
            *(OutputTextDelta("Bye."), ItemEnd(), USED, Finish("stop")),
        ],
    ),
    (
        [reasoning_item("gAAA", "**Plan**", "Then."), message("Yes.")],
        [
            ReasoningSummaryDelta("**Plan**\n\nThen."),
            EncryptedReasoning("gAAA", ORIGIN),
            OutputTextDelta("Yes."),
            ItemEnd(),
            USED,
            Finish("stop"),
        ],
    ),
    (
        [
            reasoning_item("gAAA"),
            function_call_item("c1", "f", '{"a":1}'),
            function_call_item("c2", "g", ""),
        ],
        [
            EncryptedReasoning("gAAA", ORIGIN),
            ToolCallDelta(1, "c1", "f", '{"a":1}'),
            ToolCallDelta(2, "c2", "g", "{}"),
            USED,
            Finish("tool_calls"),
        ],
    ),
    (
        [reasoning_item(None, raw="Hm, so."), reasoning_item(None, "In short."), message("Yes.")],
        [
            ReasoningTextDelta("Hm, so."),
            ProviderFieldsDelta(ProviderFields(ORIGIN)),
            ItemEnd(),
            ReasoningSummaryDelta("In short."),
            ItemEnd(),
            OutputTextDelta("Yes."),
            ItemEnd(),
            USED,
            Finish("stop"),
        ],
    ),
    (
        [message("From there.", annotations=[SOURCE])],
        [OutputTextDelta("From there."), AnnotationDelta(SOURCE), ItemEnd(), USED, Finish("stop")],
    ),
    (
        [{"type": "web_search_call", "id": "ws", "action": {"queries": ["x"]}}, message("Yes.")],
        [
            ForeignItemDelta({"type": "web_search_call", "id": "ws", "action": {"queries": ["x"]}}),
            *(OutputTextDelta("Yes."), ItemEnd(), USED, Finish("stop")),
        ],
    ),
]


@pytest.mark.parametrize(("items", "deltas"), ANSWERS)
def test_an_answer_is_the_same_however_it_comes(items: list[Json], deltas: list[Delta]) -> None:
    received = list(stream_events(*items))
    assert joined(parsed(*received)) == deltas
    assert joined(whole(body(*items))[0]) == deltas
    # Servers leave out this and that.
    last = received[-1]
    assert joined(parsed(last)) == deltas
    assert joined(parsed(*(one for one in received if ".delta" not in one["type"]))) == deltas
    ends = [one for one in received if one["type"] == "response.output_item.done"]
    assert joined(parsed(*ends, {**last, "response": body()})) == deltas


def test_annotations_that_only_their_event_holds() -> None:
    *received, done, last = stream_events(message("a", annotations=[SOURCE]))
    for one in (done["item"], last["response"]["output"][0]):
        one["content"] = [{**one["content"][0], "annotations": []}]
    assert parsed(*received, done, last)[:2] == [OutputTextDelta("a"), AnnotationDelta(SOURCE)]


def test_deltas_come_as_they_were_sent() -> None:
    assert parsed(*stream_events(message("Hello.")))[:2] == [
        OutputTextDelta("Hel"),
        OutputTextDelta("lo."),
    ]


def test_the_specifications_name_for_raw_reasoning() -> None:
    event = {"type": "response.reasoning.delta", "output_index": 0, "delta": "Hm."}
    assert parsed(event, *stream_events())[0] == ReasoningTextDelta("Hm.")


def test_logprobs_come_with_their_text() -> None:
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}
    odds = [{"token": "a", "logprob": -0.5, "top_logprobs": []}]
    assert parsed({**delta, "logprobs": odds}, *stream_events())[0] == OutputTextDelta(
        "a", (LOGPROBS,)
    )
    assert whole(body(message("a", logprobs=odds)))[0][0] == OutputTextDelta("a", (LOGPROBS,))


def test_tokens() -> None:
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    assert parsed(*stream_events(message("a"), usage=usage))[-2] == UsageUpdate(Usage(9, 7, 4, 3))
    assert whole(body(message("a"), usage=usage))[0][-2] == UsageUpdate(Usage(9, 7, 4, 3))
    assert [one for one in parsed(*stream_events(usage=None)) if isinstance(one, UsageUpdate)] == []


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        ({"reason": "tired"}, "length"),
        (None, "length"),
    ],
)
def test_an_answer_that_was_cut(details: Any, reason: Any) -> None:
    """What was cut is not over, and its reasoning cannot go on."""
    items = [{**reasoning_item("gAAA", "Hm."), "status": "incomplete"}, {**message("We")}]
    items[1]["status"] = "incomplete"
    fields: Json = {"status": "incomplete", "incomplete_details": details}
    expected = [ReasoningSummaryDelta("Hm."), ItemSwitch(1), OutputTextDelta("We")]
    expected += [USED, Finish(reason)]
    assert joined(parsed(*stream_events(*items, **fields))) == expected
    assert joined(whole(body(*items, **fields))[0]) == expected


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "Oops.", "param": None},
        {"type": "error", "error": {"type": "server_error", "message": "Oops."}},
        {"error": {"message": "Oops."}},
    ],
)
def test_an_error_among_the_events_keeps_what_came_before(event: Json) -> None:
    begun = {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}
    deltas, reader = read(begun, event, *stream_events(message("b")))
    assert deltas == [OutputTextDelta("a")]
    assert isinstance(reader.error, bytes)
    assert b"Oops." in reader.error


def test_an_answer_that_failed() -> None:
    error = {"code": "server_error", "message": "Oops."}
    for deltas, reader in (
        read(*stream_events(message("a"), status="failed", error=error)),
        whole(body(status="failed", error=error)),
        whole({"error": error}),
    ):
        assert Finish("stop") not in deltas
        assert isinstance(reader.error, bytes)
        assert json.loads(reader.error)["error"] == error
    _, reader = read({"type": "response.failed"})
    assert reader.error == b'{"error":"It failed."}'


@pytest.mark.parametrize("status", ["cancelled", "in_progress", "queued"])
def test_an_answer_that_is_none(status: str) -> None:
    _, reader = whole(body(message("a"), status=status))
    assert isinstance(reader.error, AttemptError)
    assert status in reader.error.error.message


def test_a_stream_that_just_ends_was_cut() -> None:
    begun = {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}
    cut: list[list[Json | bytes]] = [[begun], [begun, b"[DONE]"], []]
    for events in cut:
        _, reader = read(*events)
        assert isinstance(reader.error, AttemptError)
        assert reader.error.transient
        assert reader.error.error.code == "upstream_disconnected"


def test_what_follows_the_end_is_not_read() -> None:
    assert parsed(*stream_events(message("a")), b"[DONE]", b"junk")[-1] == Finish("stop")


@pytest.mark.parametrize(
    "event",
    [
        b"{",
        b'{"type":"response.output_text.delta","delta":"b"',
        b'{"type":"response.output_text.delta","delta":"\xff"}',
        b'{"type":"response.output_item.done","item":{"type":"message","content":}}',
        b'{"type":"response.created","response":' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_a_failure(event: bytes) -> None:
    begun = {"type": "response.output_text.delta", "output_index": 0, "delta": "a"}
    deltas, reader = read(begun, event)
    assert deltas == [OutputTextDelta("a")]
    assert isinstance(reader.error, AttemptError)
    assert reader.error.error.code == "upstream_invalid_response"
    assert not reader.error.transient


@pytest.mark.parametrize("answer", [b"", b"{", b"{}", b"[]", b"<html>", b'{"output":3}'])
def test_what_is_no_answer(answer: bytes) -> None:
    deltas, reader = whole(answer)
    assert deltas == []
    assert isinstance(reader.error, AttemptError)
    assert reader.error.error.code == "upstream_invalid_response"


def test_events_that_are_not_for_us_are_passed_over() -> None:
    odd: list[Json] = [
        {"type": "response.output_text.done", "output_index": 0, "text": ""},
        {"type": "response.mcp_call_arguments.delta", "delta": {"a": 1}},
        {"type": "response.output_item.added", "output_index": 0},
        {"type": "keepalive"},
    ]
    assert parsed(*odd, *stream_events()) == [USED, Finish("stop")]


def test_a_late_phase_is_emitted() -> None:
    *events, done, end = stream_events({**message("Hi."), "phase": "commentary"})
    for event in events:
        event.get("item", {}).pop("phase", None)
    assert joined(parsed(*events, done, end)) == [
        *(OutputTextDelta("Hi."), PhaseDelta("commentary"), ItemEnd(), USED, Finish("stop"))
    ]
