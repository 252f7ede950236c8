"""Calls as requests of xAI's SDK, and its answers as deltas."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from xai_sdk.proto import (  # type: ignore[import-untyped]
    chat_pb2,
    image_pb2,
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
from antiphon.core.items import SummaryText
from antiphon.core.reasoning_sidecar import ReasoningSidecar, attach_sidecars
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import InvalidRequestError
from antiphon.models.xai.codec import (
    XaiParser,
    add_extra_fields,
    build_request,
    to_xai_messages,
    without_reasoning,
)
from antiphon.turn.protocols import ModelCall
from support.xai_upstream import chunk, make_call, role_texts, tool_calls

ORIGIN = "grpc://api.x.ai/grok-4"


def requested(options: Options, call: ModelCall | None = None) -> Any:
    call = call or make_call(options=options)
    return build_request(call, "grok-4", ORIGIN)


def shown(*messages: dict[str, Any]) -> list[Any]:
    return to_xai_messages(msgspec.json.encode(messages), ORIGIN)


def test_every_option_has_its_field() -> None:
    tool = FunctionTool("f", "Does.", {"type": "object"}, strict=True)
    request = requested(
        Options(
            temperature=0.5,
            top_p=0.25,
            max_output_tokens=7,
            frequency_penalty=1.0,
            presence_penalty=-1.0,
            seed=3,
            stop=("END",),
            tools=(tool,),
            tool_choice="function:f",
            parallel_tool_calls=False,
            text_format={"type": "json_schema", "name": "n", "schema": {"type": "object"}},
            reasoning_effort="high",
            top_logprobs=2,
            service_tier="priority",
            safety_identifier="s",
            user="u",
        )
    )
    assert (request.model, request.max_tokens, request.seed) == ("grok-4", 7, 3)
    assert (request.temperature, request.top_p) == (0.5, 0.25)
    assert (request.frequency_penalty, request.presence_penalty) == (1.0, -1.0)
    assert list(request.stop) == ["END"]
    function = request.tools[0].function
    assert (function.name, function.description, function.strict) == ("f", "Does.", True)
    assert function.parameters == '{"type":"object"}'
    assert request.tool_choice.function_name == "f"
    assert request.parallel_tool_calls is False
    assert request.HasField("parallel_tool_calls")
    assert request.response_format.format_type == chat_pb2.FORMAT_TYPE_JSON_SCHEMA
    assert request.response_format.schema == '{"type":"object"}'
    assert request.reasoning_effort == chat_pb2.EFFORT_HIGH
    assert (request.logprobs, request.top_logprobs) == (True, 2)
    assert request.service_tier == usage_pb2.SERVICE_TIER_PRIORITY
    assert (request.safety_identifier, request.user) == ("s", "u")
    assert request.store_messages is False


def test_options_that_are_not_set_are_not_sent() -> None:
    request = requested(Options())
    assert {field.name for field, _ in request.ListFields()} == {
        *("messages", "model", "use_encrypted_content")
    }


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ("auto", chat_pb2.TOOL_MODE_AUTO),
        ("none", chat_pb2.TOOL_MODE_NONE),
        ("required", chat_pb2.TOOL_MODE_REQUIRED),
    ],
)
def test_modes_of_tools(choice: str, mode: int) -> None:
    request = requested(Options(tools=(FunctionTool("f"),), tool_choice=choice))
    assert request.tool_choice.mode == mode
    assert msgspec.json.decode(request.tools[0].function.parameters)["type"] == "object"


def test_plain_json_is_a_format() -> None:
    request = requested(Options(text_format={"type": "json_object"}))
    assert request.response_format.format_type == chat_pb2.FORMAT_TYPE_JSON_OBJECT
    assert not requested(Options(text_format={"type": "text"})).HasField("response_format")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        (Options(reasoning_effort="minimal"), "reasoning.effort"),
        (Options(service_tier="flex"), "service_tier"),
        (Options(seed=2**40), None),
    ],
)
def test_unsupported_content_is_rejected(options: Options, param: str | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        requested(options)
    assert caught.value.param == param


def test_messages_of_all_roles() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = shown(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Briefer."},
        {"role": "user", "content": "Hi", "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
    )
    assert role_texts(messages) == [
        (chat_pb2.ROLE_SYSTEM, "Be brief."),
        (chat_pb2.ROLE_DEVELOPER, "Briefer."),
        (chat_pb2.ROLE_USER, "Hi"),
        (chat_pb2.ROLE_ASSISTANT, ""),
        (chat_pb2.ROLE_TOOL, "7"),
    ]
    assert messages[2].name == "bob"
    made = messages[3].tool_calls[0]
    assert (made.id, made.function.name, made.function.arguments) == ("c", "f", "{}")
    assert messages[4].tool_call_id == "c"
    assert all(len(one.content) == 1 for one in messages)


def test_parts_of_a_message() -> None:
    (message,) = shown(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "image_url", "image_url": {"url": "https://e.com/a", "detail": "low"}},
                {
                    "type": "file",
                    "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,SGk="},
                },
                {"type": "file", "file": {"file_url": "https://e.com/b"}},
            ],
        }
    )
    text, inline, linked, file, remote = message.content
    assert text.text == "See"
    assert inline.image_url.image_url == "data:image/png;base64,AA=="
    assert inline.image_url.detail == image_pb2.DETAIL_AUTO
    assert linked.image_url.detail == image_pb2.DETAIL_LOW
    assert (file.file.filename, file.file.data, file.file.mime_type) == (
        *("a.txt", b"Hi", "text/plain"),
    )
    assert remote.file.url == "https://e.com/b"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "https://e.com/v"}},
        {"type": "file", "file": {"file_data": "not base64!"}},
    ],
)
def test_parts_that_cannot_be_sent(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        shown({"role": "user", "content": [part]})


def test_reasoning_is_sent_to_its_own_model_only() -> None:
    def carried(origin: str | None) -> Any:
        thought = ReasoningSidecar("gAAA", origin, (SummaryText("Hm."),))
        message = attach_sidecars(b'{"role":"assistant","content":"Hi."}', [thought])
        return to_xai_messages(b"[" + message + b"]", ORIGIN)[0]

    assert carried("api.x.ai/grok-4").encrypted_content == ""
    for origin in (ORIGIN, None):
        message = carried(origin)
        assert (message.encrypted_content, message.reasoning_content) == ("gAAA", "Hm.")
        assert role_texts([message]) == [(chat_pb2.ROLE_ASSISTANT, "Hi.")]


def test_a_request_without_reasoning() -> None:
    message = attach_sidecars(b'{"role":"assistant","content":"Hi."}', [ReasoningSidecar("gAAA")])
    request = requested(Options(), ModelCall("m", b"[" + message + b"]", Options(), True))
    assert (request.use_encrypted_content, request.messages[0].encrypted_content) == (True, "gAAA")
    other: Any = without_reasoning(request)
    assert (other.use_encrypted_content, other.messages[0].encrypted_content) == (False, "")
    assert without_reasoning(other) is None


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


def test_further_fields_are_set_where_the_api_has_them() -> None:
    request = requested(Options(temperature=0.5))
    extra = {
        "max_turns": 3,
        "search_parameters": {"mode": "ON_SEARCH_MODE"},
        "temperature": 0.9,
        "top_k": 5,
        "use_encrypted_content": False,
        "store_messages": True,
        "agent_count": {"a": 1},
        "user": None,
        "messages": [],
    }
    unpassed = add_extra_fields(request, extra)
    assert request.max_turns == 3
    assert request.search_parameters.mode
    assert request.temperature == 0.5
    assert (request.use_encrypted_content, request.store_messages) == (True, False)
    assert len(request.messages) == 1
    assert unpassed == ["top_k", "use_encrypted_content", "store_messages", "agent_count"]
