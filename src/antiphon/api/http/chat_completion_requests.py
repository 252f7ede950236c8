"""Chat completion requests: decodes the bodies of ``POST /v1/chat/completions``. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from antiphon.api.common.body import RequestDecoder, check_depth, decode_body
from antiphon.api.http.chat_messages import MessageParam, decode_call_fields, decode_messages
from antiphon.api.http.loose_chat_requests import normalize_chat_request
from antiphon.api.http.responses_codec import (
    JsonObjectFormat,
    JsonSchema,
    Metadata,
    NonEmptyString,
    Penalty,
    PositiveInt,
    Probability,
    Temperature,
    TextFormat,
    decode_request,
    format_fields,
)
from antiphon.core.turns import INCLUDE_LOGPROBS, FunctionTool, Options, TurnRequest
from antiphon.errors import InvalidRequestError


class _Function(msgspec.Struct, frozen=True):
    name: NonEmptyString
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: _Function


class _ChosenFunction(msgspec.Struct, frozen=True):
    name: NonEmptyString


class _NamedChoice(msgspec.Struct, frozen=True, tag="function", tag_field="type"):
    function: _ChosenFunction


class _AllowedFunctions(msgspec.Struct, frozen=True):
    tools: Annotated[list[_NamedChoice], msgspec.Meta(min_length=1, max_length=128)]
    mode: Literal["auto", "none", "required"] | None = None


class _AllowedTools(msgspec.Struct, frozen=True, tag="allowed_tools", tag_field="type"):
    allowed_tools: _AllowedFunctions


_ToolChoice = Literal["auto", "none", "required"] | _NamedChoice | _AllowedTools


class _SchemaFormat(msgspec.Struct, frozen=True, tag="json_schema", tag_field="type"):
    json_schema: JsonSchema


_ResponseFormat = TextFormat | JsonObjectFormat | _SchemaFormat


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ChatCompletionCreate(msgspec.Struct, frozen=True):
    """What ``POST /v1/chat/completions`` takes. Other fields go on to the upstream."""

    messages: list[MessageParam]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    n: PositiveInt | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    #: What ``tools`` and ``tool_choice`` were called before.
    functions: list[_Function] | None = None
    function_call: Literal["auto", "none"] | _ChosenFunction | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    #: xAI's: the completion is fetched later.
    deferred: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    user: str | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """A turn's request, and how it is answered.

    ``include_usage``: a stream's last chunk has the usage. ``legacy_functions``: a call is shown
    as ``function_call``. ``deferred``: the client fetches it later.
    ``store`` None: as the server's setting says.
    """

    turn: TurnRequest
    include_usage: bool = False
    legacy_functions: bool = False
    deferred: bool = False
    store: bool | None = None


class _ResponsesBody(msgspec.Struct, frozen=True):
    """What tells a body of ``/v1/responses`` from one of this API."""

    input: Any = None
    messages: Any = None
    stream_options: _StreamOptions | None = None
    store: bool | None = None


_request = RequestDecoder(ChatCompletionCreate, normalize_chat_request)
_responses_body = msgspec.json.Decoder(_ResponsesBody)


def decode_chat_request(body: bytes, *, store_by_default: bool = False) -> ChatRequest:
    """A body as a turn's request. Raises ``InvalidRequestError`` naming the invalid field."""
    request = _decode_request(body)
    store = store_by_default if request.store is None else request.store
    if not store:
        return request
    turn = msgspec.structs.replace(request.turn, store=True, chat_completion=True)
    return msgspec.structs.replace(request, turn=turn)


def _decode_request(body: bytes) -> ChatRequest:
    try:
        params, extra = _request.decode(body)
    except InvalidRequestError as error:
        request = _decode_responses_body(body) if error.param == "messages" else None
        if request is None:
            raise
        return request
    if not params.messages:
        request = _decode_responses_body(body)
        if request is not None:
            return request
        raise InvalidRequestError("There are no messages.", code="empty_input", param="messages")
    if params.n is not None and params.n > 1:
        raise InvalidRequestError("Only one choice is made: n is 1.", param="n")
    for name in ("previous_response_id", "conversation"):
        if getattr(params, name):
            raise InvalidRequestError(
                f"'{name}' belongs to /v1/responses: here all messages are sent.",
                code="unsupported_parameter",
                param=name,
            )
    turn = TurnRequest(
        input=decode_messages(params.messages, decode_call_fields(body, params.messages)),
        model=params.model,
        instructions=params.instructions,
        options=_options(params, extra),
        store=False,
        stream=bool(params.stream),
    )
    return ChatRequest(
        turn,
        include_usage=_includes_usage(params.stream_options),
        legacy_functions=bool(params.functions) and not params.tools,
        deferred=bool(params.deferred),
        store=params.store,
    )


def _decode_responses_body(body: bytes) -> ChatRequest | None:
    """A body of ``/v1/responses``, which some clients send here; None: it is none."""
    params = decode_body(_responses_body, body)
    if params.input is None or params.messages:
        return None
    turn = msgspec.structs.replace(decode_request(body), store=False, background=False)
    return ChatRequest(
        turn, include_usage=_includes_usage(params.stream_options), store=params.store
    )


def _includes_usage(options: _StreamOptions | None) -> bool:
    return bool(options and options.include_usage)


def _options(params: ChatCompletionCreate, extra: dict[str, Any]) -> Options:
    stop = params.stop or ()
    logprobs = params.logprobs or (params.logprobs is None and bool(params.top_logprobs))
    choice, allowed_tools = _tool_choice(params)
    return Options(
        temperature=params.temperature,
        top_p=params.top_p,
        max_output_tokens=params.max_completion_tokens or params.max_tokens,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        seed=params.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        tools=_tools(params),
        tool_choice=choice,
        allowed_tools=allowed_tools,
        # Of old, an answer had one call at most.
        parallel_tool_calls=params.parallel_tool_calls is not False and not params.functions,
        text_format=_text_format(params.response_format),
        reasoning_effort=params.reasoning_effort,
        top_logprobs=params.top_logprobs if logprobs else None,
        include=(INCLUDE_LOGPROBS,) if logprobs else (),
        metadata=params.metadata or {},
        user=params.user,
        extra=extra,
    )


def _tools(params: ChatCompletionCreate) -> tuple[FunctionTool, ...]:
    functions = {
        f"tools[{index}].function": tool.function for index, tool in enumerate(params.tools or ())
    }
    functions |= {f"functions[{index}]": one for index, one in enumerate(params.functions or ())}
    for path, function in functions.items():
        check_depth(function.parameters, f"{path}.parameters")
    return tuple(
        FunctionTool(one.name, one.description, one.parameters, one.strict)
        for one in functions.values()
    )


def _tool_choice(params: ChatCompletionCreate) -> tuple[str, tuple[str, ...] | None]:
    match params.tool_choice or params.function_call or "auto":
        case _NamedChoice(function=function) | (_ChosenFunction() as function):
            return f"function:{function.name}", None
        case _AllowedTools(allowed_tools=allowed):
            return allowed.mode or "auto", tuple(one.function.name for one in allowed.tools)
        case choice:
            return choice, None


def _text_format(given: _ResponseFormat | None) -> dict[str, Any] | None:
    """``response_format`` as the Responses API's ``text.format``."""
    if given is None:
        return None
    if isinstance(given, _SchemaFormat):
        fields = format_fields(given.json_schema, "response_format.json_schema")
        return {"type": "json_schema", **fields}
    return format_fields(given, "response_format")
