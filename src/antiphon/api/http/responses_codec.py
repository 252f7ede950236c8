"""Responses codec: request bodies of ``POST /v1/responses`` into turns, responses into JSON. Pure.

Requests have the shapes of the Open Responses specification, 2026-04-24, and of what OpenAI's
clients send besides. Null means absent, and unknown fields go on to the upstream. In a
response every field is always present, and numbers are never null: clients validate that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from antiphon.api.common.body import (
    DECODE_ERRORS,
    RequestDecoder,
    check_depth,
    convert_value,
    drop_nulls,
)
from antiphon.api.common.decoded_tools_cache import DecodedToolsCache
from antiphon.api.common.input_items import DecodedInput, decode_items
from antiphon.api.common.tool_bodies import choice_body, tool_bodies
from antiphon.api.common.tool_requests import (
    DecodedTools,
    decode_tools,
    parse_tools,
)
from antiphon.api.http.item_bodies import output_items
from antiphon.api.http.loose_response_requests import (
    normalize_response_format,
    normalize_response_request,
)
from antiphon.core.identity_cache import IdentityCache
from antiphon.core.items import Item, Message
from antiphon.core.token_prices import round_cost
from antiphon.core.tool_definitions import added_tools
from antiphon.core.turns import NO_OPTIONS, FunctionTool, Options, Response, TurnRequest, Usage
from antiphon.errors import InvalidRequestError

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
PositiveInt = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
#: A word that only the client knows the meaning of.
ClientIdentifier = Annotated[str, msgspec.Meta(max_length=512)]
Metadata = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[str, msgspec.Meta(max_length=512)]],
    msgspec.Meta(max_length=16),
]

NonEmptyString = Annotated[str, msgspec.Meta(min_length=1)]


class TextFormat(msgspec.Struct, frozen=True, tag="text", tag_field="type"):
    """Answers in prose."""


class JsonObjectFormat(msgspec.Struct, frozen=True, tag="json_object", tag_field="type"):
    """Answers in some JSON."""


class JsonSchema(msgspec.Struct, frozen=True):
    """The JSON that an answer shall be."""

    name: NonEmptyString
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(JsonSchema, frozen=True, tag="json_schema", tag_field="type"):
    """Answers in JSON of one shape."""


def format_fields(text_format: msgspec.Struct, path: str) -> dict[str, Any]:
    """A format as ``Options`` has it; ``path`` is its field in the body."""
    fields: dict[str, Any] = drop_nulls(msgspec.to_builtins(text_format))
    check_depth(fields, path)
    return fields


def format_body(text_format: dict[str, Any] | None) -> dict[str, Any]:
    """The reverse: a format as a response shows it."""
    if text_format is None:
        return {"type": "text"}
    if text_format["type"] == "json_schema":
        return {"description": None, "strict": False, **text_format}
    return text_format


#: A word that is the upstream's to understand: there are new ones every few months.
ModelWord = Annotated[str, msgspec.Meta(max_length=64)]


class _Text(msgspec.Struct, frozen=True):
    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _Reasoning(msgspec.Struct, frozen=True):
    effort: ModelWord | None = None
    summary: ModelWord | None = None
    #: What ``summary`` was called before.
    generate_summary: ModelWord | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_obfuscation: bool | None = None


class _Conversation(msgspec.Struct, frozen=True):
    id: str | None = None


class _ContextManagement(msgspec.Struct, frozen=True):
    type: Literal["compaction"]
    #: In tokens.
    compact_threshold: PositiveInt | None = None


#: An object whose type a later step looks at (``common.tool_requests``, ``common.input_items``).
_Object = dict[str, Any]


class ResponseCreate(msgspec.Struct, frozen=True):
    """What a turn is asked with: the body of ``POST /v1/responses``."""

    input: str | list[str | _Object] | _Object | None = None
    #: What chat completions call the input.
    messages: list[_Object] | None = None
    model: str | None = None
    previous_response_id: str | None = None
    #: Ours: continue what that response continues, in the same chat.
    sibling_of: str | None = None
    conversation: str | _Conversation | None = None
    #: Ours: what to do while another turn runs on the conversation, or where the previous response
    #: of a background turn has not been answered.
    on_busy: Literal["refuse", "queue"] | None = None
    instructions: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    background: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    max_output_tokens: PositiveInt | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    metadata: Metadata | None = None
    tools: list[_Object] | None = None
    tool_choice: str | _Object | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: PositiveInt | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    include: list[ModelWord] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    context_management: list[_ContextManagement] | None = None
    service_tier: ModelWord | None = None
    prompt_cache_key: ClientIdentifier | None = None
    safety_identifier: ClientIdentifier | None = None
    user: str | None = None
    #: A template that a server keeps; this one keeps none.
    prompt: _Object | None = None
    # What chat completions call ``max_output_tokens``, ``text.format`` and ``reasoning.effort``.
    max_completion_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    response_format: _Object | None = None
    reasoning_effort: ModelWord | None = None


_request = RequestDecoder(ResponseCreate, normalize_response_request)
_NO_TOOLS = DecodedTools()
_tools_cache = DecodedToolsCache(lambda given, choice: decode_tools(parse_tools(given), choice))


class _PlainCreate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What most turns are asked with: a text, and nothing that needs a look."""

    input: str
    model: str | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    store: bool | None = None
    stream: bool | None = None


