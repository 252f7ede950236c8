"""Answers of xAI's SDK as deltas."""

from __future__ import annotations

from typing import Any

import pytest
from xai_sdk.proto import (  # type: ignore[import-untyped]
    chat_pb2,
    sample_pb2,
    usage_pb2,
)

from antiphon.core.deltas import (
    AnnotationDelta,
    EncryptedReasoning,
    Finish,
    ForeignItemDelta,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.turns import Usage
from antiphon.models.xai.answer_parsing import XaiParser
from support.xai_upstream import chunk, tool_calls

ORIGIN = "grpc://api.x.ai/grok-4"


def read(*chunks: Any) -> list[Any]:
    reader = XaiParser(ORIGIN)
    deltas = [delta for one in chunks for delta in reader.feed(one)]
    assert reader.has_finish_reason
    return deltas + reader.finish()


STOP = sample_pb2.REASON_STOP


def test_chunks_become_deltas() -> None:
    usage = usage_pb2.SamplingUsage(
        prompt_tokens=5,
        completion_tokens=2,
        reasoning_tokens=3,
        total_tokens=10,
        cached_prompt_text_tokens=4,
    )
    assert read(
        chunk(reasoning_content="Hm."),
        chunk(encrypted_content="gA"),
        chunk(encrypted_content="AA"),
        chunk(content="Hel"),
        chunk(content="lo.", finish=STOP, usage=usage),
    ) == [
        ReasoningSummaryDelta("Hm."),
        EncryptedReasoning("gAAA", ORIGIN),
        OutputTextDelta("Hel"),
        OutputTextDelta("lo."),
        UsageUpdate(Usage(5, 5, 4, 3)),
        Finish("stop"),
    ]


def test_calls_come_whole_or_in_pieces() -> None:
    assert read(
        chunk(tool_calls=tool_calls(("a", "f", '{"x":'), ("b", "g", "{}"))),
        chunk(tool_calls=tool_calls(("a", "f", "1}"))),
        chunk(finish=STOP),
    ) == [
        ToolCallDelta(0, "a", "f", '{"x":'),
        ToolCallDelta(1, "b", "g", "{}"),
        ToolCallDelta(0, arguments="1}"),
        Finish("tool_calls"),
    ]


def test_calls_without_ids_are_told_apart_by_their_names() -> None:
    assert read(
        chunk(tool_calls=tool_calls(("a", "f", '{"x":'))),
        chunk(tool_calls=tool_calls(("", "", "1}"))),
        chunk(tool_calls=tool_calls(("", "g", "{"), ("", "", "}"))),
        chunk(tool_calls=tool_calls(("", "g", "{}"))),
        chunk(finish=STOP),
    ) == [
        ToolCallDelta(0, "a", "f", '{"x":'),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, None, "g", "{"),
        ToolCallDelta(1, arguments="}"),
        ToolCallDelta(2, None, "g", "{}"),
        Finish("tool_calls"),
    ]


def test_what_tools_upstream_do_is_no_answer() -> None:
    search = tool_calls(("a", "web_search", "{}"))
    search[0].type = chat_pb2.TOOL_CALL_TYPE_WEB_SEARCH_TOOL
    assert read(
        chunk(tool_calls=search),
        chunk(role=chat_pb2.ROLE_TOOL, content="pages"),
        chunk(content="So.", finish=STOP),
    ) == [
        ForeignItemDelta(
            {
                "type": "web_search_call",
                "id": "a",
                "status": "completed",
                "action": {"type": "search", "query": ""},
            }
        ),
        OutputTextDelta("So."),
        Finish("stop"),
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        (sample_pb2.REASON_MAX_LEN, "length"),
        (sample_pb2.REASON_MAX_CONTEXT, "length"),
        (sample_pb2.REASON_TIME_LIMIT, "length"),
        (sample_pb2.REASON_TOOL_CALLS, "tool_calls"),
        # One that xAI has added since.
        (max(sample_pb2.FinishReason.values()) + 4, "stop"),
    ],
)
def test_reasons_to_stop(reason: int, finish: Any) -> None:
    assert read(chunk(finish=reason)) == [Finish(finish)]


def test_an_answer_without_a_reason_is_cut() -> None:
    reader = XaiParser(ORIGIN)
    reader.feed(chunk(content="Hel"))
    assert not reader.has_finish_reason


def test_a_whole_answer() -> None:
    odd = chat_pb2.LogProb(token="Hi", logprob=-0.5, bytes=b"Hi")
    odd.top_logprobs.append(chat_pb2.TopLogProb(token="Ho", logprob=-1.5, bytes=b"Ho"))
    output = chat_pb2.CompletionOutput(
        finish_reason=STOP,
        message=chat_pb2.CompletionMessage(
            role=chat_pb2.ROLE_ASSISTANT,
            content="Hi",
            reasoning_content="Hm.",
            encrypted_content="gAAA",
        ),
        logprobs=chat_pb2.LogProbs(content=[odd]),
    )
    whole = chat_pb2.GetChatCompletionResponse(outputs=[output], citations=["https://e.com"])
    other = {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}
    source = {"type": "url_citation", "start_index": 0, "end_index": 0, "title": ""}
    assert read(whole) == [
        ReasoningSummaryDelta("Hm."),
        EncryptedReasoning("gAAA", ORIGIN),
        OutputTextDelta(
            "Hi",
            ({"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [other]},),
        ),
        AnnotationDelta({**source, "url": "https://e.com"}),
        Finish("stop"),
    ]


def test_sources_with_their_places() -> None:
    cited = chat_pb2.InlineCitation(start_index=1, end_index=3)
    cited.web_citation.url = "https://e.com"
    last = chunk(finish=STOP)
    last.citations.append("https://e.com")
    assert read(chunk(content="Hi.", citations=[cited]), last) == [
        OutputTextDelta("Hi."),
        AnnotationDelta(
            {
                "type": "url_citation",
                "start_index": 1,
                "end_index": 3,
                "url": "https://e.com",
                "title": "",
            }
        ),
        Finish("stop"),
    ]
