"""``POST /v1/responses``: what may be asked, and what is wrong with the rest."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from antiphon.api.common.body import MAX_DEPTH
from antiphon.api.common.input_items import MAX_ITEMS
from antiphon.api.http.chat_completion_requests import decode_any_request as decode_any_chat
from antiphon.api.http.chat_completion_requests import decode_chat_request
from antiphon.api.http.responses_codec import decode_any_request, decode_request
from antiphon.core.items import Message, decode_item, encode_item
from antiphon.core.turns import FunctionTool, Options, TurnRequest
from antiphon.errors import InvalidRequestError
from support.api_strategies import ID
from support.example_counts import examples


def decoded(**fields: Any) -> TurnRequest:
    return decode_request(json.dumps({"input": "Hi", **fields}).encode())


def refused(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decoded(**fields)
    assert caught.value.status == 400
    return caught.value


def test_the_least_that_can_be_asked() -> None:
    assert decode_request(b'{"input":"Hi"}') == TurnRequest(input=(Message("user", "Hi"),))


def test_everything_that_can_be_asked() -> None:
    parameters = {"type": "object"}
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    request = decoded(
        model="m",
        previous_response_id=ID,
        stream=True,
        stream_options={"include_obfuscation": False},
        background=True,
        temperature=0,
        top_p=1,
        max_output_tokens=7,
        frequency_penalty=-2,
        presence_penalty=2.0,
        metadata={"a": "b"},
        tools=[{"type": "function", "name": "f", "parameters": parameters, "strict": False}],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tool_calls=3,
        text={"format": {"type": "json_schema", **schema}, "verbosity": "low"},
        reasoning={"effort": "xhigh", "summary": "detailed"},
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        top_logprobs=20,
        truncation="auto",
        service_tier="flex",
        prompt_cache_key="k",
        safety_identifier="s",
        user="u",
    )
    assert request == TurnRequest(
        input=(Message("user", "Hi"),),
        model="m",
        previous_response_id=ID,
        options=Options(
            temperature=0,
            top_p=1,
            max_output_tokens=7,
            frequency_penalty=-2,
            presence_penalty=2,
            tools=(FunctionTool("f", None, parameters, False),),
            tool_choice="required",
            parallel_tool_calls=False,
            max_tool_calls=3,
            text_format={"type": "json_schema", **schema},
            verbosity="low",
            reasoning_effort="xhigh",
            reasoning_summary="detailed",
            include=("reasoning.encrypted_content", "message.output_text.logprobs"),
            top_logprobs=20,
            truncation="auto",
            service_tier="flex",
            prompt_cache_key="k",
            safety_identifier="s",
            metadata={"a": "b"},
            user="u",
        ),
        stream=True,
        background=True,
    )


def test_null_is_the_same_as_nothing() -> None:
    fields = dict.fromkeys(msgspec.structs.asdict(Options()))
    others = """model previous_response_id conversation instructions store stream stream_options
        background text reasoning prompt"""
    assert decoded(**fields, **dict.fromkeys(others.split())) == decoded()
    inner = {
        "text": {"format": None, "verbosity": None},
        "reasoning": {"effort": None, "summary": None},
        "stream_options": {"include_obfuscation": None},
        "tools": [],
    }
    assert decoded(**inner) == decoded()


def test_unknown_fields_are_collected() -> None:
    unknown = {"moderation": {"model": "x"}, "nonsense": {"a": [1]}}
    request = decoded(**unknown, other=None, prompt=None, type="response.create")
    assert request.options == Options(extra=unknown)


def test_instructions() -> None:
    assert decoded(instructions="Be brief.").instructions == "Be brief."
    assert decoded().instructions is None


def test_an_older_name_of_the_summary() -> None:
    request = decoded(reasoning={"generate_summary": "concise"})
    assert request.options.reasoning_summary == "concise"


@pytest.mark.parametrize("given", ["conv_1", {"id": "conv_1"}])
def test_a_conversation(given: Any) -> None:
    request = decoded(conversation=given)
    assert (request.conversation, request.previous_response_id) == ("conv_1", None)


def test_no_input_where_something_goes_on() -> None:
    assert decoded(input=None, previous_response_id=ID).input == ()
    assert decoded(input=None, conversation="conv_1").input == ()
    assert decode_request(b'{"previous_response_id":"resp_1"}').input == ()
    refusal = refused(input=None)
    assert (refusal.code, refusal.param) == ("empty_input", "input")


def test_fields_that_exclude_each_other() -> None:
    both = refused(conversation="conv_1", previous_response_id=ID)
    assert (both.status, both.type) == (400, "invalid_request_error")
    assert (both.code, both.param) == ("mutually_exclusive_parameters", None)
    assert both.message == (
        "Mutually exclusive parameters: Ensure you are only providing one of: "
        "'previous_response_id' or 'conversation'."
    )
    unkept = refused(background=True, store=False)
    assert (unkept.code, unkept.param) == ("unsupported_parameter", "background")
    assert not decoded(background=False, store=False).store


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", 1, "input"),
        ("input", [1], "input[0]"),
        ("model", 1, "model"),
        ("previous_response_id", {}, "previous_response_id"),
        ("conversation", 1, "conversation"),
        ("conversation", {"id": 1}, "conversation.id"),
        ("instructions", {"brief": True}, "instructions"),
        ("store", "no", "store"),
        ("stream", 2, "stream"),
        ("stream_options", {"include_obfuscation": 2}, "stream_options.include_obfuscation"),
        ("background", "yes", "background"),
        ("temperature", "hot", "temperature"),
        ("temperature", -0.1, "temperature"),
        ("temperature", 2.1, "temperature"),
        ("temperature", True, "temperature"),
        ("top_p", 1.1, "top_p"),
        ("max_output_tokens", 0, "max_output_tokens"),
        ("max_output_tokens", 1.5, "max_output_tokens"),
        ("max_output_tokens", 10**30, "max_output_tokens"),
        ("max_tool_calls", 0, "max_tool_calls"),
        ("frequency_penalty", 3, "frequency_penalty"),
        ("presence_penalty", -3, "presence_penalty"),
        ("metadata", ["a"], "metadata"),
        ("metadata", {"k" * 65: "v"}, "metadata"),
        ("metadata", {"k": "v" * 513}, "metadata[...]"),
        ("metadata", {str(place): "" for place in range(17)}, "metadata"),
        ("parallel_tool_calls", "yes", "parallel_tool_calls"),
        ("text", "xml", "text"),
        ("text", {"verbosity": "loud"}, "text.verbosity"),
        ("text", {"format": {"type": "xml"}}, "text.format.type"),
        ("text", {"format": {"type": "json_schema", "name": "a"}}, "text.format.schema"),
        ("reasoning", {"effort": 3}, "reasoning.effort"),
        ("reasoning", {"effort": "h" * 65}, "reasoning.effort"),
        ("reasoning", {"summary": False}, "reasoning.summary"),
        ("include", [1], "include[0]"),
        ("include", 1, "include"),
        ("top_logprobs", 21, "top_logprobs"),
        ("top_logprobs", -1, "top_logprobs"),
        ("truncation", "maybe", "truncation"),
        ("service_tier", 1, "service_tier"),
        ("prompt_cache_key", "k" * 513, "prompt_cache_key"),
        ("safety_identifier", "s" * 513, "safety_identifier"),
        ("user", ["u"], "user"),
    ],
)
def test_the_field_at_fault_is_named(field: str, value: Any, param: str) -> None:
    refusal = refused(**{field: value})
    assert refusal.param == param
    assert refusal.code in ("invalid_type", "invalid_value")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_what_would_be_kept_may_not_be_too_deep() -> None:
    tool = {"type": "function", "name": "f"}
    decoded(tools=[{**tool, "parameters": nested(MAX_DEPTH - 1)}])
    other = {**tool, "name": "g", "parameters": nested(MAX_DEPTH)}
    refusal = refused(tools=[tool, other])
    assert (refusal.code, refusal.param) == ("invalid_json", "tools[1].parameters")
    schema = {"type": "json_schema", "name": "a", "schema": nested(MAX_DEPTH)}
    assert refused(text={"format": schema}).param == "text.format"
    # What is not kept may be as deep as it likes.
    assert decoded(other=nested(MAX_DEPTH)).options.extra == {}
    decoded(input=[{"role": "user", "content": "", "x": nested(200)}])


def test_too_many_items() -> None:
    message = {"role": "user", "content": ""}
    assert len(decoded(input=[message] * MAX_ITEMS).input) == MAX_ITEMS
    refusal = refused(input=[message] * (MAX_ITEMS + 1))
    assert (refusal.code, refusal.param) == ("too_many_items", "input")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 5000, b'{"input":"\xff"}']
)
def test_what_is_no_request_at_all(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        decode_request(body)


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


#: Words that mean something somewhere in a body.
WORDS = words(
    """message function_call function_call_output reasoning compaction item_reference erased
    mcp_list_tools mcp_call mcp_approval_request mcp_approval_response function mcp allowed_tools
    auto required none always never user assistant input_text output_text input_image input_file
    input_video refusal summary_text reasoning_text text json_schema json_object completed f x
    http://h https://["""
)
KEYS = words(
    """input model tools tool_choice text reasoning include conversation previous_response_id
    background store stream metadata type role content id call_id name arguments output status
    summary encrypted_content server_label server_url headers authorization allowed_tools
    require_approval always never tool_names read_only approval_request_id approve reason error
    format schema verbosity effort parameters mode file_data image_url annotations logprobs
    input_schema connector_id failed approved server"""
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
ITEMS = st.lists(st.dictionaries(KEYS, JSON, max_size=8), max_size=3)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["function", "mcp"])},
        optional={"name": WORDS, "server_label": WORDS, "headers": JSON, "require_approval": JSON},
    ),
    max_size=2,
)