_plain_request = msgspec.json.Decoder(_PlainCreate)


def decode_request(body: bytes, *, needs_input: bool = True) -> TurnRequest:
    """A body as a turn's request. Raises ``InvalidRequestError`` naming the invalid field.

    ``needs_input`` False: a turn that only prepares others may have none.
    """
    try:
        plain = _plain_request.decode(body)
    except DECODE_ERRORS:
        return decode_any_request(body, needs_input=needs_input)
    return TurnRequest(
        input=(Message("user", plain.input),),
        model=plain.model,
        previous_response_id=plain.previous_response_id or None,
        instructions=plain.instructions,
        options=NO_OPTIONS,
        store=plain.store is not False,
        stream=bool(plain.stream),
    )


def decode_any_request(body: bytes, *, needs_input: bool = True) -> TurnRequest:
    """The same for a body of any fields."""
    params, extra = _request.decode(body)
    conversation = params.conversation
    if isinstance(conversation, _Conversation):
        conversation = conversation.id
    # An empty id is how some clients write that there is none.
    conversation, previous = conversation or None, params.previous_response_id or None
    sibling = params.sibling_of or None
    _check_combinations(params, conversation, previous)
    has_input = params.input is not None or params.messages is not None
    if needs_input and not has_input and previous is None and conversation is None:
        raise InvalidRequestError("There is no input.", code="empty_input", param="input")
    decoded_input = _decode_input(params)
    tools = _decode_tools(params, decoded_input.items)
    return TurnRequest(
        input=decoded_input.items,
        model=params.model,
        previous_response_id=previous,
        sibling_of=sibling,
        conversation=conversation,
        on_busy=params.on_busy or "refuse",
        instructions=params.instructions,
        options=_options(params, tools, extra),
        store=params.store is not False,
        stream=bool(params.stream),
        background=bool(params.background),
        approved_calls=decoded_input.approved_calls,
        references=decoded_input.references,
        item_ids=decoded_input.item_ids,
        mcp=tools.server_requests,
        compact_threshold=_compact_threshold(params.context_management or ()),
    )


def _compact_threshold(entries: Sequence[_ContextManagement]) -> int | None:
    """The lowest threshold of all entries; 0: none has a number; None: there are none."""
    numbers = [one.compact_threshold for one in entries if one.compact_threshold is not None]
    return min(numbers, default=0) if entries else None


