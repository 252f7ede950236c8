"""The SDK's completion requests as turns. Pure."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from antiphon.api.grpc.wire_messages import decode_messages
from antiphon.api.http.body import UNDECODABLE, check_depth
from antiphon.core.turns import FunctionTool, Options, TurnRequest
from antiphon.core.xai_protos import Proto, chat_pb2, usage_pb2
from antiphon.errors import InvalidRequest

#: How many answers one request may ask for.
MOST_CHOICES = 16
_MOST_TOOLS = 128
_LONGEST_IDENTIFIER = 64

_EFFORTS = {
    chat_pb2.EFFORT_NONE: "none",
    chat_pb2.EFFORT_LOW: "low",
    chat_pb2.EFFORT_MEDIUM: "medium",
    chat_pb2.EFFORT_HIGH: "high",
    chat_pb2.EFFORT_XHIGH: "xhigh",
}
_MODES = {
    chat_pb2.TOOL_MODE_INVALID: "auto",
    chat_pb2.TOOL_MODE_AUTO: "auto",
    chat_pb2.TOOL_MODE_NONE: "none",
    chat_pb2.TOOL_MODE_REQUIRED: "required",
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_-]+")

#: What ``Options.include`` has where the odds of tokens, or sealed reasoning, are wanted.
LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"


class Asked(msgspec.Struct, frozen=True):
    """A request for one or several answers to the same."""

    turn: TurnRequest
    choices: int = 1


def decode_completion(request: Proto, tenant: str) -> Asked:
    """A ``GetCompletionsRequest`` as turns. Raises ``InvalidRequest`` naming the field at fault."""
    _check_supported(request)
    items = decode_messages(request.messages)
    choices = _whole(request, "n", MOST_CHOICES) or 1
    turn = TurnRequest(
        input=items,
        model=request.model or None,
        previous_response_id=request.previous_response_id or None,
        options=_options(request),
        store=request.store_messages,
        tenant=tenant,
        max_tool_rounds=_whole(request, "max_turns") or TurnRequest(input=()).max_tool_rounds,
    )
    return Asked(turn, choices)


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
        raise InvalidRequest(
            f"This server does not know '{name}'.", code="unsupported_parameter", param=name
        )


def _options(request: Proto) -> Options:
    tools = tuple(_tool(tool, f"tools[{place}]") for place, tool in enumerate(request.tools))
    if len(tools) > _MOST_TOOLS:
        raise InvalidRequest(f"Send at most {_MOST_TOOLS} tools.", param="tools")
    names = [tool.name for tool in tools]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidRequest(f"There are two tools named '{name}'.", param=f"tools[{place}]")
    top_logprobs = _whole(request, "top_logprobs", 20, least=0)
    include: tuple[str, ...] = (LOGPROBS,) if request.logprobs else ()
    if request.use_encrypted_content:
        include += (SEALED,)
    return Options(
        temperature=_number(request, "temperature", 0, 2),
        top_p=_number(request, "top_p", 0, 1),
        max_output_tokens=_whole(request, "max_tokens"),
        frequency_penalty=_number(request, "frequency_penalty", -2, 2),
        presence_penalty=_number(request, "presence_penalty", -2, 2),
        seed=request.seed if request.HasField("seed") else None,
        stop=tuple(request.stop),
        tools=tools,
        tool_choice=_choice(request, names),
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


def _number(request: Proto, name: str, least: float, most: float) -> float | None:
    """A float of the wire, which has 24 bits: 0.7 comes as 0.699999988."""
    if not request.HasField(name):
        return None
    value: float = getattr(request, name)
    if not (math.isfinite(value) and least <= round(value, 6) <= most):
        raise InvalidRequest(f"'{name}' is a number from {least} to {most}.", param=name)
    return round(value, 6)


def _whole(request: Proto, name: str, most: int = 2**31 - 1, *, least: int = 1) -> int | None:
    if not request.HasField(name):
        return None
    value: int = getattr(request, name)
    if not least <= value <= most:
        raise InvalidRequest(f"'{name}' is a number from {least} to {most}.", param=name)
    return value


def _tool(tool: Proto, at: str) -> FunctionTool:
    kind = tool.WhichOneof("tool")
    if kind != "function":
        what = f"the tool '{kind}'" if kind else "such a tool"
        raise InvalidRequest(
            f"This server does not run {what}: give the model functions of your own.",
            code="unsupported_parameter",
            param=at,
        )
    function = tool.function
    if not _NAME.match(function.name):
        raise InvalidRequest(
            "A function's name is 1 to 64 letters, digits, '_' and '-'.",
            param=f"{at}.function.name",
        )
    schema = None
    if function.parameters:
        schema = _json_object(function.parameters, f"{at}.function.parameters")
    return FunctionTool(
        function.name, function.description or None, schema, True if function.strict else None
    )


def _json_object(text: str, at: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except UNDECODABLE as error:
        raise InvalidRequest("That is not a JSON object.", param=at) from error
    check_depth(value, at)
    return value


def _choice(request: Proto, names: list[str]) -> str:
    choice = request.tool_choice
    if choice.WhichOneof("tool_choice") != "function_name":
        if choice.mode not in _MODES:
            raise InvalidRequest("There is no such tool mode.", param="tool_choice.mode")
        return _MODES[choice.mode]
    if choice.function_name not in names:
        raise InvalidRequest(
            f"There is no tool '{choice.function_name}' among the tools.",
            code="unknown_tool",
            param="tool_choice.function_name",
        )
    return f"function:{choice.function_name}"


def _text_format(given: Proto) -> dict[str, Any] | None:
    """``response_format`` as the Responses API's ``text.format``, whose schemas have names."""
    match given.format_type:
        case chat_pb2.FORMAT_TYPE_JSON_OBJECT:
            return {"type": "json_object"}
        case chat_pb2.FORMAT_TYPE_JSON_SCHEMA:
            schema = _json_object(given.schema, "response_format.schema")
            name = _NOT_A_NAME.sub("_", str(schema.get("title") or ""))[:64]
            return {"type": "json_schema", "name": name or "response", "schema": schema}
        case chat_pb2.FORMAT_TYPE_INVALID | chat_pb2.FORMAT_TYPE_TEXT:
            return None
    raise InvalidRequest("There is no such format.", param="response_format.format_type")


def _effort(request: Proto) -> str | None:
    if not request.HasField("reasoning_effort") or not request.reasoning_effort:
        return None
    if request.reasoning_effort not in _EFFORTS:
        raise InvalidRequest("There is no such effort.", param="reasoning_effort")
    return _EFFORTS[request.reasoning_effort]


def _tier(request: Proto) -> Any:
    match request.service_tier:
        case usage_pb2.SERVICE_TIER_UNSPECIFIED:
            return None
        case usage_pb2.SERVICE_TIER_DEFAULT:
            return "default"
        case usage_pb2.SERVICE_TIER_PRIORITY:
            return "priority"
    raise InvalidRequest("There is no such service tier.", param="service_tier")


def _identifier(request: Proto) -> str | None:
    if len(request.safety_identifier) > _LONGEST_IDENTIFIER:
        raise InvalidRequest(
            f"The identifier has more than {_LONGEST_IDENTIFIER} characters.",
            param="safety_identifier",
        )
    return request.safety_identifier or None
