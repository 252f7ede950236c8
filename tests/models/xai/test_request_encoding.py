"""Calls as requests of xAI's SDK."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xai_sdk.proto import (  # type: ignore[import-untyped]
    chat_pb2,
    image_pb2,
    usage_pb2,
)

from antiphon.core.items import SummaryText
from antiphon.core.reasoning_sidecar import ReasoningSidecar, attach_sidecars
from antiphon.core.turns import FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.xai.request_encoding import (
    XaiRequestEncoder,
    to_xai_messages,
    without_reasoning,
)
from antiphon.turn.message_rendering import message_pieces
from antiphon.turn.protocols import ModelCall
from support.chain_strategies import Chain, chains
from support.model_calls import call_with_messages
from support.xai_upstream import make_call, role_texts

ORIGIN = "grpc://api.x.ai/grok-4"


def requested(options: Options, call: ModelCall | None = None) -> Any:
    call = call or make_call(options=options)
    return parsed(XaiRequestEncoder().encode(call, "grok-4", ORIGIN))


def parsed(request: bytes) -> Any:
    return chat_pb2.GetCompletionsRequest.FromString(request)


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
    request = requested(Options(), call_with_messages("m", b"[" + message + b"]", Options(), True))
    assert (request.use_encrypted_content, request.messages[0].encrypted_content) == (True, "gAAA")
    changed = without_reasoning(request.SerializeToString())
    assert changed is not None
    other = parsed(changed)
    assert (other.use_encrypted_content, other.messages[0].encrypted_content) == (False, "")
    assert without_reasoning(changed) is None


TOOLS = st.lists(st.builds(FunctionTool, st.sampled_from(["f", "g"])), max_size=2).map(tuple)


@settings(deadline=None)
@given(chains(), st.lists(TOOLS, min_size=1, max_size=3), st.sampled_from([0, 3000, 10**6]))
def test_pieces_that_were_encoded_before_give_the_same_request(
    chain: Chain, tools: list[tuple[FunctionTool, ...]], capacity: int
) -> None:
    encoder = XaiRequestEncoder(capacity)
    segments = [turn.segment() for turn in chain.turns]
    for end in [*range(1, len(segments) + 1), 1, len(segments)]:
        pieces = message_pieces(segments[:end], instructions="Be brief.")
        options = Options(tools=tools[end % len(tools)], temperature=0.5)
        call = ModelCall("m", tuple(pieces), options, True)
        whole = call_with_messages("m", call.messages, options, True)
        for origin in (ORIGIN, "grpc://other"):
            expected = XaiRequestEncoder().encode(whole, "grok-4", origin)
            assert parsed(encoder.encode(call, "grok-4", origin)) == parsed(expected)