def _check_combinations(
    params: ResponseCreate, conversation: str | None, previous: str | None
) -> None:
    """Check combinations of fields. Raises ``InvalidRequestError``."""
    if params.prompt:
        raise InvalidRequestError(
            "This server keeps no prompt templates: send instructions and input.",
            code="unsupported_parameter",
            param="prompt",
        )
    if conversation is not None and previous is not None:
        raise InvalidRequestError(
            # OpenAI's own words, which clients may compare.
            "Mutually exclusive parameters: Ensure you are only providing one of: "
            "'previous_response_id' or 'conversation'.",
            code="mutually_exclusive_parameters",
        )
    if params.sibling_of and (conversation is not None or previous is not None):
        raise InvalidRequestError(
            "'sibling_of' says what the turn continues: send it without 'previous_response_id'"
            " and 'conversation'.",
            code="mutually_exclusive_parameters",
            param="sibling_of",
        )
    if params.background and params.store is False:
        raise InvalidRequestError(
            "A turn in the background can only be found again if it is stored.",
            code="unsupported_parameter",
            param="background",
        )


def _decode_input(params: ResponseCreate) -> DecodedInput:
    value = params.input
    if isinstance(value, str):
        return DecodedInput((Message("user", value),))
    if value is None and params.messages is not None:
        return decode_items(params.messages, "messages")
    return decode_items([value] if isinstance(value, dict) else value or (), "input")


def _decode_tools(params: ResponseCreate, items: Sequence[Item]) -> DecodedTools:
    if not params.tools and params.tool_choice is None:
        return _NO_TOOLS
    definitions, choice = params.tools or (), params.tool_choice
    if added := added_tools(items):
        return decode_tools(parse_tools(definitions), choice, added)
    return _tools_cache.get(definitions, choice)


def _options(params: ResponseCreate, tools: DecodedTools, extra: dict[str, Any]) -> Options:
    text, reasoning = params.text, params.reasoning
    return Options(
        temperature=params.temperature,
        top_p=params.top_p,
        max_output_tokens=(
            params.max_output_tokens or params.max_completion_tokens or params.max_tokens
        ),
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        tools=tools.functions,
        namespaces=tools.namespaces,
        hosted_tools=tools.hosted,
        mcp_servers=tools.servers,
        tool_choice=tools.choice,
        allowed_tools=tools.allowed_tools,
        max_tool_calls=params.max_tool_calls,
        parallel_tool_calls=params.parallel_tool_calls is not False,
        text_format=_text_format(params),
        verbosity=text.verbosity if text else None,
        reasoning_effort=(reasoning.effort if reasoning else params.reasoning_effort) or None,
        reasoning_summary=(
            (reasoning.summary or reasoning.generate_summary or None) if reasoning else None
        ),
        top_logprobs=params.top_logprobs,
        include=tuple(params.include or ()),
        service_tier=params.service_tier or None,
        prompt_cache_key=params.prompt_cache_key or None,
        safety_identifier=params.safety_identifier or None,
        truncation=params.truncation or "disabled",
        metadata=params.metadata or {},
        user=params.user or None,
        extra=extra,
    )


def _text_format(params: ResponseCreate) -> dict[str, Any] | None:
    if params.text and params.text.format:
        return format_fields(params.text.format, "text.format")
    if not params.response_format:
        return None
    given = normalize_response_format(params.response_format)
    kind: Any = TextFormat | JsonObjectFormat | JsonSchemaFormat
    return format_fields(convert_value(given, kind, "response_format"), "response_format")


_encode = msgspec.json.Encoder().encode


def encode_response(
    response: Response, *, queued: bool = False, include: Sequence[str] = ()
) -> bytes:
    """A response as JSON: see ``response_body``."""
    own = _encode(_own_fields(response, queued, include))
    return own[:-1] + b"," + _encode_options(response.header.options)[1:]


