"""The SDK's completion requests as turns. Pure."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from antiphon.api.common.tool_requests import DecodedTools
from antiphon.api.grpc.message_codec import decode_messages
from antiphon.api.grpc.tool_codec import (
    MCP_OUTPUTS,
    decode_toolset,
    json_object,
    to_valid_name,
)
from antiphon.core.turns import INCLUDE_ENCRYPTED_REASONING, INCLUDE_LOGPROBS, Options, TurnRequest
from antiphon.errors import InvalidRequestError
from antiphon.protos.xai import (
    REASONING_EFFORT_NAMES,
    SERVICE_TIER_NAMES,
    Proto,
    chat_pb2,
    usage_pb2,
)

#: How many answers one request may ask for.
MAX_CHOICES = 16
_MAX_IDENTIFIER_LENGTH = 64
_MAX_TOOL_ROUNDS = TurnRequest(input=()).max_tool_rounds


class CompletionRequest(msgspec.Struct, frozen=True):
    """A request for one or several answers to the same."""

    turn: TurnRequest
    choices: int = 1


def decode_completion(request: Proto, tenant: str, key_id: str | None = None) -> CompletionRequest:
    """A ``GetCompletionsRequest`` as turns. Raises ``InvalidRequestError`` naming the field."""
    _check_supported(request)
    items = decode_messages(request.messages)
    choices = _integer(request, "n", MAX_CHOICES) or 1
    tools = decode_toolset(request)
    if tools.servers and choices > 1:
        # The numbers of outputs would say both which choice they are of and which step.
        raise InvalidRequestError("With MCP servers there is one choice: leave 'n' out.", param="n")
    turn = TurnRequest(
        input=items,
        model=request.model or None,
        previous_response_id=request.previous_response_id or None,
        options=_options(request, tools),
        store=request.store_messages,
        tenant=tenant,
        key_id=key_id,
        # As with xAI, a request may ask for fewer than the server's own number, not for more.
        max_tool_rounds=min(_integer(request, "max_turns") or _MAX_TOOL_ROUNDS, _MAX_TOOL_ROUNDS),
        mcp=tools.server_requests,
    )
    return CompletionRequest(turn, choices)


def _check_supported(request: Proto) -> None:
    refused: list[str] = []
    search = request.search_parameters.mode
    if request.HasField("search_parameters") and search != chat_pb2.OFF_SEARCH_MODE:
        refused.append("search_parameters")
    if request.HasField("agent_count") and request.agent_count:
        refused.append("agent_count")
    if request.guidelines:
        refused.append("guidelines")
    for name in refused:
        raise InvalidRequestError(
            f"This server does not know '{name}'.", code="unsupported_parameter", param=name
        )


def _options(request: Proto, tools: DecodedTools) -> Options:
    top_logprobs = _integer(request, "top_logprobs", 20, minimum=0)
    include: tuple[str, ...] = (INCLUDE_LOGPROBS,) if request.logprobs else ()
    if request.use_encrypted_content:
        include += (INCLUDE_ENCRYPTED_REASONING,)
    if chat_pb2.INCLUDE_OPTION_MCP_CALL_OUTPUT in request.include:
        include += (MCP_OUTPUTS,)
    return Options(
        temperature=_number(request, "temperature", 0, 2),
        top_p=_number(request, "top_p", 0, 1),
        max_output_tokens=_integer(request, "max_tokens"),
        frequency_penalty=_number(request, "frequency_penalty", -2, 2),
        presence_penalty=_number(request, "presence_penalty", -2, 2),
        seed=request.seed if request.HasField("seed") else None,
        stop=tuple(request.stop),
        tools=tools.functions,
        mcp_servers=tools.servers,
        tool_choice=tools.choice,
        parallel_tool_calls=(
            request.parallel_tool_calls if request.HasField("parallel_tool_calls") else True
        ),
        text_format=_text_format(request.response_format),
        reasoning_effort=_effort(request),
        top_logprobs=top_logprobs,
        include=include,
        service_tier=_tier(request),
        safety_identifier=_identifier(request),
        user=request.user or None,
    )


def _number(request: Proto, name: str, minimum: float, maximum: float) -> float | None:
    """A float of the wire, which has 24 bits: 0.7 comes as 0.699999988."""
    if not request.HasField(name):
        return None
    value: float = getattr(request, name)
    if not (math.isfinite(value) and minimum <= round(value, 6) <= maximum):
        raise InvalidRequestError(f"'{name}' is a number from {minimum} to {maximum}.", param=name)
    return round(value, 6)


def _integer(
    request: Proto, name: str, maximum: int = 2**31 - 1, *, minimum: int = 1
) -> int | None:
    if not request.HasField(name):
        return None
    value: int = getattr(request, name)
    if not minimum <= value <= maximum:
        raise InvalidRequestError(f"'{name}' is a number from {minimum} to {maximum}.", param=name)
    return value


def _text_format(given: Proto) -> dict[str, Any] | None:
    """``response_format`` as the Responses API's ``text.format``, whose schemas have names."""
    match given.format_type:
        case chat_pb2.FORMAT_TYPE_JSON_OBJECT:
            return {"type": "json_object"}
        case chat_pb2.FORMAT_TYPE_JSON_SCHEMA:
            schema = json_object(given.schema, "response_format.schema")
            name = to_valid_name(str(schema.get("title") or ""))[:64]
            return {"type": "json_schema", "name": name or "response", "schema": schema}
        case chat_pb2.FORMAT_TYPE_INVALID | chat_pb2.FORMAT_TYPE_TEXT:
            return None
    raise InvalidRequestError("There is no such format.", param="response_format.format_type")


def _effort(request: Proto) -> str | None:
    if not request.HasField("reasoning_effort") or not request.reasoning_effort:
        return None
    if request.reasoning_effort not in REASONING_EFFORT_NAMES:
        raise InvalidRequestError("There is no such effort.", param="reasoning_effort")
    return REASONING_EFFORT_NAMES[request.reasoning_effort]


def _tier(request: Proto) -> Any:
    if request.service_tier == usage_pb2.SERVICE_TIER_UNSPECIFIED:
        return None
    if request.service_tier not in SERVICE_TIER_NAMES:
        raise InvalidRequestError("There is no such service tier.", param="service_tier")
    return SERVICE_TIER_NAMES[request.service_tier]


def _identifier(request: Proto) -> str | None:
    if len(request.safety_identifier) > _MAX_IDENTIFIER_LENGTH:
        raise InvalidRequestError(
            f"The identifier has more than {_MAX_IDENTIFIER_LENGTH} characters.",
            param="safety_identifier",
        )
    return request.safety_identifier or None