def taken(body: dict[str, Any]) -> TurnRequest | None:
    """The request, or None where it was refused; nothing else may happen."""
    try:
        return decode_request(json.dumps(body).encode())
    except InvalidRequestError:
        return None


@settings(deadline=None, max_examples=examples(25))
@given(
    st.fixed_dictionaries({"input": JSON | ITEMS}, optional={"tools": TOOLS, "tool_choice": JSON})
)
def test_whatever_is_sent_is_taken_or_refused(body: dict[str, Any]) -> None:
    request = taken(body)
    if request is not None:
        stored = [encode_item(item) for item in request.input]
        assert tuple(decode_item(item) for item in stored) == request.input


def is_nothing(value: Any) -> bool:
    """Whether an input has no item, however its lists are nested."""
    return not value or (isinstance(value, list) and all(map(is_nothing, value)))


@settings(deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=10))
@example({"input": [None]})
@example({"input": [[None], []]})
def test_whatever_fields_a_body_has(body: dict[str, Any]) -> None:
    request = taken(body)
    assert request is None or request.input or is_nothing(body.get("input"))


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_whatever_bytes_come(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        decode_request(body)


#: Fields that most requests have, and no others.
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "model": st.none() | st.text(max_size=3),
    "store": st.none() | st.booleans(),
    "stream": st.none() | st.booleans(),
}


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"input": st.text(max_size=5)},
        optional={
            **USUAL,
            "previous_response_id": st.none() | st.sampled_from(["", ID]),
            "instructions": st.none() | st.text(max_size=3),
        },
    )
)
def test_the_usual_request_is_taken_as_any_other(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    assert decode_request(raw) == decode_any_request(raw)


ROLES = st.sampled_from(["system", "developer", "user", "assistant"])


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries({"role": ROLES, "content": st.text(max_size=5)}), min_size=1
            )
        },
        optional={
            **USUAL,
            "stream_options": st.none()
            | st.fixed_dictionaries({"include_usage": st.none() | st.booleans()}),
        },
    )
)
def test_the_usual_completion_is_taken_as_any_other(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    usual, other = decode_chat_request(raw), decode_any_chat(raw)
    assert msgspec.structs.replace(usual.turn, store=False, chat_completion=False) == other.turn
    assert usual.include_usage == other.include_usage
    assert usual.store == other.store