def response_body(
    response: Response, *, queued: bool = False, include: Sequence[str] = ()
) -> dict[str, Any]:
    """A response as it is shown, every key present.

    ``queued``: it runs in the background, and nobody has seen it begin. ``include`` is what
    is asked for besides what its maker asked for.
    """
    options = response.header.options
    own = _own_fields(response, queued, include)
    return {**own, **_options_body(options, tool_bodies(options))}


def _own_fields(response: Response, queued: bool, include: Sequence[str]) -> dict[str, Any]:
    header, end = response.header, response.end
    ended = end.ended_at if end else None
    status = response.status
    return {
        "id": response.id,
        "object": "response",
        "created_at": int(response.created_at),
        "completed_at": int(ended) if ended and status == "completed" else None,
        "expires_at": None if response.expires_at is None else int(response.expires_at),
        "status": "queued" if queued and end is None else status,
        "incomplete_details": {"reason": end.reason} if end and end.reason else None,
        "model": (end.model if end else None) or header.model,
        "previous_response_id": response.previous_response_id,
        "conversation": None if header.conversation is None else {"id": header.conversation},
        "instructions": header.instructions,
        "output": output_items(response, include) if response.output else [],
        "error": (
            {"code": end.error.code, "message": end.error.message} if end and end.error else None
        ),
        "usage": usage_body(end.usage, end.cost) if end and end.usage else None,
        "store": response.store,
        "background": header.background,
    }


def _options_body(options: Options, tools: Any) -> dict[str, Any]:
    """What a response shows of its turn's settings."""
    return {
        "tools": tools,
        "tool_choice": choice_body(options),
        "truncation": options.truncation,
        "parallel_tool_calls": options.parallel_tool_calls,
        "text": _text_body(options),
        "top_p": 1.0 if options.top_p is None else options.top_p,
        "presence_penalty": options.presence_penalty or 0.0,
        "frequency_penalty": options.frequency_penalty or 0.0,
        "top_logprobs": options.top_logprobs or 0,
        "temperature": 1.0 if options.temperature is None else options.temperature,
        "reasoning": _reasoning_body(options),
        "max_output_tokens": options.max_output_tokens,
        "max_tool_calls": options.max_tool_calls,
        "service_tier": options.service_tier or "default",
        "metadata": options.metadata,
        "safety_identifier": options.safety_identifier,
        "prompt_cache_key": options.prompt_cache_key,
        "user": options.user,
    }


def _encode_options(options: Options) -> bytes:
    # Most turns have none.
    if options is NO_OPTIONS or options == NO_OPTIONS:
        return _ENCODED_NO_OPTIONS
    tools = options.tools
    if not tools or options.namespaces or options.mcp_servers or options.hosted_tools:
        return _encode(_options_body(options, tool_bodies(options)))
    encoded = _encoded_tools.get(tools)
    if encoded is None:
        encoded = _encoded_tools.put(tools, _encode(tool_bodies(options)))
    return _encode(_options_body(options, msgspec.Raw(encoded)))


#: The tools of the last requests, as responses show them.
_encoded_tools: IdentityCache[tuple[FunctionTool, ...], bytes] = IdentityCache(32)


def _text_body(options: Options) -> dict[str, Any]:
    body: dict[str, Any] = {"format": format_body(options.text_format)}
    if options.verbosity is not None:
        body["verbosity"] = options.verbosity
    return body


def _reasoning_body(options: Options) -> dict[str, Any] | None:
    effort, summary = options.reasoning_effort, options.reasoning_summary
    return {"effort": effort, "summary": summary} if effort or summary else None


def usage_body(usage: Usage, cost: float | None = None) -> dict[str, Any]:
    """Tokens, as they are shown; with their cost where the model has a price."""
    body = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            # No model here says what it writes to a cache; the official client wants a number.
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return body if cost is None else {**body, "cost": round_cost(cost)}


_ENCODED_NO_OPTIONS = _encode(_options_body(NO_OPTIONS, []))
