"""xAI's own tools over gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.core.deltas import ForeignItemDelta, OutputTextDelta
from antiphon.core.turns import FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.xai.answer_parsing import XaiParser
from antiphon.models.xai.hosted_tools import hosted_tool_protos
from antiphon.models.xai.request_encoding import XaiRequestEncoder
from antiphon.protos.xai import chat_pb2
from support.model_calls import call_with_messages


def request(*tools: dict[str, Any], choice: str = "auto") -> Any:
    options = Options(tools=(FunctionTool("f"),), hosted_tools=tools, tool_choice=choice)
    call = call_with_messages("m", b'[{"role":"user","content":"Hi"}]', options, False)
    return chat_pb2.GetCompletionsRequest.FromString(XaiRequestEncoder().encode(call, "m", "o"))


def test_tools_that_xai_has_are_sent_with_their_settings() -> None:
    sent = request(
        {"type": "web_search", "filters": {"allowed_domains": ["a.com"]}, "unknown": 1},
        {"type": "web_search_preview_2025_03_11", "excluded_domains": ["b.com"]},
        {"type": "x_search", "allowed_x_handles": ["a"], "from_date": "2025-01-02"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "code_execution"},
        {"type": "file_search", "vector_store_ids": ["c"], "max_num_results": 3},
        {"type": "local_shell"},
    ).tools
    kinds = [tool.WhichOneof("tool") for tool in sent]
    assert kinds == [
        *("function", "web_search", "web_search", "x_search"),
        *("code_execution", "code_execution", "collections_search"),
    ]
    assert list(sent[1].web_search.allowed_domains) == ["a.com"]
    assert list(sent[2].web_search.excluded_domains) == ["b.com"]
    assert sent[3].x_search.from_date.ToJsonString() == "2025-01-02T00:00:00Z"
    assert list(sent[6].collections_search.collection_ids) == ["c"]
    assert sent[6].collections_search.limit == 3


def test_settings_of_a_wrong_type_are_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        hosted_tool_protos([{"type": "x_search", "from_date": "yesterday"}])
    assert caught.value.param == "tools"


def test_a_hosted_tool_cannot_be_chosen() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request({"type": "web_search"}, choice="hosted:web_search")
    assert caught.value.param == "tool_choice"


def test_calls_of_xais_tools_are_items() -> None:
    search = chat_pb2.ToolCall(
        id="call_1",
        type=chat_pb2.TOOL_CALL_TYPE_WEB_SEARCH_TOOL,
        function=chat_pb2.FunctionCall(name="web_search", arguments='{"query":"a"}'),
    )
    posts = chat_pb2.ToolCall(
        id="call_2",
        type=chat_pb2.TOOL_CALL_TYPE_X_SEARCH_TOOL,
        function=chat_pb2.FunctionCall(name="x_keyword_search", arguments="{"),
    )
    chunk = chat_pb2.GetChatCompletionChunk(
        outputs=[{"delta": {"role": chat_pb2.ROLE_ASSISTANT, "tool_calls": [search, posts]}}]
    )
    words = chat_pb2.GetChatCompletionChunk(outputs=[{"delta": {"content": "Hello."}}])
    parser = XaiParser("o")
    # A call may come again, with another status.
    assert parser.feed(chunk) + parser.feed(chunk) + parser.feed(words) == [
        ForeignItemDelta(
            {
                "type": "web_search_call",
                "id": "call_1",
                "status": "completed",
                "action": {"type": "search", "query": "a"},
            }
        ),
        ForeignItemDelta(
            {
                "type": "x_search_call",
                "id": "call_2",
                "status": "completed",
                "name": "x_keyword_search",
                "arguments": "{",
            }
        ),
        OutputTextDelta("Hello."),
    ]
