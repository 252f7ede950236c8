"""Chat completion requests: decodes the bodies of ``POST /v1/chat/completions``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from antiphon.api.common.body import DECODE_ERRORS, RequestDecoder, decode_body
from antiphon.api.common.decoded_tools_cache import DecodedToolsCache
from antiphon.api.common.tool_requests import (
    DecodedTools,
    Definition,
    McpToolParam,
    ToolChoice,
    ToolParam,
    decode_tools,
    parse_tools,
)
from antiphon.api.http.chat_messages import (
    MessageParam,
    decode_call_fields,
    decode_messages,
    legacy_call_id,
)
from antiphon.api.http.loose_chat_requests import normalize_chat_request
from antiphon.api.http.responses_codec import (
    JsonSchema,
    Metadata,
    Penalty,
    PositiveInt,
    Probability,
    Temperature,
    TextFormat,
    decode_request,
    format_fields,
)
from antiphon.core.items import Message
from antiphon.core.tool_definitions import CustomToolParam, FunctionToolParam, ToolSearchParam
from antiphon.core.turns import INCLUDE_LOGPROBS, NO_OPTIONS, Options, TurnRequest
from antiphon.errors import InvalidRequestError


class _ObjectFormat(msgspec.Struct, frozen=True, tag="json_object", tag_field="type"):
    """Some JSON; with the schema that other servers take here, JSON of one shape."""

    schema: dict[str, Any] | None = None


class _SchemaFormat(msgspec.Struct, frozen=True, tag="json_schema", tag_field="type"):
    json_schema: JsonSchema


_ResponseFormat = TextFormat | _ObjectFormat | _SchemaFormat


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
    tools: list[Definition] | None = None
    tool_choice: ToolChoice | None = None
    #: What ``tools`` and ``tool_choice`` were called before.
    functions: list[Definition] | None = None
    function_call: ToolChoice | None = None
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


class _PlainMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _PlainCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What most completions are asked with: messages of text, and nothing that needs a look."""

    messages: Annotated[list[_PlainMessage], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    store: bool | None = None


_plain_request = msgspec.json.Decoder(_PlainCreate)


def _decode_request(body: bytes) -> ChatRequest:
    try:
        plain = _plain_request.decode(body)
    except DECODE_ERRORS:
        return decode_any_request(body)
    turn = TurnRequest(
        input=tuple([Message(one.role, one.content) for one in plain.messages]),
        model=plain.model,
        options=NO_OPTIONS,
        store=False,
        stream=bool(plain.stream),
    )
    return ChatRequest(turn, _includes_usage(plain.stream_options), store=plain.store)


def decode_any_request(body: bytes) -> ChatRequest:
    """A body of any fields."""
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
    legacy_functions = bool(params.functions) and not params.tools
    turn = TurnRequest(
        input=decode_messages(params.messages, decode_call_fields(body, params.messages)),
        model=params.model,
        instructions=params.instructions,
        options=_options(params, extra),
        store=False,
        stream=bool(params.stream),
        call_id=legacy_call_id(len(params.messages)) if legacy_functions else None,
    )
    return ChatRequest(
        turn,
        include_usage=_includes_usage(params.stream_options),
        legacy_functions=legacy_functions,
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
    tools = _decode_tools(params)
    return Options(
        temperature=params.temperature,
        top_p=params.top_p,
        max_output_tokens=params.max_completion_tokens or params.max_tokens,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        seed=params.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        tools=tools.functions,
        namespaces=tools.namespaces,
        hosted_tools=tools.hosted,
        tool_choice=tools.choice,
        allowed_tools=tools.allowed_tools,
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


def _decode_tools(params: ChatCompletionCreate) -> DecodedTools:
    """The tools of a request, and the functions that they were before."""
    functions = [{**one, "type": "function"} for one in params.functions or ()]
    definitions = [*(params.tools or ()), *functions]
    choice = params.tool_choice or params.function_call or None
    if not definitions and choice is None:
        return DecodedTools()
    try:
        return _tools_cache.get(definitions, choice)
    except InvalidRequestError as error:
        field = "tool_choice" if params.tool_choice else "function_call"
        raise _locate_error(error, definitions, len(params.tools or ()), field, choice) from None


def _decode_definitions(
    definitions: Sequence[Definition], choice: ToolChoice | None
) -> DecodedTools:
    tools = [_plain_tool(tool) for tool in parse_tools(definitions)]
    for index, tool in enumerate(tools):
        if isinstance(tool, McpToolParam):
            raise InvalidRequestError(
                "MCP servers are tools of /v1/responses.",
                code="unsupported_parameter",
                param=f"tools[{index}].type",
            )
    return decode_tools(tools, _find_choice(choice, tools))


_tools_cache = DecodedToolsCache(_decode_definitions)


def _plain_tool(tool: ToolParam) -> ToolParam:
    """A tool as this API has it: its only items are calls of functions and custom tools."""
    if isinstance(tool, ToolSearchParam):
        return FunctionToolParam(tool.name, tool.description, tool.parameters)
    return tool


def _find_choice(choice: ToolChoice | None, tools: Sequence[ToolParam]) -> ToolChoice | None:
    """A choice; one that is the name of a tool means that tool."""
    if not isinstance(choice, str):
        return choice
    for tool in tools:
        if isinstance(tool, FunctionToolParam | CustomToolParam) and tool.name == choice:
            return {"type": "function", "name": choice}
    return choice.strip().lower()


_TOOL_PATH = re.compile(r"tools\[(\d+)\](\.(?!type\b).*)?")


def _locate_error(
    error: InvalidRequestError,
    definitions: Sequence[Definition],
    tool_count: int,
    choice_field: str,
    choice: ToolChoice | None,
) -> InvalidRequestError:
    """The error with the field where chat completions have it."""
    param = error.param or ""
    match = _TOOL_PATH.fullmatch(param)
    if match is not None and int(match[1]) < len(definitions):
        index, field = int(match[1]), match[2] or ""
        path = f"tools[{index}]" if index < tool_count else f"functions[{index - tool_count}]"
        path += _nesting(definitions[index], field) + field
    elif param.startswith("tool_choice"):
        field = param.removeprefix("tool_choice")
        nesting = _nesting(choice, field) if isinstance(choice, dict) and field == ".name" else ""
        path = choice_field + nesting + field
    else:
        return error
    return InvalidRequestError(error.message.replace(param, path), code=error.code, param=path)


def _nesting(definition: Definition, field: str) -> str:
    """Where the fields of a tool are in its definition."""
    kind = definition.get("type") or "function"
    return f".{kind}" if field and isinstance(definition.get(kind), dict) else ""


def _text_format(given: _ResponseFormat | None) -> dict[str, Any] | None:
    """``response_format`` as the Responses API's ``text.format``."""
    if given is None:
        return None
    if isinstance(given, _SchemaFormat):
        fields = format_fields(given.json_schema, "response_format.json_schema")
        return {"type": "json_schema", **fields}
    fields = format_fields(given, "response_format")
    if "schema" in fields:
        return {"type": "json_schema", "name": "response", "schema": fields["schema"]}
    return fields
